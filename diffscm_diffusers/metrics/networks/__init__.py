# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The networks that metrics and baselines use: classifiers, autoencoders and a variational autoencoder."""

from .image_autoencoder import ImageAutoencoder
from .image_classifier import ImageClassifier
from .latent_vae import LatentVAE
from .mlp_ensemble import MLPEnsemble


__all__ = ["ImageAutoencoder", "ImageClassifier", "LatentVAE", "MLPEnsemble"]
