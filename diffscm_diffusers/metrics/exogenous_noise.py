# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any

import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from .functional.exogenous_noise import (
    check_cause,
    check_noise,
    distance_correlation,
    law_from_power_sums,
    power_sums,
)


class ExogenousNoiseLaw(Metric):
    r"""
    Mean, standard deviation and kurtosis of abducted exogenous noise, of all elements together. Its law is to be
    `N(0, 1)`, for which they are 0, 1 and 3.

    Args:
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import ExogenousNoiseLaw
        >>> metric = ExogenousNoiseLaw()
        >>> metric.update(torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
        >>> metric.compute()
        {'mean': tensor(0.), 'std': tensor(1.), 'kurtosis': tensor(1.)}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_state("sums", default=torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, noise: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            noise (`torch.Tensor` of shape `(batch, ...)`): Abducted exogenous noise, floats.
        """
        check_noise(noise)
        self.sums += power_sums(noise)

    def compute(self) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict[str, torch.Tensor]`: `"mean"`, `"std"` and `"kurtosis"`, scalars.

        Raises:
            RuntimeError: If there are no samples.
        """
        if self.sums[0] == 0:
            raise RuntimeError("`ExogenousNoiseLaw` has no samples yet: call `update` before `compute`.")
        return law_from_power_sums(self.sums)


class DistanceCorrelation(Metric):
    r"""
    Distance correlation between abducted exogenous noise and a cause, and the p-value of their independence.

    It sees every kind of dependence. The estimate is the bias-corrected one of the squared distance correlation: 0 in
    the mean if the two are independent, whatever the dimension of the noise, and 1 if the distances agree; it may be
    below 0. The p-value says how often a correlation as large comes about when the causes are permuted. A small one
    says that the noise is not exogenous.

    Memory grows with the square of the number of samples, time with that times the number of permutations.

    Source: [Székely & Rizzo (2013)](https://doi.org/10.1016/j.jmva.2013.02.012). Classes are at distance 1 from each
    other, numbers at that of their difference.

    Args:
        num_permutations (`int`, *optional*, defaults to 200): Permutations behind the p-value, at least 1.
        seed (`int`, *optional*, defaults to 0): Seed of the permutations.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import DistanceCorrelation
        >>> metric = DistanceCorrelation()
        >>> noise = torch.linspace(0, 1, 100)
        >>> metric.update(noise[:, None], 2 * noise)
        >>> metric.compute()
        {'distance_correlation': tensor(1.), 'p_value': tensor(0.0050)}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(self, num_permutations: int = 200, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if type(num_permutations) is not int or num_permutations < 1:
            raise ValueError(f"`num_permutations` expects a positive number, got {num_permutations!r}.")
        self.num_permutations = num_permutations
        self.seed = seed
        self.add_state("noise", default=[], dist_reduce_fx="cat")
        self.add_state("cause", default=[], dist_reduce_fx="cat")

    def update(self, noise: torch.Tensor, cause: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            noise (`torch.Tensor` of shape `(batch, ...)`): Abducted exogenous noise, floats.
            cause (`torch.Tensor` of shape `(batch,)`): Class indices or numbers.
        """
        check_noise(noise)
        check_cause(noise, cause)
        self.noise.append(noise)
        self.cause.append(cause)

    def compute(self) -> dict[str, torch.Tensor]:
        """
        Returns:
            `dict[str, torch.Tensor]`: `"distance_correlation"` and `"p_value"`, scalars.

        Raises:
            RuntimeError: If there are no samples.
            ValueError: If there are fewer than four.
        """
        if len(self.noise) == 0:
            raise RuntimeError("`DistanceCorrelation` has no samples yet: call `update` before `compute`.")
        return distance_correlation(
            dim_zero_cat(self.noise), dim_zero_cat(self.cause), self.num_permutations, self.seed
        )
