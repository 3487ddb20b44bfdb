# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

from .. import loading  # noqa: F401
from .scheduling_belm import DiffSCMBELMScheduler, DiffSCMBELMSchedulerOutput
from .scheduling_ddim import DiffSCMDDIMScheduler
from .scheduling_ddim_inverse import (
    DiffSCMDDIMInverseScheduler,
    DiffSCMDDIMInverseSchedulerOutput,
    DiffSCMDDIMInverseSchedulerSolution,
)


__all__ = [
    "DiffSCMBELMScheduler",
    "DiffSCMBELMSchedulerOutput",
    "DiffSCMDDIMInverseScheduler",
    "DiffSCMDDIMInverseSchedulerOutput",
    "DiffSCMDDIMInverseSchedulerSolution",
    "DiffSCMDDIMScheduler",
]
