# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The methods that Diff-SCM is compared with (paper, Sec. 5), and the VAEs for causal graphs."""

from .baseline_pipeline import BaselinePipelineOutput
from .class_prototypes import ClassPrototypes
from .conditional_vae import ConditionalVAE2DModel
from .hierarchical_vae import HierarchicalVAE2DModel
from .schut import SchutPipeline
from .vae_pipeline import VAECounterfactualPipeline, VAECounterfactualPipelineOutput
from .van_looveren_klaise import VanLooverenKlaisePipeline


__all__ = [
    "BaselinePipelineOutput",
    "ClassPrototypes",
    "ConditionalVAE2DModel",
    "HierarchicalVAE2DModel",
    "SchutPipeline",
    "VAECounterfactualPipeline",
    "VAECounterfactualPipelineOutput",
    "VanLooverenKlaisePipeline",
]
