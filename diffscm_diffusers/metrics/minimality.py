# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch

from .functional.minimality import minimality
from .pixel_distance_metric import PixelDistanceMetric


class Minimality(PixelDistanceMetric):
    r"""
    Minimality in pixels: the distance between factual and counterfactual,

    `mean |x_F - x_CF|` (`"l1"`) or `sqrt(mean (x_F - x_CF)^2)` (`"l2"`), over all pixels and channels,

    in [0, 1]; lower is better. [`~diffscm_diffusers.metrics.functional.minimality`] says more.

    Source: [Wachter et al. (2018)](https://huggingface.co/papers/1711.00399); paper, Sec. 5.2.

    Args:
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Minimality
        >>> metric = Minimality()
        >>> metric.update(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.75))
        >>> metric.compute()
        tensor(0.2500)
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
