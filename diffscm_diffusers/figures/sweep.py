# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure

from .grid import check_figure_images, check_labels, draw_image_grid


def draw_sweep(
    factual: torch.Tensor, counterfactuals: torch.Tensor, node: str, values: list[str], row_labels: list[str]
) -> Figure:
    """
    A strip of pictures for each factual: its counterfactuals under several values of one attribute.

    Args:
        factual (`torch.Tensor` of shape `(factuals, channels, height, width)`): Factuals in [0, 1].
        counterfactuals (`torch.Tensor` of shape `(factuals, values, channels, height, width)`):
            What [`DiffSCMGraphCounterfactualPipeline.sweep`] gives with `output_type="pt"`.
        node (`str`): The attribute.
        values (`list[str]`): Its values, written above the columns.
        row_labels (`list[str]`): What each factual is, written beside it.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if an image is not finite or out of its range, or shapes or numbers of labels do not fit.
        TypeError: if an argument is of another type.
    """
    check_figure_images("(factuals, channels, height, width)", factual=factual)
    check_figure_images("(factuals, values, channels, height, width)", counterfactuals=counterfactuals)
    if factual.shape != counterfactuals[:, 0].shape:
        raise ValueError(
            f"`counterfactuals` expects images of the shape of `factual`, {tuple(factual.shape)}, for each value, got "
            f"{tuple(counterfactuals.shape)}."
        )
    check_labels(counterfactuals.shape[1], values=values)
    return draw_image_grid(
        torch.cat([factual[:, None], counterfactuals], dim=1),
        f"Counterfactuals under do({node})",
        row_labels,
        ["factual", *values],
    )
