# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The metrics as pure functions, which return one result per sample, of shape `(batch,)`."""

from .counterfactual_latent_divergence import (
    counterfactual_latent_divergence,
    counterfactual_latent_divergence_floor,
)
from .effectiveness import effectiveness
from .interpretability import im1, im2
from .pixel_distance import composition, minimality, reversibility


__all__ = [
    "composition",
    "counterfactual_latent_divergence",
    "counterfactual_latent_divergence_floor",
    "effectiveness",
    "im1",
    "im2",
    "minimality",
    "reversibility",
]
