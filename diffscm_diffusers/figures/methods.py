# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import textwrap

import torch
from matplotlib.figure import Figure

from .grid import check_counterfactuals, check_labels, draw_image_grid


def draw_methods(
    factual: torch.Tensor, counterfactuals: dict[str, torch.Tensor], targets: list[str], effective: torch.Tensor
) -> Figure:
    """
    Methods side by side on the same factuals (paper, Fig. 3b).

    Args:
        factual (`torch.Tensor` of shape `(rows, channels, height, width)`): Factuals in [0, 1].
        counterfactuals (`dict[str, torch.Tensor]`): Each method's counterfactuals of them, by the method's label.
        targets (`list[str]`): The target class of each row.
        effective (`torch.Tensor` of shape `(rows, methods)`): Whether the oracle sees the target.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if an image is not finite or out of its range, or shapes or numbers of labels do not fit.
        TypeError: if an argument is of another type.
    """
    check_counterfactuals("(rows, channels, height, width)", factual, counterfactuals, "method")
    check_labels(len(factual), targets=targets)
    shape = (len(factual), len(counterfactuals))
    if not torch.is_tensor(effective) or effective.dtype != torch.bool or tuple(effective.shape) != shape:
        got = (effective.dtype, tuple(effective.shape)) if torch.is_tensor(effective) else type(effective).__name__
        raise TypeError(f"`effective` expects a tensor of torch.bool, of shape {shape}, got {got}.")
    framed = torch.cat([torch.zeros(len(factual), 1, dtype=torch.bool), ~effective], dim=1)
    return draw_image_grid(
        torch.stack([factual, *counterfactuals.values()], dim=1),
        title="The methods on the same factuals",
        row_labels=[f"do({target})" for target in targets],
        column_labels=["factual", *(textwrap.fill(method, 12) for method in counterfactuals)],
        framed=framed,
        note="Framed: the oracle does not see the target." if framed.any() else "",
        cell=0.65,  # room for the methods' names
    )
