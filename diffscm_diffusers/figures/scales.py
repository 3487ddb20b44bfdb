# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline

from .grid import check_figure_images, draw_image_grid


def draw_scales(
    pipe: DiffSCMCounterfactualPipeline,
    factual: torch.Tensor,
    intervention: torch.Tensor,
    scales: list[float],
    num_inference_steps: int | None = None,
    batch_size: int | None = None,
) -> Figure:
    """
    Counterfactuals of growing guidance scale (paper, Fig. 7).

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`]): Estimates the counterfactuals.
        factual (`torch.Tensor` of shape `(rows, channels, height, width)`): Factuals in [0, 1].
        intervention (`torch.Tensor` of shape `(rows,)`): Their target class indices.
        scales (`list[float]`): Guidance scales of the columns. With 0 the factual is reconstructed.
        num_inference_steps (`int`, *optional*): DDIM steps in each direction. Default: the checkpoint's.
        batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError, TypeError: as the pipeline, and if an image is out of its range.
    """
    check_figure_images("(rows, channels, height, width)", factual=factual)
    intervention = torch.tensor(pipe.classifier.class_indices(intervention, "intervention"))
    if len(intervention) != len(factual):
        raise ValueError(f"`intervention` expects one class for each of {len(factual)}, got {len(intervention)}.")
    numbers = scales if isinstance(scales, (list, tuple)) and scales else [None]
    if not all(isinstance(scale, (int, float)) and 0 <= scale < float("inf") for scale in numbers):
        raise ValueError(f"`scales` expects a list of finite numbers of at least 0, got {scales!r}.")
    settings = {"num_inference_steps": num_inference_steps, "batch_size": batch_size}
    exogenous_noise, columns = None, [factual]
    for scale in tqdm(scales, "Scales", leave=False):
        # Marginal abduction serves all scales; abduction under the factual's class climbs the moves of each.
        if exogenous_noise is None or not pipe.config.default_marginal_abduction:
            exogenous_noise = pipe.abduct(factual, guidance_scale=scale, **settings)
        output = pipe.predict(exogenous_noise, intervention, guidance_scale=scale, output_type="pt", **settings)
        columns.append(output.images.cpu())

    names = pipe.classifier.id2label
    default = pipe.config.default_guidance_scale
    return draw_image_grid(
        torch.stack(columns, dim=1),
        title="The same counterfactuals at growing guidance scale s",
        row_labels=[f"do({names[c]})" for c in intervention.tolist()],
        column_labels=["factual", *(f"s = {scale:g}" for scale in scales)],
        note=f"The checkpoint's guidance scale is {default:g}.",
    )
