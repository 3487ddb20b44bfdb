# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import torch


def check_draws(draws: torch.Tensor, truth: torch.Tensor, min_draws: int) -> None:
    """Raises an error unless `draws` holds at least `min_draws` finite draws of every sample of `truth`."""
    for name, value in (("draws", draws), ("truth", truth)):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"`{name}` expects a tensor of floats, got {got}.")
        if not value.isfinite().all():
            raise ValueError(f"`{name}` expects finite values, got NaN or infinity.")
    if truth.ndim == 0 or truth.numel() == 0:
        raise ValueError(
            f"`truth` expects at least one sample, in shape (batch, ...), got shape {tuple(truth.shape)}."
        )
    if draws.ndim == 0 or draws.shape[1:] != truth.shape or len(draws) < min_draws:
        shape = ", ".join(map(str, truth.shape))
        raise ValueError(
            f"`draws` expects shape (num_draws, {shape}), as `truth` has, with at least {min_draws} draws, got shape "
            f"{tuple(draws.shape)}."
        )


def coverage(
    draws: torch.Tensor, truth: torch.Tensor, level: float = 0.9, threshold: float | None = None
) -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.Coverage`] of each sample.

    Args:
        draws (`torch.Tensor` of shape `(num_draws, batch, ...)`): Draws of the counterfactuals, floats.
        truth (`torch.Tensor` of shape `(batch, ...)`): The true counterfactuals, floats.
        level (`float`, *optional*, defaults to 0.9):
            Probability of the interval, between 0 and 1. It needs `2 / (1 - level) - 1` draws: 19 for 0.9.
        threshold (`float`, *optional*):
            Only elements count where the largest of the draws and the truth is above it. Default: all count.

    Returns:
        `torch.Tensor` of shape `(batch,)`:
            The part of each sample's elements that the interval covers, in [0, 1]; NaN for a sample of which none
            counts, as all its draws equal the truth or are below the threshold.

    Raises:
        ValueError: If the shapes do not match, values are not finite, `level` is out of its range, or there are too
            few draws for it.
        TypeError: If the draws or the truth are not tensors of floats.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import coverage
        >>> draws = torch.arange(19.0)[:, None].expand(19, 3)
        >>> coverage(draws, torch.tensor([-1.0, 9.5, 30.0]))
        tensor([0., 1., 0.])
    """
    check_draws(draws, truth, min_draws=1)
    if not 0 < level < 1:
        raise ValueError(f"`level` expects a number between 0 and 1, got {level!r}.")
    if threshold is not None and (not isinstance(threshold, (int, float)) or not math.isfinite(threshold)):
        raise ValueError(f"`threshold` expects a finite number, got {threshold!r}.")
    # What the interval leaves out of the ranks on either side.
    num_ranks = len(draws) + 1
    tail = (1 - level) / 2 * num_ranks
    if tail < 1 - 1e-6:
        raise ValueError(
            f"`draws` expects at least {math.ceil(2 / (1 - level) - 1 - 1e-6)} draws for a level of {level:g}, got "
            f"{len(draws)}: no truth could be outside of the interval."
        )

    # The rank of the truth among the draws, from 0 to num_draws; a range of ranks where they are tied.
    lowest, highest = (draws < truth).sum(dim=0), (draws <= truth).sum(dim=0)
    covered = (highest + 1).clamp(tail, num_ranks - tail) - lowest.clamp(tail, num_ranks - tail)
    covered = covered / (highest + 1 - lowest)
    # Where all are equal, there is nothing to rank. Draws and truth are treated alike, so no bias comes from it.
    covered = covered.masked_fill((lowest == 0) & (highest == len(draws)), torch.nan)
    if threshold is not None:
        covered = covered.masked_fill(torch.maximum(draws.amax(dim=0), truth) <= threshold, torch.nan)
    return covered.flatten(1).nanmean(dim=1) if covered.ndim > 1 else covered


def crps(draws: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.CRPS`] of each sample, the mean over its elements.

    Args:
        draws (`torch.Tensor` of shape `(num_draws, batch, ...)`): At least two draws of the counterfactuals, floats.
        truth (`torch.Tensor` of shape `(batch, ...)`): The true counterfactuals, floats.

    Returns:
        `torch.Tensor` of shape `(batch,)`: The score of each sample, in the unit of the values.

    Raises:
        ValueError: If the shapes do not match, there are fewer than two draws, or values are not finite.
        TypeError: If the draws or the truth are not tensors of floats.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import crps
        >>> crps(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([4.0]))
        tensor([2.3333])
    """
    check_draws(draws, truth, min_draws=2)
    num_draws = len(draws)
    error = (draws - truth).abs().mean(dim=0)
    # The sum of the differences of all pairs, from the sorted draws: the i-th is the larger one in i of them.
    weight = 2 * torch.arange(num_draws, device=draws.device, dtype=draws.dtype) - num_draws + 1
    spread = torch.tensordot(weight, draws.sort(dim=0).values, dims=1) / (num_draws * (num_draws - 1))
    return (error - spread).reshape(len(truth), -1).mean(dim=1)
