# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch

from .functional.reversibility import reversibility
from .pixel_distance_metric import PixelDistanceMetric


class Reversibility(PixelDistanceMetric):
    r"""
    Reversibility: the distance between the factual and the image that comes back when the counterfactual is
    intervened on in turn, with the factual class (factual -> counterfactual -> back),

    `mean |x_F - x_back|` (`"l1"`) or `sqrt(mean (x_F - x_back)^2)` (`"l2"`), over all pixels and channels,

    in [0, 1]; lower is better. [`~diffscm_diffusers.metrics.functional.reversibility`] says more.

    Source: [Monteiro et al. (2023)](https://huggingface.co/papers/2303.01274).

    Args:
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

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
                The images that came back, floats in [0, 1].
        """
        self.add(reversibility(factual, restored, self.norm))
