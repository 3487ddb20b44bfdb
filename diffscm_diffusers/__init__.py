# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Counterfactual images with Diffusers: Diff-SCM (Sanchez & Tsaftaris, 2022)."""

from diffusers import ModelMixin, SchedulerMixin
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

from .baselines import ClassPrototypes, MLPEnsemble
from .models import ADMUNet2DModel, AntiCausalClassifier2DModel, ImageAutoencoder, ImageClassifier, LatentVAE
from .pipelines import DiffSCMCounterfactualPipeline
from .schedulers import DiffSCMBELMScheduler, DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler
from .version import __version__


# Diffusers looks a component's class up in the library that `model_index.json` names, here this package, and its
# loading methods by base class in this table. It has no public way to add a library.
LOADABLE_CLASSES["diffscm_diffusers"] = {
    name: LOADABLE_CLASSES["diffusers"][name] for name in ("ModelMixin", "SchedulerMixin")
}

__all__ = [
    "ADMUNet2DModel",
    "AntiCausalClassifier2DModel",
    "ClassPrototypes",
    "DiffSCMBELMScheduler",
    "DiffSCMCounterfactualPipeline",
    "DiffSCMDDIMInverseScheduler",
    "DiffSCMDDIMScheduler",
    "ImageAutoencoder",
    "ImageClassifier",
    "LatentVAE",
    "MLPEnsemble",
    "ModelMixin",
    "SchedulerMixin",
    "__version__",
]
