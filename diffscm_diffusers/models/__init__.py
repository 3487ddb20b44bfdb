# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from .. import loading  # noqa: F401
from .adm_unet_2d import ADMUNet2DModel
from .anticausal_classifier_2d import AntiCausalClassifier2DModel, AntiCausalClassifier2DOutput
from .causal_predictor_2d import CausalPredictor2DModel
from .causal_unet_2d import CausalUNet2DModel
from .semantic_encoder_2d import SemanticAutoencoder2DOutput, SemanticEncoder2DModel, SemanticEncoder2DOutput
from .structural_causal_model import StructuralCausalModel


__all__ = [
    "ADMUNet2DModel",
    "AntiCausalClassifier2DModel",
    "AntiCausalClassifier2DOutput",
    "CausalPredictor2DModel",
    "CausalUNet2DModel",
    "SemanticAutoencoder2DOutput",
    "SemanticEncoder2DModel",
    "SemanticEncoder2DOutput",
    "StructuralCausalModel",
]
