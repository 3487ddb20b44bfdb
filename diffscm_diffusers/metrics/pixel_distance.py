# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any, Literal

import torch

from .functional.pixel_distance import check_norm, composition, minimality, reversibility
from .per_sample_metric import PerSampleMetric


class PixelDistance(PerSampleMetric):
    r"""
    The distance between the factual `x_F` and another image `x`: `mean |x_F - x|` (`"l1"`) or
    `sqrt(mean (x_F - x)^2)` (`"l2"`) over all pixels and channels. In [0, 1]; lower is better.

    It is the base class of [`Composition`], [`Minimality`] and [`Reversibility`], which differ in the other image.

    Args:
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: If `norm` or `reduction` is unknown.
    """

    higher_is_better = False
    plot_upper_bound = 1.0

    def __init__(self, norm: Literal["l1", "l2"] = "l1", reduction: Literal["mean", "none"] = "mean", **kwargs: Any):
        super().__init__(reduction, **kwargs)
        check_norm(norm)
        self.norm = norm


class Composition(PixelDistance):
    r"""
    Composition: the [`PixelDistance`] between the factual and its counterfactual under the null intervention,
    `do(y = y_F)` or none. A null intervention changes nothing, so the counterfactual should be the factual.

    It measures what abduction and prediction lose. A method that always returns the factual scores 0, so read it
    together with [`Effectiveness`].

    Source: an axiom of [Galles & Pearl (1998)](https://doi.org/10.1023/A:1009602825894), measured as in
    [Monteiro et al. (2023)](https://huggingface.co/papers/2303.01274). They repeat the null intervention `m` times. To
    do the same, pass the last image.

    Arguments: `norm` and `reduction`, as in [`PixelDistance`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Composition
        >>> metric = Composition()
        >>> metric.update(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.75))
        >>> metric.compute()
        tensor(0.2500)
    """

    def update(self, factual: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
            reconstruction (`torch.Tensor` of shape `(batch, channels, height, width)`):
                Their counterfactuals under the null intervention, floats in [0, 1].
        """
        self.add(composition(factual, reconstruction, self.norm))


class Minimality(PixelDistance):
    r"""
    Minimality: the [`PixelDistance`] between the factual and its counterfactual. Among images of the target class, a
    counterfactual should be close to its factual.

    The factual itself scores 0, so read it together with [`Effectiveness`].

    Source: the L1 distance of [Wachter et al. (2018)](https://huggingface.co/papers/1711.00399); paper, Sec. 5.2.

    Arguments: `norm` and `reduction`, as in [`PixelDistance`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Minimality
        >>> metric = Minimality(norm="l2")
        >>> metric.update(torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
        >>> metric.compute()
        tensor(0.5000)
    """

    def update(self, factual: torch.Tensor, counterfactual: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
            counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
                Their counterfactuals, floats in [0, 1].
        """
        self.add(minimality(factual, counterfactual, self.norm))


class Reversibility(PixelDistance):
    r"""
    Reversibility: the [`PixelDistance`] between the factual and the counterfactual of its counterfactual under the
    factual class: `do(y = y_CF)`, then `do(y = y_F)`. It should be the factual again.

    It measures how much of the factual a counterfactual keeps. A method that always returns the factual scores 0, so
    read it together with [`Effectiveness`].

    Source: an axiom of [Galles & Pearl (1998)](https://doi.org/10.1023/A:1009602825894), measured as in
    [Monteiro et al. (2023)](https://huggingface.co/papers/2303.01274). They repeat the cycle `m` times. To do the
    same, pass the last image.

    Arguments: `norm` and `reduction`, as in [`PixelDistance`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Reversibility
        >>> metric = Reversibility()
        >>> metric.update(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.75))
        >>> metric.compute()
        tensor(0.2500)
    """

    def update(self, factual: torch.Tensor, restored: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
            restored (`torch.Tensor` of shape `(batch, channels, height, width)`):
                The counterfactuals of their counterfactuals under the factual class, floats in [0, 1].
        """
        self.add(reversibility(factual, restored, self.norm))
