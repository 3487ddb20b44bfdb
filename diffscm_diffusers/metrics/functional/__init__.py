# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The metrics as pure functions: a result for each sample, `(batch,)`."""

from .composition import composition
from .counterfactual_latent_divergence import (
    counterfactual_latent_divergence,
    counterfactual_latent_divergence_floor,
)
from .effectiveness import effectiveness
from .im1 import im1
from .im2 import im2
from .minimality import minimality
from .reversibility import reversibility


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
