# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Literal

import torch

from .pixel_distance import pixel_distance


def reversibility(factual: torch.Tensor, restored: torch.Tensor, norm: Literal["l1", "l2"] = "l1") -> torch.Tensor:
    r"""
    Reversibility: the distance between the factual and the image that comes back when the counterfactual is
    intervened on in turn, with the factual class (factual -> counterfactual -> back),

    `mean |x_F - x_back|` (`"l1"`) or `sqrt(mean (x_F - x_back)^2)` (`"l2"`), over all pixels and channels.

    In [0, 1], lower is better. It rewards counterfactuals that keep what makes the image this one. A method that
    changes nothing scores 0, so it means nothing without effectiveness beside it.

    Source: [Monteiro et al. (2023)](https://huggingface.co/papers/2303.01274). They go round `m` times: pass
    the last image for that.

    Args:
        factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
        restored (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The images that came back, floats in [0, 1].
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The distance of each pair.

    Raises:
        ValueError: On images out of [0, 1], images that don't match in number and shape, or another `norm`.
        TypeError: On images that aren't float tensors.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import reversibility
        >>> reversibility(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.75))
        tensor([0.2500, 0.2500])
    """
    return pixel_distance(norm, factual=factual, restored=restored)
