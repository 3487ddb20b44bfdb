# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure

from diffscm_diffusers import DiffSCMCounterfactualPipeline

from .grid import check_figure_images, draw_image_grid


def draw_targets(
    pipe: DiffSCMCounterfactualPipeline,
    factual: torch.Tensor,
    factual_class: torch.Tensor,
    classes: list[int],
    num_inference_steps: int | None = None,
    batch_size: int | None = None,
) -> Figure:
    """
    Every counterfactual of each factual, beside its reconstruction (paper, Fig. 6).

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`]): Estimates the counterfactuals.
        factual (`torch.Tensor` of shape `(rows, channels, height, width)`): Factuals in [0, 1].
        factual_class (`torch.Tensor` of shape `(rows,)`): Their class indices.
        classes (`list[int]`): Indices of the columns' target classes.
        num_inference_steps (`int`, *optional*): DDIM steps in each direction. Default: the checkpoint's.
        batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError, TypeError: as the pipeline, and if an image is out of its range.
    """
    check_figure_images("(rows, channels, height, width)", factual=factual)
    classes = pipe.classifier.class_indices(classes, "classes")
    factual_class = torch.tensor(pipe.classifier.class_indices(factual_class, "factual_class"))
    if len(factual_class) != len(factual):
        raise ValueError(f"`factual_class` expects one class for each of {len(factual)}, got {len(factual_class)}.")
    settings = {"num_inference_steps": num_inference_steps, "batch_size": batch_size, "output_type": "pt"}
    exogenous_noise = pipe.abduct(factual, num_inference_steps, batch_size=batch_size)
    # From noise of its own: what is abducted under a class needs that class as well.
    reconstruction = pipe(factual, guidance_scale=0, **settings).images
    counterfactual = pipe.predict(
        exogenous_noise.repeat_interleave(len(classes), dim=0), classes * len(factual), **settings
    ).images.unflatten(0, (len(factual), len(classes)))

    names = pipe.classifier.id2label
    null_intervention = factual_class[:, None] == torch.tensor(classes)
    return draw_image_grid(
        torch.cat([factual[:, None], reconstruction[:, None].cpu(), counterfactual.cpu()], dim=1),
        title="Each factual under every intervention",
        row_labels=[names[c] for c in factual_class.tolist()],
        column_labels=["factual", "reconstr.", *(f"do({names[c]})" for c in classes)],
        framed=torch.cat([torch.zeros(len(factual), 2, dtype=torch.bool), null_intervention], dim=1),
        note="Framed: the class is set to what it already is.",
    )
