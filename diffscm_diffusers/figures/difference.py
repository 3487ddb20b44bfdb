# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .grid import CELL, check_figure_images, check_labels, check_same_shape, draw_image_grid


def draw_difference(factual: torch.Tensor, counterfactual: torch.Tensor, pair_labels: list[str]) -> Figure:
    """
    Where the cause acts: the difference counterfactual - factual, one column per pair.

    Args:
        factual (`torch.Tensor` of shape `(pairs, channels, height, width)`): Factuals in [0, 1].
        counterfactual (`torch.Tensor`): Their counterfactuals, of the same shape and range.
        pair_labels (`list[str]`): What each pair is, written above it.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if an image is not finite or out of its range, or shapes or numbers of labels do not fit.
        TypeError: if an argument is of another type.
    """
    check_figure_images("(pairs, channels, height, width)", factual=factual, counterfactual=counterfactual)
    check_same_shape(factual=factual, counterfactual=counterfactual)
    check_labels(len(factual), pair_labels=pair_labels)
    # Blue where the counterfactual is darker, white where it is the same, red where it is brighter; the mean of RGB.
    colours = ScalarMappable(Normalize(-1, 1), colormaps["RdBu_r"])
    difference = colours.norm((counterfactual - factual).mean(dim=1).numpy())
    difference = torch.from_numpy(colours.cmap(difference)[..., :3]).movedim(-1, 1)
    images = [image.expand(-1, 3, -1, -1) for image in (factual, counterfactual, difference)]
    figure = draw_image_grid(
        torch.stack(images),
        title="Where the cause acts: counterfactual minus factual",
        row_labels=["factual", "counterfactual", "difference"],
        column_labels=pair_labels,
    )

    bar_axes = figure.add_axes((1.015, 0, 0.01, CELL / figure.get_figheight()))
    bar = figure.colorbar(colours, cax=bar_axes, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["−1 darker", "0", "1 brighter"])
    bar.outline.set_linewidth(0.4)
    return figure
