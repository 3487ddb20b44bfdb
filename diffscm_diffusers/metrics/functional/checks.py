# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from collections.abc import Callable, Sequence

import torch


def check_images(**images: torch.Tensor) -> None:
    """Every argument must be a batch of images in [0, 1], all of one shape. The keywords name them in the errors."""
    for name, image in images.items():
        if not isinstance(image, torch.Tensor) or not image.is_floating_point():
            got = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
            raise TypeError(f"`{name}` takes a tensor of floats in [0, 1], got {got}.")
        if image.ndim != 4 or image.numel() == 0:
            raise ValueError(
                f"`{name}` takes at least one image, of shape (batch, channels, height, width), got shape "
                f"{tuple(image.shape)}."
            )
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"`{name}` takes values in [0, 1] without NaN, got values from {low:.4g} to {high:.4g}.")
    shapes = {name: tuple(image.shape) for name, image in images.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"The images must match in number and shape, got {shapes}.")


def check_classes(num_samples: int, **classes: torch.Tensor) -> None:
    """Every argument must be one class index per sample. The keywords name them in the errors."""
    for name, index in classes.items():
        if not isinstance(index, torch.Tensor) or index.is_floating_point() or index.dtype == torch.bool:
            got = index.dtype if isinstance(index, torch.Tensor) else type(index).__name__
            raise TypeError(f"`{name}` takes a tensor of integers, got {got}.")
        if index.shape != (num_samples,):
            raise ValueError(
                f"`{name}` takes one class index for each of the {num_samples} samples, got shape "
                f"{tuple(index.shape)}."
            )


def check_autoencoders(autoencoders: Sequence[Callable], **classes: torch.Tensor) -> None:
    """There must be an autoencoder for every class, so that index `c` holds the one of class `c`."""
    for name, index in classes.items():
        missing = sorted({c for c in index.tolist() if not 0 <= c < len(autoencoders)})
        if missing:
            raise ValueError(
                f"`class_autoencoders` holds {len(autoencoders)} autoencoders, none for the classes {missing} of "
                f"`{name}`."
            )


def check_eps(eps: float) -> None:
    """What is added to a denominator must be a finite number that cannot make it negative."""
    if not isinstance(eps, (int, float)) or isinstance(eps, bool):
        raise TypeError(f"`eps` takes a number of at least 0, got {eps!r} of type {type(eps).__name__}.")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"`eps` takes a finite number of at least 0, got {eps!r}.")


def check_evaluation_mode(name: str, model: Callable) -> None:
    """In training mode dropout and batch normalisation make a sample's result depend on chance and on its batch."""
    if getattr(model, "training", False):
        raise ValueError(f"`{name}` is in training mode: call its `eval()` first.")
