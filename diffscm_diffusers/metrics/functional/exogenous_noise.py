# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch


def check_noise(noise: torch.Tensor) -> None:
    """Raises an error unless `noise` is a batch of finite floats."""
    if not isinstance(noise, torch.Tensor) or not noise.is_floating_point():
        got = noise.dtype if isinstance(noise, torch.Tensor) else type(noise).__name__
        raise TypeError(f"`noise` expects a tensor of floats, got {got}.")
    if noise.ndim < 2 or noise.numel() == 0:
        raise ValueError(f"`noise` expects at least one sample, in shape (batch, ...), got {tuple(noise.shape)}.")
    if not noise.isfinite().all():
        raise ValueError("`noise` expects finite values, got NaN or infinity.")


def check_cause(noise: torch.Tensor, cause: torch.Tensor) -> None:
    """Raises an error unless `cause` holds a class index or a finite number for every sample of `noise`."""
    if not isinstance(cause, torch.Tensor) or cause.dtype == torch.bool or cause.is_complex():
        got = cause.dtype if isinstance(cause, torch.Tensor) else type(cause).__name__
        raise TypeError(f"`cause` expects a tensor of integers (classes) or floats (numbers), got {got}.")
    if cause.shape != noise.shape[:1]:
        raise ValueError(
            f"`cause` expects one value for each of the {len(noise)} samples, got shape {tuple(cause.shape)}."
        )
    if not cause.isfinite().all():
        raise ValueError("`cause` expects finite values, got NaN or infinity.")


def power_sums(noise: torch.Tensor) -> torch.Tensor:
    """The sums of the powers 0 to 4 of all elements, of shape `(5,)`, `float64`."""
    noise = noise.double()
    return torch.stack([(noise**power).sum() for power in range(5)])


def law_from_power_sums(sums: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean, standard deviation and kurtosis of the elements that [`power_sums`] summed up."""
    mean, second, third, fourth = sums[1:] / sums[0]
    variance = second - mean**2
    if not sums.isfinite().all() or variance <= 0:
        raise ValueError(
            f"`noise` expects values that differ and have finite fourth powers, got a variance of {variance:g} and a "
            f"mean fourth power of {fourth:g}."
        )
    central_fourth = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    return {
        "mean": mean.float(),
        "std": variance.sqrt().float(),
        "kurtosis": (central_fourth / variance**2).float(),
    }


def exogenous_noise_law(noise: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    [`~diffscm_diffusers.metrics.ExogenousNoiseLaw`] of a batch.

    Args:
        noise (`torch.Tensor` of shape `(batch, ...)`): Abducted exogenous noise, floats.

    Returns:
        `dict[str, torch.Tensor]`: `"mean"`, `"std"` and `"kurtosis"`, scalars.

    Raises:
        ValueError: If there is no noise, values are not finite, or all are equal.
        TypeError: If the noise is not a tensor of floats.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import exogenous_noise_law
        >>> exogenous_noise_law(torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
        {'mean': tensor(0.), 'std': tensor(1.), 'kurtosis': tensor(1.)}
    """
    check_noise(noise)
    return law_from_power_sums(power_sums(noise))


def distance_correlation(
    noise: torch.Tensor, cause: torch.Tensor, num_permutations: int = 200, seed: int = 0
) -> dict[str, torch.Tensor]:
    """
    [`~diffscm_diffusers.metrics.DistanceCorrelation`] of a batch.

    Args:
        noise (`torch.Tensor` of shape `(batch, ...)`): Abducted exogenous noise, floats, of at least four samples.
        cause (`torch.Tensor` of shape `(batch,)`): Class indices or numbers.
        num_permutations (`int`, *optional*, defaults to 200): Permutations behind the p-value, at least 1.
        seed (`int`, *optional*, defaults to 0): Seed of the permutations.

    Returns:
        `dict[str, torch.Tensor]`: `"distance_correlation"` and `"p_value"`, scalars.

    Raises:
        ValueError: If the shapes do not match, there are fewer than four samples, one of the two never changes,
            values are not finite, or `num_permutations` is not positive.
        TypeError: If the noise is not a tensor of floats, or the cause is neither of integers nor of floats.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import distance_correlation
        >>> noise = torch.linspace(0, 1, 100)
        >>> distance_correlation(noise[:, None], 2 * noise)
        {'distance_correlation': tensor(1.), 'p_value': tensor(0.0050)}
    """
    check_noise(noise)
    check_cause(noise, cause)
    if len(noise) < 4:
        raise ValueError(f"`noise` expects at least four samples, got {len(noise)}.")
    if num_permutations < 1:
        raise ValueError(f"`num_permutations` expects a positive number, got {num_permutations}.")

    noise = noise.double().flatten(1)
    first = u_centre(torch.cdist(noise, noise, compute_mode="donot_use_mm_for_euclid_dist"))
    if cause.is_floating_point():
        second = u_centre((cause.double()[:, None] - cause.double()).abs())
    else:
        second = u_centre((cause[:, None] != cause).double())
    scale = (first.square().sum() * second.square().sum()).sqrt()
    if scale == 0:
        raise ValueError("`noise` and `cause` expect values that differ, got all equal ones.")
    if not scale.isfinite():
        raise ValueError("`noise` and `cause` expect values whose fourth powers are finite, got larger ones.")

    generator = torch.Generator().manual_seed(seed)
    product = (first * second).sum()
    num_larger = 0
    for _ in range(num_permutations):
        order = torch.randperm(len(noise), generator=generator).to(noise.device)
        # Permuted values of equal size may differ in the last digits of their sum.
        num_larger += ((first * second[order][:, order]).sum() >= product - 1e-12 * scale).int()
    return {
        "distance_correlation": (product / scale).float(),
        "p_value": (1 + num_larger) / torch.tensor(1.0 + num_permutations, device=noise.device),
    }


def u_centre(distance: torch.Tensor) -> torch.Tensor:
    """Centre a matrix of distances so that its off-diagonal elements are unbiased (Székely & Rizzo, 2014)."""
    n = len(distance)
    rows = distance.sum(dim=1) / (n - 2)
    centred = distance - rows[:, None] - rows + distance.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)
