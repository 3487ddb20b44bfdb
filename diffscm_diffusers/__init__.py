# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Counterfactual images with Diffusers: Diff-SCM (Sanchez & Tsaftaris, 2022)."""

import importlib

from .version import __version__


# Imported when they are first used: `diffscm --help` need not wait for PyTorch.
_MODULES = {
    "ADMUNet2DModel": ".models",
    "AntiCausalClassifier2DModel": ".models",
    "CausalGraph": ".causal_graphs",
    "CausalPredictor2DModel": ".models",
    "CausalUNet2DModel": ".models",
    "ClassPrototypes": ".baselines",
    "ConditionalVAE2DModel": ".baselines",
    "DiffSCMBELMScheduler": ".schedulers",
    "DiffSCMCounterfactualPipeline": ".pipelines",
    "DiffSCMDDIMInverseScheduler": ".schedulers",
    "DiffSCMDDIMScheduler": ".schedulers",
    "DiffSCMGraphCounterfactualPipeline": ".pipelines",
    "DiffSCMSemanticCounterfactualPipeline": ".pipelines",
    "HierarchicalVAE2DModel": ".baselines",
    "ImageAutoencoder": ".metrics.networks",
    "ImageClassifier": ".metrics.networks",
    "LatentVAE": ".metrics.networks",
    "MLPEnsemble": ".metrics.networks",
    "SemanticEncoder2DModel": ".models",
    "StructuralCausalModel": ".models",
    # Diffusers looks a component's base classes up beside it.
    "ModelMixin": "diffusers",
    "SchedulerMixin": "diffusers",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
