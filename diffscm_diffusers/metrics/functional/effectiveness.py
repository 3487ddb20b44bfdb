# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable

import torch

from .checks import check_classes, check_evaluation_mode, check_images


def effectiveness(
    counterfactual: torch.Tensor,
    intervention: torch.Tensor,
    oracle: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    r"""
    Effectiveness: whether an oracle classifier sees the target class in the counterfactual,

    `1 if argmax_y p(y | x_CF) = y_CF else 0`.

    0 or 1, higher is better. It rewards an intervention that takes effect, and says nothing on what else changed. The
    oracle must not be the classifier that guides the method, nor share its architecture: it would reward adversarial
    images.

    Source: [Monteiro et al. (2023)](https://huggingface.co/papers/2303.01274).

    Args:
        counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
            The counterfactual images, floats in [0, 1].
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        oracle (callable):
            A classifier in evaluation mode, which maps images in [0, 1] to logits of shape `(batch, num_classes)`.

    Returns:
        `torch.Tensor` of shape `(batch,)`: 1 where the oracle sees the target class, else 0, float32.

    Raises:
        ValueError: On images out of [0, 1], mismatched lengths, a class that the oracle doesn't know, an oracle in
            training mode or of another output shape, or logits that aren't finite.
        TypeError: On images or logits that aren't float tensors, or classes that aren't integers.

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
    check_evaluation_mode("oracle", oracle)

    logits = oracle(counterfactual)
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"`oracle` must return a tensor of logits, got {type(logits).__name__}.")
    if not logits.is_floating_point():
        raise TypeError(f"`oracle` must return logits as floats, got {logits.dtype}.")
    if logits.ndim != 2 or len(logits) != len(counterfactual):
        raise ValueError(
            f"`oracle` must return logits of shape ({len(counterfactual)}, num_classes), got {tuple(logits.shape)}."
        )
    # The largest of NaNs is the first: class 0 would be seen wherever the oracle sees nothing.
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken > 0:
        raise ValueError(
            f"`oracle` must return finite logits, got NaN or infinity for {broken} of {len(logits)} images."
        )
    unknown = sorted({c for c in intervention.tolist() if not 0 <= c < logits.shape[1]})
    if unknown:
        raise ValueError(f"`oracle` knows {logits.shape[1]} classes, none of the classes {unknown} of `intervention`.")
    return (logits.argmax(dim=1) == intervention.to(logits.device)).float()
