# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence

import torch

from .checks import check_evaluation_mode


def reconstruct(name: str, autoencoder: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """
    The images as the autoencoder reconstructs them, in float32 at least: in half precision sums over the pixels
    overflow. The errors call it by `name`.
    """
    check_evaluation_mode(name, autoencoder)
    reconstruction = autoencoder(image)
    if not isinstance(reconstruction, torch.Tensor):
        raise TypeError(f"`{name}` must return a tensor of images, got {type(reconstruction).__name__}.")
    if not reconstruction.is_floating_point():
        raise TypeError(f"`{name}` must return images as floats, got {reconstruction.dtype}.")
    if reconstruction.shape != image.shape:
        raise ValueError(
            f"`{name}` must return images of shape {tuple(image.shape)}, got {tuple(reconstruction.shape)}."
        )
    if not reconstruction.isfinite().all():
        raise ValueError(f"`{name}` must return finite values, got NaN or infinity.")
    return reconstruction.to(torch.promote_types(image.dtype, torch.float32))


def reconstruct_by_class(
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    image: torch.Tensor,
    image_class: torch.Tensor,
) -> torch.Tensor:
    """The images as the autoencoders of their classes reconstruct them, in the order of the images."""
    reconstruction = torch.empty_like(image, dtype=torch.promote_types(image.dtype, torch.float32))
    for c in image_class.unique().tolist():
        of_class = (image_class == c).to(image.device)
        reconstruction[of_class] = reconstruct(f"class_autoencoders[{c}]", class_autoencoders[c], image[of_class])
    return reconstruction
