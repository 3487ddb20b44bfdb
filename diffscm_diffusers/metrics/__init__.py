# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Metrics of counterfactual images, in the style of torchmetrics: `pip install -e .[eval]`."""

import importlib


# Imported when they are first used: the networks in `metrics/networks/` do without torchmetrics.
_MODULES = {
    "Composition": ".composition",
    "CounterfactualLatentDivergence": ".counterfactual_latent_divergence",
    "Effectiveness": ".effectiveness",
    "IM1": ".im1",
    "IM2": ".im2",
    "MetricModels": ".metric_models",
    "Minimality": ".minimality",
    "Realism": ".realism",
    "Reversibility": ".reversibility",
    "TransformersOracle": ".transformers_oracle",
}

__all__ = [*_MODULES]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
