# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable

import torch

from .checks import call_model, check_classes, check_images


def effectiveness(
    counterfactual: torch.Tensor,
    intervention: torch.Tensor,
    oracle: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """
    [`~diffscm_diffusers.metrics.Effectiveness`] of each sample.

    Args:
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactual images, floats in [0, 1].
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        oracle (callable):
            A classifier in evaluation mode. It maps images in [0, 1] to logits of shape `(batch, num_classes)`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: 1 where the oracle sees the target class, otherwise 0, in float32.

    Raises:
        ValueError: If images are not in [0, 1], lengths differ, the oracle does not know a class, is in training mode,
            or returns another shape or logits that are not finite.
        TypeError: If images or logits are not tensors of floats, or classes are not integers.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics.functional import effectiveness
        >>> def oracle(image):  # class 1 is bright, class 0 is dark
        ...     brightness = image.mean(dim=(1, 2, 3))
        ...     return torch.stack([1 - brightness, brightness], dim=1)
        >>> counterfactual = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
        >>> effectiveness(counterfactual, torch.tensor([1, 1]), oracle)
        tensor([0., 1.])
    """
    check_images(counterfactual=counterfactual)
    check_classes(len(counterfactual), intervention=intervention)

    logits = call_model("oracle", oracle, counterfactual)
    if logits.ndim != 2 or len(logits) != len(counterfactual):
        raise ValueError(
            f"`oracle` must return logits of shape ({len(counterfactual)}, num_classes), got {tuple(logits.shape)}."
        )
    unknown = sorted({c for c in intervention.tolist() if not 0 <= c < logits.shape[1]})
    if unknown:
        raise ValueError(
            f"`intervention` expects classes that `oracle` knows, from 0 to {logits.shape[1] - 1}, got {unknown}."
        )
    return (logits.argmax(dim=1) == intervention.to(logits.device)).float()
