# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence

import torch

from .checks import check_autoencoders, check_classes, check_eps, check_images
from .reconstruction import reconstruct_by_class


def im1(
    counterfactual: torch.Tensor,
    factual_class: torch.Tensor,
    intervention: torch.Tensor,
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    eps: float = 1e-7,
) -> torch.Tensor:
    r"""
    IM1: how much better the autoencoder of the counterfactual class reconstructs the counterfactual than that of the
    factual class does,

    `|x_CF - AE_{y_CF}(x_CF)|_2^2 / (|x_CF - AE_{y_F}(x_CF)|_2^2 + eps)`.

    In [0, inf), lower is better; below 1 the counterfactual looks more like its target class than like the class it
    came from. It rewards a change of class and says nothing on how near the counterfactual is to the factual.

    Source: [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584); paper, Eq. 19. The
    paper's text calls the denominator's autoencoder that of all classes; formula and original have the factual
    class's, which is used here.

    Args:
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactual images, floats in [0, 1].
        factual_class (`torch.Tensor` of shape `(batch,)`): The factual images' class indices.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        class_autoencoders (sequence of callables):
            At index `c` an autoencoder trained on class `c` only, in evaluation mode. It maps images in [0, 1] to
            their reconstructions, a tensor of the same shape.
        eps (`float`, *optional*, defaults to `1e-7`): Keeps the ratio finite. At least 0.

    Returns:
        `torch.Tensor` of shape `(batch,)`: IM1 of each sample, float32 for images in half precision too.

    Raises:
        ValueError: On images out of [0, 1], mismatched lengths, a class without an autoencoder, an autoencoder in
            training mode or of another output shape, reconstructions that aren't finite, or an `eps` that is negative
            or not finite.
        TypeError: On images or reconstructions that aren't floats, classes that aren't integers, or an `eps` that is
            no number.

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

    by_counterfactual_class = reconstruct_by_class(class_autoencoders, counterfactual, intervention)
    by_factual_class = reconstruct_by_class(class_autoencoders, counterfactual, factual_class)
    counterfactual = counterfactual.to(by_factual_class.dtype)
    numerator = (counterfactual - by_counterfactual_class).square().flatten(1).sum(dim=1)
    denominator = (counterfactual - by_factual_class).square().flatten(1).sum(dim=1)
    return numerator / (denominator + eps)
