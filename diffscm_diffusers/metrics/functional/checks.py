# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable

import torch


def check_images(**images: torch.Tensor) -> None:
    """Raises an error unless all arguments are batches of images in [0, 1] of the same shape."""
    for name, image in images.items():
        if not isinstance(image, torch.Tensor) or not image.is_floating_point():
            got = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
            raise TypeError(f"`{name}` expects a tensor of floats in [0, 1], got {got}.")
        if image.ndim != 4 or image.numel() == 0:
            raise ValueError(
                f"`{name}` expects at least one image, in shape (batch, channels, height, width), got shape "
                f"{tuple(image.shape)}."
            )
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):  # also if either is NaN
            raise ValueError(
                f"`{name}` expects values in [0, 1] without NaN, got values from {low:.4g} to {high:.4g}."
            )
    shapes = {name: tuple(image.shape) for name, image in images.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"The images must have the same shape, got {shapes}.")


def check_classes(num_samples: int, **classes: torch.Tensor) -> None:
    """Raises an error unless every argument holds one class index per sample."""
    for name, index in classes.items():
        if not isinstance(index, torch.Tensor) or index.is_floating_point() or index.dtype == torch.bool:
            got = index.dtype if isinstance(index, torch.Tensor) else type(index).__name__
            raise TypeError(f"`{name}` expects a tensor of integers, got {got}.")
        if index.shape != (num_samples,):
            raise ValueError(
                f"`{name}` expects one class index for each of the {num_samples} samples, got shape "
                f"{tuple(index.shape)}."
            )


def check_evaluation_mode(name: str, model: Callable) -> None:
    """In training mode, dropout and batch normalisation make a result depend on chance and on the other samples."""
    if getattr(model, "training", False):
        raise ValueError(f"`{name}` is in training mode: call its `eval()` first.")


def call_model(name: str, model: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Calls a model that must be in evaluation mode and must return finite floats."""
    check_evaluation_mode(name, model)
    output = model(image)
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"`{name}` must return a tensor of floats, got {type(output).__name__}.")
    if not output.is_floating_point():
        raise TypeError(f"`{name}` must return a tensor of floats, got {output.dtype}.")
    if not output.isfinite().all():
        raise ValueError(f"`{name}` must return finite values, got NaN or infinity.")
    return output
