# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Pictures that a training run draws when it validates."""

from pathlib import Path

import numpy as np
import PIL.Image
import torch
from accelerate import Accelerator
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import make_image_grid

from diffscm_diffusers.files import written_whole


def make_picture(images: torch.Tensor, rows: int) -> PIL.Image.Image:
    """Lays images in [-1, 1] out in rows, from left to right and from top to bottom."""
    tiles = VaeImageProcessor().postprocess(images.float().cpu(), output_type="pil")
    return make_image_grid(tiles, rows, len(tiles) // rows)


def log_picture(accelerator: Accelerator, picture: PIL.Image.Image, output_dir: str | Path, step: int):
    """Writes a picture to `samples/<step>.png` of the output folder, and hands it to the trackers."""
    with written_whole(Path(output_dir, "samples", f"{step:07d}.png")) as unfinished:
        picture.save(unfinished)
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({"samples": np.asarray(picture.convert("RGB"))[None]}, step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({"samples": [picture]}, step)
