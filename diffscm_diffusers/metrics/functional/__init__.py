# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
The metrics as pure functions. They return one result per sample, of shape `(batch,)`; those of exogenous noise return
results of all samples together.
"""

from .calibration import coverage, crps
from .counterfactual_latent_divergence import (
    counterfactual_latent_divergence,
    counterfactual_latent_divergence_floor,
)
from .effectiveness import effectiveness
from .exogenous_noise import distance_correlation, exogenous_noise_law
from .interpretability import im1, im2
from .pixel_distance import composition, counterfactual_error, minimality, reversibility


__all__ = [
    "composition",
    "counterfactual_error",
    "counterfactual_latent_divergence",
    "counterfactual_latent_divergence_floor",
    "coverage",
    "crps",
    "distance_correlation",
    "effectiveness",
    "exogenous_noise_law",
    "im1",
    "im2",
    "minimality",
    "reversibility",
]
