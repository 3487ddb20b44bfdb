# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import ORANGE


CELL = 0.5  # inches
GAP = 0.05  # inches
LINE = 0.14  # height of a line of text, inches


def shorten(label: str) -> str:
    """A label whose lines have at most 40 characters, whatever a class is called."""
    lines = [line if len(line) <= 40 else f"{line[:39]}…" for line in label.split("\n")]
    return "\n".join("".join(c if c.isprintable() else "�" for c in line) for line in lines)


def draw_image_grid(
    images: torch.Tensor,
    title: str,
    row_labels: list[str],
    column_labels: list[str],
    framed: torch.Tensor | None = None,
    note: str = "",
    cell: float = CELL,
) -> Figure:
    """
    Draws images in rows and columns.

    Args:
        images (`torch.Tensor` of shape `(rows, columns, channels, height, width)`): Images in [0, 1].
        title (`str`): What is seen.
        row_labels (`list[str]`): Written to the left of the rows.
        column_labels (`list[str]`): Written above the columns.
        framed (`torch.Tensor` of shape `(rows, columns)`, *optional*): True where an image gets a coloured frame.
        note (`str`, *optional*): What else there is to know, such as what the frames mean; written below.
        cell (`float`, *optional*, defaults to 0.5): Width and height of an image in inches.

    Returns:
        `matplotlib.figure.Figure`
    """
    rows, columns = images.shape[:2]
    row_labels, column_labels = ([shorten(label) for label in labels] for labels in (row_labels, column_labels))
    pitch = cell + GAP
    width, height = columns * pitch - GAP, rows * pitch - GAP
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))  # in inches, from the top left
    axes.set_axis_off()
    for i in range(rows):
        for j in range(columns):
            left, top = j * pitch, i * pitch
            image = images[i, j].movedim(0, -1).squeeze(-1).numpy()
            axes.imshow(image, vmin=0, vmax=1, extent=(left, left + cell, top + cell, top))
            if framed is not None and framed[i, j]:
                frame = Rectangle((left, top), cell, cell, fill=False, edgecolor=ORANGE, linewidth=1.8)
                axes.add_patch(frame).set_clip_on(False)
        axes.text(-GAP, i * pitch + cell / 2, row_labels[i], ha="right", va="center")
    for j in range(columns):
        axes.text(j * pitch + cell / 2, -GAP, column_labels[j], ha="center", va="bottom")

    num_lines = 1 + max(label.count("\n") for label in column_labels)
    axes.text(0, -(num_lines + 0.8) * LINE, title, fontsize=9, fontweight="bold", va="bottom")
    axes.text(0, height + 0.6 * LINE, note, color="0.35", va="top")
    return figure
