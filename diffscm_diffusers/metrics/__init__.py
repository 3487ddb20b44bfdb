# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Metrics of counterfactual images, in the style of torchmetrics: `pip install -e .[eval]`."""

import importlib


# Imported on first use: the networks in `metrics/networks/` work without torchmetrics.
_MODULES = {
    "Composition": ".pixel_distance",
    "CounterfactualLatentDivergence": ".counterfactual_latent_divergence",
    "Effectiveness": ".effectiveness",
    "IM1": ".interpretability",
    "IM2": ".interpretability",
    "MetricModels": ".metric_models",
    "Minimality": ".pixel_distance",
    "Realism": ".realism",
    "Reversibility": ".pixel_distance",
    "TransformersOracle": ".transformers_oracle",
}

__all__ = [*_MODULES]


def __getattr__(name: str):
    if name in ("functional", "networks"):
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
