# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Losses of the networks that see clean images: those that measure counterfactuals, and those of the baselines."""

import torch
import torch.nn.functional as F


def classification_loss(classifier, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the class given the image."""
    return F.cross_entropy(classifier(images).float(), labels)


def reconstruction_loss(autoencoder, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean squared error per pixel."""
    return F.mse_loss(autoencoder(images).float(), images)
