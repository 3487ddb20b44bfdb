# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Iterator

import torch

from .checks import check_classes


def counterfactual_latent_divergence(
    counterfactual_mean: torch.Tensor,
    counterfactual_variance: torch.Tensor,
    factual_mean: torch.Tensor,
    factual_variance: torch.Tensor,
    factual_class: torch.Tensor,
    intervention: torch.Tensor,
    reference_mean: torch.Tensor,
    reference_variance: torch.Tensor,
    reference_class: torch.Tensor,
    chunk_size: int = 16,
) -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.CounterfactualLatentDivergence`] of each sample.

    Args:
        counterfactual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the counterfactuals' latents.
        counterfactual_variance (`torch.Tensor` of shape `(batch, latent_dim)`):
            Their variances (neither standard deviations nor logarithms), above 0.
        factual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the factuals' latents.
        factual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances.
        factual_class (`torch.Tensor` of shape `(batch,)`): The class indices of the factual images.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`):
            Means of the reference images' latents. The paper uses a whole data set as reference.
        reference_variance (`torch.Tensor` of shape `(num_references, latent_dim)`): Their variances.
        reference_class (`torch.Tensor` of shape `(num_references,)`): The class indices of the reference images.
        chunk_size (`int`, *optional*, defaults to 16):
            How many factuals are compared with the reference set at once. It changes speed and memory, not the result.
            Small chunks are fastest on a CPU, because they fit its cache; larger ones on a GPU.

    Returns:
        `torch.Tensor` of shape `(batch,)`: CLD of each sample, in float32, computed in float64.

    Raises:
        ValueError: If shapes do not match, variances are not above 0, latents are not finite, the reference set has
            fewer than two images of a class, or `chunk_size` is below 1.
        TypeError: If latents are not floats or classes are not integers.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import counterfactual_latent_divergence
        >>> reference_mean = torch.tensor([[-1.0], [1.0], [4.0], [6.0]])
        >>> reference = reference_mean, torch.ones(4, 1), torch.tensor([0, 0, 1, 1])
        >>> factual = torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([0])
        >>> counterfactual_latent_divergence(
        ...     torch.full((1, 1), 3.0), torch.ones(1, 1), *factual, torch.tensor([1]), *reference
        ... )
        tensor([0.6931])
    """
    check_latents(
        counterfactual=(counterfactual_mean, counterfactual_variance), factual=(factual_mean, factual_variance)
    )
    if counterfactual_mean.shape != factual_mean.shape:
        raise ValueError(
            "`counterfactual_mean` and `factual_mean` must have the same shape, got "
            f"{tuple(counterfactual_mean.shape)} and {tuple(factual_mean.shape)}."
        )
    div = gaussian_divergence(
        counterfactual_mean.double(),
        counterfactual_variance.double(),
        factual_mean.double(),
        factual_variance.double(),
    )
    cld = torch.empty_like(div)
    for index, to_factual_class, to_target_class in reference_divergences(
        factual_mean,
        factual_variance,
        factual_class,
        intervention,
        reference_mean,
        reference_variance,
        reference_class,
        chunk_size,
    ):
        cld[index] = score_divergence(div[index], to_factual_class, to_target_class)
    return cld.float()


def counterfactual_latent_divergence_floor(
    factual_mean: torch.Tensor,
    factual_variance: torch.Tensor,
    factual_class: torch.Tensor,
    intervention: torch.Tensor,
    reference_mean: torch.Tensor,
    reference_variance: torch.Tensor,
    reference_class: torch.Tensor,
    chunk_size: int = 16,
) -> torch.Tensor:
    """
    The lowest [`counterfactual_latent_divergence`] that any counterfactual of a factual can reach. It depends on the
    factual and on the reference set only.

    In [0.693, 1.313]. It is log 2 if, seen from the factual, all reference images of its own class are nearer than all
    those of the target class.

    Args:
        factual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the factuals' latents.
        factual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances, above 0.
        factual_class (`torch.Tensor` of shape `(batch,)`): The class indices of the factual images.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`):
            Means of the reference images' latents.
        reference_variance (`torch.Tensor` of shape `(num_references, latent_dim)`): Their variances.
        reference_class (`torch.Tensor` of shape `(num_references,)`): The class indices of the reference images.
        chunk_size (`int`, *optional*, defaults to 16): As in [`counterfactual_latent_divergence`].

    Returns:
        `torch.Tensor` of shape `(batch,)`: The floor of each sample, in float32.

    Raises:
        ValueError, TypeError: As [`counterfactual_latent_divergence`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import counterfactual_latent_divergence_floor
        >>> reference_mean = torch.tensor([[-1.0], [5.0], [4.0], [6.0]])
        >>> reference = reference_mean, torch.ones(4, 1), torch.tensor([0, 0, 1, 1])
        >>> factual = torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([0])
        >>> counterfactual_latent_divergence_floor(*factual, torch.tensor([1]), *reference)  # log(1 + exp(1 / 2))
        tensor([0.9741])
    """
    check_latents(factual=(factual_mean, factual_variance))
    floor = torch.empty(len(factual_mean), dtype=torch.float64, device=factual_mean.device)
    for index, to_factual_class, to_target_class in reference_divergences(
        factual_mean,
        factual_variance,
        factual_class,
        intervention,
        reference_mean,
        reference_variance,
        reference_class,
        chunk_size,
    ):
        floor[index], _ = find_floor(to_factual_class, to_target_class)
    return floor.float()


def score_divergence(div: torch.Tensor, to_factual_class: torch.Tensor, to_target_class: torch.Tensor) -> torch.Tensor:
    """CLD of each sample (paper, Eq. 10) from its divergence, of shape `(batch,)`, and its sets `S_F` and `S_CF`."""
    not_minimal = (to_target_class <= div[:, None]).double().mean(dim=1)
    not_changed = (to_factual_class >= div[:, None]).double().mean(dim=1)
    return torch.logaddexp(not_minimal, not_changed)


def find_floor(to_factual_class: torch.Tensor, to_target_class: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest CLD for the sets `S_F` and `S_CF`, and the divergence just above which CLD is that low."""
    # Between two neighbours in S_F, P(S_F >= div) is constant and P(S_CF <= div) grows. So the minimum is just above
    # an element of S_F: below the first, CLD is at least log(1 + e), and just above the last it is at most that.
    to_factual_class = to_factual_class.sort(dim=1).values
    to_target_class = to_target_class.sort(dim=1).values
    num_factual_class, num_target_class = to_factual_class.shape[1], to_target_class.shape[1]
    not_minimal = torch.searchsorted(to_target_class, to_factual_class, right=True).double() / num_target_class
    num_beyond = torch.arange(num_factual_class - 1, -1, -1, device=to_factual_class.device)
    floor, position = torch.logaddexp(not_minimal, num_beyond.double() / num_factual_class).min(dim=1)
    return floor, to_factual_class.gather(1, position[:, None]).squeeze(1)


def reference_divergences(
    factual_mean: torch.Tensor,
    factual_variance: torch.Tensor,
    factual_class: torch.Tensor,
    intervention: torch.Tensor,
    reference_mean: torch.Tensor,
    reference_variance: torch.Tensor,
    reference_class: torch.Tensor,
    chunk_size: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """
    The sets `S_F` and `S_CF` (paper, Eq. 9) of all samples, in chunks that share factual and target class.

    Yields:
        `tuple`: The indices of the samples in a chunk, then `S_F` and `S_CF`, each of shape
        `(chunk, num_references_of_the_class)` and unsorted.
    """
    check_reference(reference_mean, reference_variance, reference_class)
    check_classes(len(factual_mean), factual_class=factual_class, intervention=intervention)
    if factual_mean.shape[1] != reference_mean.shape[1]:
        raise ValueError(
            "`factual_mean` and `reference_mean` must have the same `latent_dim`, got "
            f"{factual_mean.shape[1]} and {reference_mean.shape[1]}."
        )
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"`chunk_size` expects an integer above 0, got {chunk_size!r}.")
    present = set(reference_class.tolist())
    for name, index in (("factual_class", factual_class), ("intervention", intervention)):
        missing = sorted(set(index.tolist()) - present)
        if missing:
            raise ValueError(f"`{name}` expects classes with images in the reference set, got {missing}.")

    factual = factual_mean.double()[:, None], factual_variance.double()[:, None]
    reference = {
        c: (reference_mean[reference_class == c].double(), reference_variance[reference_class == c].double())
        for c in torch.cat([factual_class, intervention]).unique().tolist()
    }
    for from_class, to_class in torch.stack([factual_class, intervention], dim=1).unique(dim=0).tolist():
        of_pair = torch.nonzero((factual_class == from_class) & (intervention == to_class)).squeeze(1)
        for index in of_pair.split(chunk_size):
            chunk = [parameter[index] for parameter in factual]
            yield (
                index,
                gaussian_divergence(*reference[from_class], *chunk),
                gaussian_divergence(*reference[to_class], *chunk),
            )


def gaussian_divergence(
    mean: torch.Tensor, variance: torch.Tensor, other_mean: torch.Tensor, other_variance: torch.Tensor
) -> torch.Tensor:
    """
    `KL(N(mean, variance) || N(other_mean, other_variance))` of diagonal Gaussians, in nats, summed over the last
    dimension. The other dimensions broadcast.

    The loop over latent dimensions replaces a matrix product: it needs less memory, avoids cancellation, and gives a
    pair the same divergence to the last bit in every batch. The last matters because Eq. 10 counts ties, for instance
    when the counterfactual is a reference image.
    """
    ratio = log_determinant = other_log_determinant = 0.0
    for m, v, other_m, other_v in zip(
        *(parameter.unbind(-1) for parameter in (mean, variance, other_mean, other_variance)), strict=True
    ):
        ratio = ratio + ((m - other_m).square() + v) / other_v
        log_determinant = log_determinant + v.log()
        other_log_determinant = other_log_determinant + other_v.log()
    return 0.5 * (ratio - mean.shape[-1] + (other_log_determinant - log_determinant))


def check_latents(**latents: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Raises an error unless every argument holds the means and variances of a batch of diagonal Gaussians."""
    for name, parameters in latents.items():
        for parameter, value in zip(("mean", "variance"), parameters, strict=True):
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(f"`{name}_{parameter}` expects a tensor of floats, got {got}.")
            if value.ndim != 2 or value.numel() == 0:
                raise ValueError(
                    f"`{name}_{parameter}` expects at least one latent, in shape (batch, latent_dim), got shape "
                    f"{tuple(value.shape)}."
                )
            if not value.isfinite().all():
                raise ValueError(f"`{name}_{parameter}` expects finite values, got NaN or infinity.")
        mean, variance = parameters
        if mean.shape != variance.shape:
            raise ValueError(
                f"`{name}_mean` and `{name}_variance` must have the same shape, got {tuple(mean.shape)} and "
                f"{tuple(variance.shape)}."
            )
        if not (variance > 0).all():
            raise ValueError(f"`{name}_variance` expects values above 0, got {variance.min().item():.4g}.")


def check_reference(
    reference_mean: torch.Tensor, reference_variance: torch.Tensor, reference_class: torch.Tensor
) -> None:
    """Raises an error unless the reference set has two images or more of each of its classes."""
    check_latents(reference=(reference_mean, reference_variance))
    check_classes(len(reference_mean), reference_class=reference_class)
    classes, counts = reference_class.unique(return_counts=True)
    single = classes[counts < 2].tolist()
    if single:
        raise ValueError(f"`reference_class` expects at least two images of each class, got one of {single}.")
