# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence

import torch

from .checks import check_evaluation_mode


def reconstruct(name: str, autoencoder: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """The images as the autoencoder reconstructs them. The errors call it by `name`."""
    check_evaluation_mode(name, autoencoder)
    reconstruction = autoencoder(image)
    if not isinstance(reconstruction, torch.Tensor):
        raise TypeError(f"`{name}` must return a tensor of images, got {type(reconstruction).__name__}.")
    if reconstruction.shape != image.shape:
        raise ValueError(
            f"`{name}` must return images of shape {tuple(image.shape)}, got {tuple(reconstruction.shape)}."
        )
    return reconstruction.to(image.dtype)


def reconstruct_by_class(
    class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    image: torch.Tensor,
    image_class: torch.Tensor,
) -> torch.Tensor:
    """The images as the autoencoders of their classes reconstruct them, in the order of the images."""
    reconstruction = torch.empty_like(image)
    for c in image_class.unique().tolist():
        of_class = (image_class == c).to(image.device)
        reconstruction[of_class] = reconstruct(f"class_autoencoders[{c}]", class_autoencoders[c], image[of_class])
    return reconstruction
