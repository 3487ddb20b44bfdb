# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure

from .grid import check_figure_images, check_same_shape


CELL = 0.8  # inches


def draw_truth(factual: torch.Tensor, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Figure:
    """
    Counterfactuals beside the truth, one row per factual: for each intervention the counterfactual, the truth, and
    their difference, red where the counterfactual is brighter and blue where it is darker: in grey images by their
    values, in colour by the channel that differs most.

    Args:
        factual (`torch.Tensor` of shape `(num_factuals, channels, height, width)`):
            Factuals in [0, 1], grey with 1 channel or RGB with 3.
        pairs (`dict[str, tuple[torch.Tensor, torch.Tensor]]`):
            What each intervention is, and the counterfactuals and their truth under it, as `factual`.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if an image is not finite or out of its range, or shapes or numbers of labels do not fit.
        TypeError: if an argument is of another type.
    """
    if not isinstance(pairs, dict) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs.values()):
        raise TypeError(f"`pairs` expects two batches of images by intervention, got {pairs!r}.")
    named = {f"pairs[{label!r}][{i}]": images for label, pair in pairs.items() for i, images in enumerate(pair)}
    check_figure_images("(num_factuals, channels, height, width)", factual=factual, **named)
    check_same_shape(factual=factual, **named)
    images = [factual]
    for counterfactual, truth in pairs.values():
        difference = counterfactual - truth
        most = difference.abs().argmax(dim=1, keepdim=True)
        images += [counterfactual, truth, difference.gather(1, most)]
    titles = ["factual", *(title for label in pairs for title in (label, "truth", "difference"))]

    figure = Figure(figsize=(CELL * len(images), CELL * len(factual)))
    axes = figure.subplots(len(factual), len(images), squeeze=False)
    for column, title, axes_column in zip(images, titles, axes.T, strict=True):
        axes_column[0].set_title(title, fontsize=8)
        style = {"cmap": "seismic", "vmin": -1} if title == "difference" else {"cmap": "gray", "vmin": 0}
        for image, axis in zip(column, axes_column, strict=True):
            axis.imshow(image.movedim(0, -1), vmax=1, **style)
            axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    return figure
