# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Literal

import torch

from .checks import check_images


def check_norm(norm: str) -> None:
    """Raises a `ValueError` unless `norm` is `"l1"` or `"l2"`."""
    if norm not in ("l1", "l2"):
        raise ValueError(f'`norm` expects "l1" or "l2", got {norm!r}.')


def pixel_distance(norm: Literal["l1", "l2"], **images: torch.Tensor) -> torch.Tensor:
    """The distance between two batches of images, of shape `(batch,)`. The keywords name them in error messages."""
    check_norm(norm)
    check_images(**images)
    first, second = images.values()
    difference = (first - second).flatten(1)
    return difference.abs().mean(dim=1) if norm == "l1" else difference.square().mean(dim=1).sqrt()


def composition(factual: torch.Tensor, reconstruction: torch.Tensor, norm: Literal["l1", "l2"] = "l1") -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.Composition`] of each sample.

    Args:
        factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
        reconstruction (`torch.Tensor` of shape `(batch, channels, height, width)`):
            Their counterfactuals under the null intervention, floats in [0, 1].
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The distance of each pair, in [0, 1].

    Raises:
        ValueError: If values are not in [0, 1], the shapes differ, or `norm` is unknown.
        TypeError: If the images are not tensors of floats.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import composition
        >>> composition(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.75))
        tensor([0.2500, 0.2500])
    """
    return pixel_distance(norm, factual=factual, reconstruction=reconstruction)


def minimality(factual: torch.Tensor, counterfactual: torch.Tensor, norm: Literal["l1", "l2"] = "l1") -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.Minimality`] of each sample.

    Args:
        factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            Their counterfactuals, floats in [0, 1].
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The distance of each pair, in [0, 1].

    Raises:
        ValueError, TypeError: As [`composition`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import minimality
        >>> factual = torch.zeros(1, 1, 2, 2)
        >>> counterfactual = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> minimality(factual, counterfactual), minimality(factual, counterfactual, norm="l2")
        (tensor([0.2500]), tensor([0.5000]))
    """
    return pixel_distance(norm, factual=factual, counterfactual=counterfactual)


def reversibility(factual: torch.Tensor, restored: torch.Tensor, norm: Literal["l1", "l2"] = "l1") -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.Reversibility`] of each sample.

    Args:
        factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, floats in [0, 1].
        restored (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactuals of their counterfactuals under the factual class, floats in [0, 1].
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The distance of each pair, in [0, 1].

    Raises:
        ValueError, TypeError: As [`composition`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import reversibility
        >>> reversibility(torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.75))
        tensor([0.2500, 0.2500])
    """
    return pixel_distance(norm, factual=factual, restored=restored)
