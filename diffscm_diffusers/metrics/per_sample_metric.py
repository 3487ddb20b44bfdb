# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any, Literal

import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class PerSampleMetric(Metric):
    """
    Base class of the metrics with one result per sample. It keeps the sum and the number of results, or all results if
    asked to. Both merge across processes.

    Args:
        reduction (`str`, *optional*, defaults to `"mean"`):
            With `"mean"`, `compute` returns the mean over all samples, a scalar. With `"none"`, it returns the result
            of every sample, of shape `(num_samples,)`, in the order of the updates; results of several processes are
            concatenated in the order of their ranks. Torchmetrics turns a single result into a scalar.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].
    """

    is_differentiable = False
    full_state_update = False
    plot_lower_bound = 0.0
    # Whether a sample may have no result.
    allows_nan = False

    def __init__(self, reduction: Literal["mean", "none"] = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        if reduction not in ("mean", "none"):
            raise ValueError(f'`reduction` expects "mean" or "none", got {reduction!r}.')
        self.reduction = reduction
        if reduction == "mean":
            self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")
            self.add_state("num_samples", default=torch.tensor(0), dist_reduce_fx="sum")
        else:
            self.add_state("results", default=[], dist_reduce_fx="cat")

    def add(self, results: torch.Tensor) -> None:
        """Adds the results of a batch, of shape `(batch,)`, to the state, unless one is not finite."""
        results = results.float()
        if not (results.isfinite() | (results.isnan() & self.allows_nan)).all():
            raise ValueError(
                f"`{type(self).__name__}` expects finite results, got NaN or infinity: {results.tolist()}."
            )
        if self.reduction == "mean":
            self.total += results.sum()
            self.num_samples += len(results)
        else:
            self.results.append(results)

    def compute(self) -> torch.Tensor:
        """
        Returns:
            `torch.Tensor`: the mean over all samples or, with `reduction="none"`, the result of every sample.

        Raises:
            RuntimeError: If there are no samples.
        """
        is_empty = self.num_samples == 0 if self.reduction == "mean" else len(self.results) == 0
        if is_empty:
            raise RuntimeError(f"`{type(self).__name__}` has no samples yet: call `update` before `compute`.")
        return self.total / self.num_samples if self.reduction == "mean" else dim_zero_cat(self.results)
