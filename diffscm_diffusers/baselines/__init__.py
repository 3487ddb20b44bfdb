# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The methods that Diff-SCM is compared with (paper, Sec. 5)."""

from .baseline_pipeline import BaselinePipelineOutput
from .class_prototypes import ClassPrototypes
from .schut import SchutPipeline
from .van_looveren_klaise import VanLooverenKlaisePipeline


__all__ = [
    "BaselinePipelineOutput",
    "ClassPrototypes",
    "SchutPipeline",
    "VanLooverenKlaisePipeline",
]
