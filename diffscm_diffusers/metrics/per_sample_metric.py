# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any, Literal

import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class PerSampleMetric(Metric):
    """
    A metric with one result per sample. What `update` adds with `add` is kept as a sum and a count or, on request, as
    it is; both merge across processes.

    Args:
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"`: `compute` returns the mean over all samples, a scalar. `"none"`: it returns the result of every
            sample, of shape `(num_samples,)`, in the order of the updates; of several processes, rank by rank. One
            result alone comes as a scalar, as everywhere in torchmetrics.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].
    """

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0

    def __init__(self, reduction: Literal["mean", "none"] = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        if reduction not in ("mean", "none"):
            raise ValueError(f'`reduction` takes "mean" or "none", got {reduction!r}.')
        self.reduction = reduction
        if reduction == "mean":
            self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")
            self.add_state("num_samples", default=torch.tensor(0), dist_reduce_fx="sum")
        else:
            self.add_state("results", default=[], dist_reduce_fx="cat")

    def add(self, results: torch.Tensor) -> None:
        """Takes the results of a batch, of shape `(batch,)`, into the state."""
        results = results.float()
        if self.reduction == "mean":
            self.total += results.sum()
            self.num_samples += len(results)
        else:
            self.results.append(results)

    def compute(self) -> torch.Tensor:
        """The mean over all samples, or with `reduction="none"` every sample's result."""
        if (self.num_samples == 0) if self.reduction == "mean" else (len(self.results) == 0):
            raise RuntimeError(f"`{type(self).__name__}` has no samples yet: call `update` before `compute`.")
        return self.total / self.num_samples if self.reduction == "mean" else dim_zero_cat(self.results)
