# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from .grid import check_counterfactuals, check_labels, draw_image_grid


def draw_effects(
    factual: torch.Tensor,
    counterfactuals: dict[str, torch.Tensor],
    title: str,
    column_labels: list[str],
    row_notes: dict[str, str] | None = None,
) -> Figure:
    """
    The effects of an intervention on images: for each, the image and its difference from the factual.

    Args:
        factual (`torch.Tensor` of shape `(factuals, channels, height, width)`): Factuals in [0, 1].
        counterfactuals (`dict[str, torch.Tensor]`): By effect, such as `"total"`, images of the same shape and range.
        title (`str`): The intervention.
        column_labels (`list[str]`): What each factual is, written above it.
        row_notes (`dict[str, str]`, *optional*): By effect, what is written under its name.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if an image is not finite or out of its range, or shapes or numbers of labels do not fit.
        TypeError: if an argument is of another type.
    """
    check_counterfactuals("(factuals, channels, height, width)", factual, counterfactuals, "effect")
    check_labels(len(factual), column_labels=column_labels)
    rows, labels = [factual.expand(-1, 3, -1, -1)], ["factual"]
    for kind, images in counterfactuals.items():
        difference = colormaps["RdBu_r"]((images - factual).mean(dim=1).numpy() / 2 + 0.5)[..., :3]
        rows += [images.expand(-1, 3, -1, -1), torch.from_numpy(difference).movedim(-1, 1).float()]
        note = (row_notes or {}).get(kind, "")
        labels += [f"{kind} effect" + (f"\n{note}" if note else ""), "minus factual"]
    return draw_image_grid(
        torch.stack(rows),
        title,
        labels,
        column_labels,
        note="Differences: blue is darker, white the same, red brighter than the factual.",
    )
