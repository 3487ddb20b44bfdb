# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from collections.abc import Callable, Sequence

import torch

from .checks import call_model, check_classes, check_images


def im1(
    counterfactual: torch.Tensor,
    factual_class: torch.Tensor,
    intervention: torch.Tensor,
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    eps: float = 1e-7,
) -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.IM1`] of each sample.

    Args:
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactual images, floats in [0, 1].
        factual_class (`torch.Tensor` of shape `(batch,)`): The class indices of the factual images.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        class_autoencoders (sequence of callables):
            At index `c`, an autoencoder trained on class `c` only, in evaluation mode. It maps images in [0, 1] to
            reconstructions of the same shape.
        eps (`float`, *optional*, defaults to `1e-7`): Is added to the denominator. At least 0.

    Returns:
        `torch.Tensor` of shape `(batch,)`: IM1 of each sample, in float32 for images in half precision, too.

    Raises:
        ValueError: If images are not in [0, 1], lengths differ, a class has no autoencoder, `eps` is negative or not
            finite, or an autoencoder is in training mode or returns another shape or values that are not finite.
        TypeError: If images or reconstructions are not floats, classes are not integers, or `eps` is not a number.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import im1
        >>> class_autoencoders = [lambda image: 0.5 * image, lambda image: 0.75 * image]
        >>> im1(torch.ones(1, 1, 2, 2), torch.tensor([0]), torch.tensor([1]), class_autoencoders)
        tensor([0.2500])
    """
    check_eps(eps)
    check_images(counterfactual=counterfactual)
    check_classes(len(counterfactual), factual_class=factual_class, intervention=intervention)
    check_autoencoders(class_autoencoders, factual_class=factual_class, intervention=intervention)

    by_target_class = reconstruct_by_class(class_autoencoders, counterfactual, intervention)
    by_factual_class = reconstruct_by_class(class_autoencoders, counterfactual, factual_class)
    return squared_distance(counterfactual, by_target_class) / (
        squared_distance(counterfactual, by_factual_class) + eps
    )


def im2(
    counterfactual: torch.Tensor,
    intervention: torch.Tensor,
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    autoencoder: Callable[[torch.Tensor], torch.Tensor],
    eps: float = 1e-7,
) -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.IM2`] of each sample.

    Args:
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactual images, floats in [0, 1].
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        class_autoencoders (sequence of callables): As in [`im1`].
        autoencoder (callable): An autoencoder trained on all classes, in evaluation mode.
        eps (`float`, *optional*, defaults to `1e-7`): Is added to the denominator. At least 0.

    Returns:
        `torch.Tensor` of shape `(batch,)`: IM2 of each sample, in float32 for images in half precision, too.

    Raises:
        ValueError, TypeError: As [`im1`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import im2
        >>> class_autoencoders = [lambda image: 0.5 * image, lambda image: 0.75 * image]
        >>> im2(torch.ones(1, 1, 2, 2), torch.tensor([1]), class_autoencoders, lambda image: 0.25 * image)
        tensor([0.2500])
    """
    check_eps(eps)
    check_images(counterfactual=counterfactual)
    check_classes(len(counterfactual), intervention=intervention)
    check_autoencoders(class_autoencoders, intervention=intervention)

    by_target_class = reconstruct_by_class(class_autoencoders, counterfactual, intervention)
    by_all_classes = reconstruct("autoencoder", autoencoder, counterfactual)
    l1_norm = counterfactual.to(by_all_classes.dtype).flatten(1).sum(dim=1)
    return squared_distance(by_target_class, by_all_classes) / (l1_norm + eps)


def squared_distance(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The sum of squared differences over pixels and channels, of shape `(batch,)`."""
    return (image - other).square().flatten(1).sum(dim=1)


def reconstruct(name: str, autoencoder: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Reconstructions, at least in float32, because sums over pixels overflow in half precision."""
    reconstruction = call_model(name, autoencoder, image)
    if reconstruction.shape != image.shape:
        raise ValueError(
            f"`{name}` must return images of shape {tuple(image.shape)}, got {tuple(reconstruction.shape)}."
        )
    return reconstruction.to(torch.promote_types(image.dtype, torch.float32))


def reconstruct_by_class(
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    image: torch.Tensor,
    image_class: torch.Tensor,
) -> torch.Tensor:
    """Each image reconstructed by the autoencoder of its class."""
    reconstruction = torch.empty_like(image, dtype=torch.promote_types(image.dtype, torch.float32))
    for c in image_class.unique().tolist():
        of_class = (image_class == c).to(image.device)
        reconstruction[of_class] = reconstruct(f"class_autoencoders[{c}]", class_autoencoders[c], image[of_class])
    return reconstruction


def check_autoencoders(class_autoencoders: Sequence[Callable], **classes: torch.Tensor) -> None:
    """Raises a `ValueError` unless there is an autoencoder for every class."""
    for name, index in classes.items():
        missing = sorted({c for c in index.tolist() if not 0 <= c < len(class_autoencoders)})
        if missing:
            raise ValueError(
                f"`class_autoencoders` expects one autoencoder per class, got {len(class_autoencoders)} and none for "
                f"the classes {missing} of `{name}`."
            )


def check_eps(eps: float) -> None:
    """Raises an error unless `eps` is a finite number that cannot make a denominator negative."""
    if not isinstance(eps, (int, float)) or isinstance(eps, bool):
        raise TypeError(f"`eps` expects a number of at least 0, got {eps!r} of type {type(eps).__name__}.")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"`eps` expects a finite number of at least 0, got {eps!r}.")
