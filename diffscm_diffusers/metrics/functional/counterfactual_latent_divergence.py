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
    r"""
    Counterfactual latent divergence (CLD): whether the counterfactual is nearer to its factual than other images of
    the target class are, and farther than other images of the factual class are,

    `CLD = log(exp(P(S_CF <= div)) + exp(P(S_F >= div)))`,

    where `div = KL(N_CF || N_F)` is the divergence of the counterfactual's latent Gaussian from the factual's, and
    `S_CF` and `S_F` are the divergences `KL(N_i || N_F)` of the reference images `i` of the target class and of the
    factual class from the same factual. A latent Gaussian is what a variational autoencoder's encoder gives for an
    image, with a diagonal covariance.

    In [log 2, log(2 e)] = [0.693, 1.693], lower is better. The factual itself scores log(1 + e) = 1.313.
    It rewards a `div` that lies between the two classes, whatever the image looks like, so a random real image of the
    target class scores well too. Where the classes overlap as seen from a factual, nothing reaches log 2: see
    [`counterfactual_latent_divergence_floor`].

    Source: paper, Eq. 8 to 10.

    Args:
        counterfactual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the counterfactuals' latents.
        counterfactual_variance (`torch.Tensor` of shape `(batch, latent_dim)`):
            Their variances (not standard deviations nor logarithms), above 0.
        factual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the factuals' latents.
        factual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances.
        factual_class (`torch.Tensor` of shape `(batch,)`): The factual images' class indices.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`):
            Means of the reference images' latents. In the paper these are the images of a whole data set.
        reference_variance (`torch.Tensor` of shape `(num_references, latent_dim)`): Their variances.
        reference_class (`torch.Tensor` of shape `(num_references,)`): The reference images' class indices.
        chunk_size (`int`, *optional*, defaults to 16):
            How many factuals are compared with the reference set at once. Memory grows as `chunk_size` times the
            reference images of a class; the result doesn't depend on it. On a CPU small chunks, which fit its cache,
            are the fastest; a GPU takes larger ones.

    Returns:
        `torch.Tensor` of shape `(batch,)`: CLD of each sample, float32. Divergences are computed in float64.

    Raises:
        ValueError: On mismatched lengths, variances that aren't positive, latents that aren't finite, a class that the
            reference set lacks or has only one image of, or a `chunk_size` below 1.
        TypeError: On latents that aren't floats or classes that aren't integers.

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
            "Counterfactuals and factuals must match in number and latent size, got shapes "
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
    r"""
    The lowest [`counterfactual_latent_divergence`] that any counterfactual of a factual could reach: its minimum over
    all values of `div`. It doesn't depend on the counterfactual, and says how much is left to gain.

    In [0.693, 1.313]; log 2 where every reference image of the factual class is nearer to the factual than every one
    of the target class.

    Args:
        factual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the factuals' latents.
        factual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances, above 0.
        factual_class (`torch.Tensor` of shape `(batch,)`): The factual images' class indices.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`):
            Means of the reference images' latents.
        reference_variance (`torch.Tensor` of shape `(num_references, latent_dim)`): Their variances.
        reference_class (`torch.Tensor` of shape `(num_references,)`): The reference images' class indices.
        chunk_size (`int`, *optional*, defaults to 16): As in [`counterfactual_latent_divergence`].

    Returns:
        `torch.Tensor` of shape `(batch,)`: The floor of each sample, float32.

    Raises:
        ValueError: As [`counterfactual_latent_divergence`].
        TypeError: As [`counterfactual_latent_divergence`].

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
    """CLD of each sample, given its divergence, shape `(batch,)`, and its sets `S_F` and `S_CF` (paper, Eq. 10)."""
    not_minimal = (to_target_class <= div[:, None]).double().mean(dim=1)
    not_changed = (to_factual_class >= div[:, None]).double().mean(dim=1)
    return torch.logaddexp(not_minimal, not_changed)


def find_floor(to_factual_class: torch.Tensor, to_target_class: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest CLD over all divergences, and the divergence just above which it lies, given `S_F` and `S_CF`."""
    # From one divergence of the factual class to the next, P(S_F >= div) stays and P(S_CF <= div) grows: the minimum
    # lies just above one of them. Below the first, CLD is log(1 + e) or more; above the last, or less.
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
    The sets `S_F` and `S_CF` of Eq. 9 for a chunk of samples of one pair of classes at a time: the samples' indices,
    and the two sets as rows, of shape `(chunk, num_references_of_the_class)`, unsorted.
    """
    check_reference(reference_mean, reference_variance, reference_class)
    check_classes(len(factual_mean), factual_class=factual_class, intervention=intervention)
    if factual_mean.shape[1] != reference_mean.shape[1]:
        raise ValueError(
            f"The latents of factuals and references must have one size, got {factual_mean.shape[1]} and "
            f"{reference_mean.shape[1]} dimensions."
        )
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"`chunk_size` takes an integer above 0, got {chunk_size!r}.")
    present = set(reference_class.tolist())
    for name, index in (("factual_class", factual_class), ("intervention", intervention)):
        missing = sorted(set(index.tolist()) - present)
        if missing:
            raise ValueError(f"The reference set has no image of the classes {missing} of `{name}`.")

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
    `KL(N(mean, variance) || N(other_mean, other_variance))` of diagonal Gaussians in nats, summed over the last
    dimension; the others broadcast.

    It goes through the latent dimensions one by one instead of multiplying matrices. So no array of all dimensions is
    held, no large terms cancel, and a pair has the same divergence to the last bit in whatever batch it comes. The
    comparisons of Eq. 10 count ties, as when the counterfactual is itself a reference image.
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
    """Every argument must be the means and variances of a batch of diagonal Gaussians, named in the errors."""
    for name, parameters in latents.items():
        for parameter, value in zip(("mean", "variance"), parameters, strict=True):
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(f"`{name}_{parameter}` takes a tensor of floats, got {got}.")
            if value.ndim != 2 or value.numel() == 0:
                raise ValueError(
                    f"`{name}_{parameter}` takes at least one latent, of shape (batch, latent_dim), got shape "
                    f"{tuple(value.shape)}."
                )
            if not value.isfinite().all():
                raise ValueError(f"`{name}_{parameter}` takes finite values, got NaN or infinity.")
        mean, variance = parameters
        if mean.shape != variance.shape:
            raise ValueError(
                f"`{name}_mean` and `{name}_variance` must match, got shapes {tuple(mean.shape)} and "
                f"{tuple(variance.shape)}."
            )
        if not (variance > 0).all():
            raise ValueError(f"`{name}_variance` takes values above 0, got {variance.min().item():.4g}.")


def check_reference(
    reference_mean: torch.Tensor, reference_variance: torch.Tensor, reference_class: torch.Tensor
) -> None:
    """A reference set takes at least two images of every class it has: one alone says nothing on a distribution."""
    check_latents(reference=(reference_mean, reference_variance))
    check_classes(len(reference_mean), reference_class=reference_class)
    classes, counts = reference_class.unique(return_counts=True)
    single = classes[counts < 2].tolist()
    if single:
        raise ValueError(f"The reference set takes at least two images of a class, got one of the classes {single}.")
