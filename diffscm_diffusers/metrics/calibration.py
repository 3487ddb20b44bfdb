# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from typing import Any, Literal

import torch

from .functional.calibration import coverage, crps
from .per_sample_metric import PerSampleMetric


class Coverage(PerSampleMetric):
    r"""
    Coverage: how often the true counterfactual lies within the central interval of several draws, element by element.
    If the draws are as uncertain as they should be, it is `level`; less means that they are too sure of themselves.

    The interval holds the ranks that the truth can have among the draws, without the first and the last
    `(1 - level) / 2` of them; a rank at its end may count in part. So draws from the truth's own law have a coverage
    of exactly `level` in the mean, however many they are. Where the truth is tied with draws, its rank is any of
    theirs. Elements where all draws equal the truth, such as a black background, have nothing to rank and do not
    count. With a `threshold`, neither do those where the truth and all draws are at most that: what is left are the
    elements with ink. Both treat truth and draws alike, so that neither moves the coverage of draws from the truth's
    own law; leaving elements out by the truth alone would.

    Source: the rank histogram of [Hamill (2001)](https://doi.org/10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2).

    Args:
        level (`float`, *optional*, defaults to 0.9):
            Probability of the interval, between 0 and 1. It needs `2 / (1 - level) - 1` draws: 19 for 0.9.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples with anything to rank, `"none"` for the result of every sample, NaN
            if it has nothing.
        threshold (`float`, *optional*):
            Only elements count where the largest of the draws and the truth is above it. Default: all count.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: If `level` or `threshold` is out of its range or `reduction` is unknown.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Coverage
        >>> metric = Coverage(level=0.8)
        >>> draws = torch.arange(9.0)[:, None].expand(9, 4)
        >>> metric.update(draws, torch.tensor([-1.0, 2.5, 4.5, 6.5]))
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better = None
    plot_upper_bound = 1.0
    allows_nan = True

    def __init__(
        self,
        level: float = 0.9,
        reduction: Literal["mean", "none"] = "mean",
        threshold: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(reduction, **kwargs)
        if not isinstance(level, (int, float)) or not 0 < level < 1:
            raise ValueError(f"`level` expects a number between 0 and 1, got {level!r}.")
        if threshold is not None and (not isinstance(threshold, (int, float)) or not math.isfinite(threshold)):
            raise ValueError(f"`threshold` expects a finite number, got {threshold!r}.")
        self.level = level
        self.threshold = threshold

    def update(self, draws: torch.Tensor, truth: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            draws (`torch.Tensor` of shape `(num_draws, batch, ...)`): Draws of the counterfactuals, floats.
            truth (`torch.Tensor` of shape `(batch, ...)`): The true counterfactuals, floats.
        """
        result = coverage(draws, truth, self.level, self.threshold)
        self.add(result[~result.isnan()] if self.reduction == "mean" else result)


class CRPS(PerSampleMetric):
    r"""
    Continuous ranked probability score of several draws `x_1, ..., x_m` of a counterfactual, given the true one, `y`,

    `mean_i |x_i - y| - sum_{i < j} |x_i - x_j| / (m (m - 1))`,

    element by element, then the mean. It has the unit of the values; lower is better. It is lowest in the mean if the
    draws have the truth's own law, and is the absolute error if all draws are equal. With `m (m - 1)` instead of `m^2`
    it is fair: it does not depend on the number of draws in the mean, and a single result may be below 0.

    Source: [Gneiting & Raftery (2007)](https://doi.org/10.1198/016214506000001437); the fair estimator is that of
    [Ferro (2014)](https://doi.org/10.1002/qj.2270).

    Args:
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: If `reduction` is unknown.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import CRPS
        >>> metric = CRPS()
        >>> metric.update(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([4.0]))
        >>> metric.compute()
        tensor(2.3333)
    """

    higher_is_better = False
    plot_lower_bound = None

    def update(self, draws: torch.Tensor, truth: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            draws (`torch.Tensor` of shape `(num_draws, batch, ...)`): Two draws or more, floats.
            truth (`torch.Tensor` of shape `(batch, ...)`): The true counterfactuals, floats.
        """
        self.add(crps(draws, truth))
