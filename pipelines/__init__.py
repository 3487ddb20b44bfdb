# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from .. import loading  # noqa: F401
from .pipeline_diffscm_counterfactual import DiffSCMCounterfactualPipeline, DiffSCMCounterfactualPipelineOutput
from .pipeline_diffscm_graph import (
    DiffSCMGraphAbductionOutput,
    DiffSCMGraphCounterfactualPipeline,
    DiffSCMGraphPipelineOutput,
)
from .pipeline_diffscm_semantic import DiffSCMSemanticCounterfactualPipeline, DiffSCMSemanticPipelineOutput


__all__ = [
    "DiffSCMCounterfactualPipeline",
    "DiffSCMCounterfactualPipelineOutput",
    "DiffSCMGraphAbductionOutput",
    "DiffSCMGraphCounterfactualPipeline",
    "DiffSCMGraphPipelineOutput",
    "DiffSCMSemanticCounterfactualPipeline",
    "DiffSCMSemanticPipelineOutput",
]
