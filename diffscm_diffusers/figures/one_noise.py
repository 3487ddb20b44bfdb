# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure

from diffscm_diffusers import DiffSCMCounterfactualPipeline

from .grid import draw_image_grid


def draw_one_noise(
    pipe: DiffSCMCounterfactualPipeline,
    num_noises: int,
    classes: list[int],
    seed: int,
    num_inference_steps: int | None = None,
    batch_size: int | None = None,
) -> Figure:
    """
    The interventional distribution with the exogenous noise held fixed: what the class alone changes (paper, Fig. 5).

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`]): Samples.
        num_noises (`int`): Number of rows, each from a noise of its own.
        classes (`list[int]`): Indices of the columns' classes.
        seed (`int`): Seed of the noises.
        num_inference_steps (`int`, *optional*): DDIM steps. Default: the checkpoint's.
        batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError, TypeError: as the pipeline, and if an image is out of its range.
    """
    if type(num_noises) is not int or num_noises < 1:
        raise ValueError(f"`num_noises` expects a whole number of at least 1, got {num_noises!r}.")
    if type(seed) is not int:
        raise TypeError(f"`seed` expects a whole number, got {seed!r}.")
    classes = pipe.classifier.class_indices(classes, "classes")
    output = pipe.sample(
        classes,
        num_images=num_noises,
        generator=torch.Generator().manual_seed(seed),
        shared_noise=True,
        num_inference_steps=num_inference_steps,
        batch_size=batch_size,
        output_type="pt",
    )
    samples = output.images.cpu().unflatten(0, (len(classes), num_noises)).transpose(0, 1)
    # Three standard deviations either side of grey.
    noise = (output.exogenous_noise[:num_noises].cpu() / 6 + 0.5).clamp(0, 1)
    names = pipe.classifier.id2label
    return draw_image_grid(
        torch.cat([noise[:, None], samples], dim=1),
        title="One exogenous noise per row, every class",
        row_labels=[""] * num_noises,
        column_labels=["noise", *(f"do({names[c]})" for c in classes)],
    )
