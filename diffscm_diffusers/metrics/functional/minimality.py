# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Literal

import torch

from .pixel_distance import pixel_distance


def minimality(factual: torch.Tensor, counterfactual: torch.Tensor, norm: Literal["l1", "l2"] = "l1") -> torch.Tensor:
    r"""
    Minimality in pixels: the distance between factual and counterfactual,

    `mean |x_F - x_CF|` (`"l1"`) or `sqrt(mean (x_F - x_CF)^2)` (`"l2"`), over all pixels and channels.

    In [0, 1], lower is better. It rewards leaving the image alone: the factual itself scores 0, so it means nothing
    without effectiveness beside it.

    Source: the L1 distance is the minimality of [Wachter et al. (2018)](https://huggingface.co/papers/1711.00399); the
    paper names it in Sec. 5.2 as what CLD is to improve on.

    Args:
        factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            Their counterfactuals, floats in [0, 1].
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The distance of each pair.

    Raises:
        ValueError: On images out of [0, 1], images that don't match in number and shape, or another `norm`.
        TypeError: On images that aren't float tensors.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import minimality
        >>> factual = torch.zeros(1, 1, 2, 2)
        >>> counterfactual = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> minimality(factual, counterfactual), minimality(factual, counterfactual, norm="l2")
        (tensor([0.2500]), tensor([0.5000]))
    """
    return pixel_distance(norm, factual=factual, counterfactual=counterfactual)
