# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence

import torch

from .checks import check_autoencoders, check_classes, check_eps, check_images
from .reconstruction import reconstruct, reconstruct_by_class


def im2(
    counterfactual: torch.Tensor,
    intervention: torch.Tensor,
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    autoencoder: Callable[[torch.Tensor], torch.Tensor],
    eps: float = 1e-7,
) -> torch.Tensor:
    r"""
    IM2: how far the autoencoder of the counterfactual class and that of all classes disagree on the counterfactual,

    `|AE_{y_CF}(x_CF) - AE(x_CF)|_2^2 / (|x_CF|_1 + eps)`.

    In [0, inf), lower is better. It rewards images that lie where the target class and the data as a whole agree.
    Background noise, which one of the autoencoders smooths away and the other keeps, makes it explode; images with
    much ink score lower by the denominator alone.

    Source: [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584); paper, Eq. 20. The
    paper's formula prints the factual class's autoencoder; its text and the original have the counterfactual class's,
    which is used here.

    Args:
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactual images, floats in [0, 1].
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        class_autoencoders (sequence of callables):
            At index `c` an autoencoder trained on class `c` only, in evaluation mode. It maps images in [0, 1] to
            their reconstructions, a tensor of the same shape.
        autoencoder (callable): An autoencoder trained on all classes, otherwise as these.
        eps (`float`, *optional*, defaults to `1e-7`): Keeps the ratio finite. At least 0.

    Returns:
        `torch.Tensor` of shape `(batch,)`: IM2 of each sample, float32 for images in half precision too.

    Raises:
        ValueError: On images out of [0, 1], mismatched lengths, a class without an autoencoder, an autoencoder in
            training mode or of another output shape, reconstructions that aren't finite, or an `eps` that is negative
            or not finite.
        TypeError: On images or reconstructions that aren't floats, classes that aren't integers, or an `eps` that is
            no number.

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

    by_counterfactual_class = reconstruct_by_class(class_autoencoders, counterfactual, intervention)
    by_all_classes = reconstruct("autoencoder", autoencoder, counterfactual)
    counterfactual = counterfactual.to(by_all_classes.dtype)
    numerator = (by_counterfactual_class - by_all_classes).square().flatten(1).sum(dim=1)
    return numerator / (counterfactual.abs().flatten(1).sum(dim=1) + eps)
