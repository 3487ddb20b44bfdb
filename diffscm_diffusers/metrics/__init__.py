# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Metrics of counterfactual images, in the style of torchmetrics: `pip install -e .[eval]`."""

from .composition import Composition
from .counterfactual_latent_divergence import CounterfactualLatentDivergence
from .effectiveness import Effectiveness
from .im1 import IM1
from .im2 import IM2
from .metric_models import MetricModels
from .minimality import Minimality
from .realism import Realism
from .reversibility import Reversibility
from .transformers_oracle import TransformersOracle


__all__ = [
    "IM1",
    "IM2",
    "Composition",
    "CounterfactualLatentDivergence",
    "Effectiveness",
    "MetricModels",
    "Minimality",
    "Realism",
    "Reversibility",
    "TransformersOracle",
]
