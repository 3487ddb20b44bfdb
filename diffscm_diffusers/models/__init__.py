# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from .anticausal_classifier_2d import AntiCausalClassifier2DModel, AntiCausalClassifier2DOutput
from .image_autoencoder import ImageAutoencoder
from .image_classifier import ImageClassifier
from .latent_vae import LatentVAE


__all__ = [
    "AntiCausalClassifier2DModel",
    "AntiCausalClassifier2DOutput",
    "ImageAutoencoder",
    "ImageClassifier",
    "LatentVAE",
]
