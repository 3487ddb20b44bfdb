# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import ORANGE


CELL = 0.5  # inches
GAP = 0.05  # inches
LINE = 0.14  # height of a line of text, inches


def check_figure_images(shape: str, **images: torch.Tensor):
    """
    Raises an error unless all arguments are images in [0, 1], which alone are drawn as what they are.

    Args:
        shape (`str`): The axes that each argument has, such as `"(rows, channels, height, width)"`.
        images (`torch.Tensor`): The images, by what messages call them.
    """
    for name, image in images.items():
        if not torch.is_tensor(image) or not image.is_floating_point():
            got = image.dtype if torch.is_tensor(image) else type(image).__name__
            raise TypeError(f"`{name}` expects a tensor of floats in [0, 1], got {got}.")
        if image.ndim != shape.count(",") + 1 or image.numel() == 0 or image.shape[-3] not in (1, 3):
            raise ValueError(
                f"`{name}` expects images of 1 or 3 channels, {shape}, got the shape {tuple(image.shape)}."
            )
        low, high = torch.aminmax(image)
        if not (low >= 0 and high <= 1):  # also where either is NaN
            raise ValueError(f"`{name}` expects values in [0, 1], got values from {low:.4g} to {high:.4g}.")


def check_same_shape(**images: torch.Tensor):
    """Raises a `ValueError` unless all arguments have the shape of the first."""
    (first, expected), *others = images.items()
    for name, image in others:
        if image.shape != expected.shape:
            raise ValueError(
                f"`{name}` expects the shape of `{first}`, {tuple(expected.shape)}, got {tuple(image.shape)}."
            )


def check_counterfactuals(shape: str, factual: torch.Tensor, counterfactuals: dict[str, torch.Tensor], kind: str):
    """Raises an error unless all are images in [0, 1] of one shape, `counterfactuals` by what `kind` says."""
    if not isinstance(counterfactuals, dict) or not counterfactuals:
        raise TypeError(f"`counterfactuals` expects images by {kind}, got {counterfactuals!r}.")
    named = {f"counterfactuals[{name!r}]": images for name, images in counterfactuals.items()}
    check_figure_images(shape, factual=factual, **named)
    check_same_shape(factual=factual, **named)


def check_labels(number: int, **labels: list[str]):
    """Raises an error unless all arguments are lists of `number` texts."""
    for name, texts in labels.items():
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"`{name}` expects a list of {number} text(s), got {texts!r}.")
        if len(texts) != number:
            raise ValueError(f"`{name}` expects {number} text(s), got {len(texts)}: {texts!r}.")


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

    Raises:
        ValueError: if an image is not finite or out of its range, or shapes or numbers of labels do not fit.
        TypeError: if an argument is of another type.
    """
    check_figure_images("(rows, columns, channels, height, width)", images=images)
    rows, columns = images.shape[:2]
    check_labels(rows, row_labels=row_labels)
    check_labels(columns, column_labels=column_labels)
    if framed is not None and (not torch.is_tensor(framed) or framed.shape != images.shape[:2]):
        got = tuple(framed.shape) if torch.is_tensor(framed) else type(framed).__name__
        raise ValueError(f"`framed` expects a tensor of shape {(rows, columns)}, got {got}.")
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
