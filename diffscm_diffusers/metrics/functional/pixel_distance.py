# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Literal

import torch

from .checks import check_images


def check_norm(norm: str) -> None:
    """Distances in pixels are taken in the L1 or the L2 norm."""
    if norm not in ("l1", "l2"):
        raise ValueError(f'`norm` takes "l1" or "l2", got {norm!r}.')


def pixel_distance(norm: Literal["l1", "l2"], **images: torch.Tensor) -> torch.Tensor:
    """The mean absolute (L1) or root mean squared (L2) difference of two batches of images, per sample."""
    check_norm(norm)
    check_images(**images)
    first, second = images.values()
    difference = (first - second).flatten(1)
    return difference.abs().mean(dim=1) if norm == "l1" else difference.square().mean(dim=1).sqrt()
