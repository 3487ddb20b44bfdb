# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What visitors see: pictures in rows, as a part of the page and as one PNG. Nothing of it is written to disk."""

import base64
import html
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw


# Pixels of the sheet per pixel of an image, and below it for its caption.
SCALE = 4
CAPTION = 14


@dataclass
class Cell:
    """
    A picture with a caption.

    Args:
        image (`PIL.Image.Image`): Of mode `"L"` or `"RGB"`.
        caption (`str`): One short line below it.
        detail (`str`): A second line, in the page alone.
    """

    image: Image.Image
    caption: str
    detail: str = ""


@dataclass
class Row:
    """Pictures beside each other, under a title."""

    title: str
    cells: list[Cell]


def to_data_url(image: Image.Image) -> str:
    """A picture as PNG within a URL."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def pixels(image: Image.Image) -> np.ndarray:
    """A picture as `float64` in [0, 1]."""
    return np.asarray(image, dtype=np.float64) / 255


def difference(after: Image.Image, before: Image.Image) -> Image.Image:
    """
    The signed difference of two pictures, averaged over channels: red where `after` is brighter, blue where it is
    darker, white where they are the same.
    """
    change = pixels(after) - pixels(before)
    change = change.mean(axis=2) if change.ndim == 3 else change
    more, less = change.clip(0, 1), (-change).clip(0, 1)
    colours = np.stack([1 - less, 1 - more - less, 1 - more], axis=2)
    return Image.fromarray((colours * 255).round().astype(np.uint8))


def to_image(values: np.ndarray) -> Image.Image:
    """An array `(height, width, channels)` in [0, 1] as a picture."""
    values = (values * 255).round().astype(np.uint8)
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)


def to_sheet(rows: list[Row]) -> Image.Image:
    """All rows as one picture, with captions."""
    width, height = (
        max(getattr(c.image, side) for row in rows for c in row.cells) * SCALE for side in ("width", "height")
    )
    width, height = width + 8, height + 8 + CAPTION
    columns = max(len(row.cells) for row in rows)
    sheet = Image.new("RGB", (8 + max(columns * width, 300), 8 + len(rows) * (height + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        top = 8 + i * (height + CAPTION)
        draw.text((8, top - 4), row.title, fill="black")
        for j, cell in enumerate(row.cells):
            left = 8 + j * width
            size = (cell.image.width * SCALE, cell.image.height * SCALE)
            sheet.paste(cell.image.convert("RGB").resize(size, Image.Resampling.NEAREST), (left, top + CAPTION))
            draw.text((left, top + CAPTION + size[1]), cell.caption, fill="black")
    return sheet


def to_html(rows: list[Row], filename: str) -> str:
    """All rows as a part of the page, with a link to the sheet."""
    parts = []
    for row in rows:
        figures = "".join(
            f'<figure><img src="{to_data_url(cell.image)}" alt="{html.escape(f"{row.title}: {cell.caption}")}">'
            f"<figcaption>{html.escape(cell.caption)}<br><small>{html.escape(cell.detail)}</small></figcaption></figure>"
            for cell in row.cells
        )
        kind = ' class="diffscm-one"' if len(row.cells) == 1 else ""
        parts.append(f"<section{kind}><h3>{html.escape(row.title)}</h3><div>{figures}</div></section>")
    link = f'<a download="{filename}" href="{to_data_url(to_sheet(rows))}">Download as PNG</a>'
    return f'<div class="diffscm-results">{"".join(parts)}<p>{link}</p></div>'


def message(text: str, is_error: bool = False) -> str:
    """A message to the visitor, read out by screen readers."""
    kind, role = ("error", "alert") if is_error else ("note", "status")
    return f'<div class="diffscm-{kind}" role="{role}">{html.escape(text)}</div>'
