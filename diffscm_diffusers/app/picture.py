# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What visitors send: a drawing, a file or the number of an example, in one string. It is never written to disk."""

import base64
import binascii
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .examples import Examples


MAX_BYTES = 4_000_000
MAX_PIXELS = 16_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# MNIST's form: a box of 20 pixels, centred by mass in 28.
BOX = 20 / 28
# Less light than this, of 255, is no stroke: JPEG leaves some around every line.
DARK = 32


@dataclass
class Factual:
    """
    A factual image as the networks take it.

    Args:
        image (`PIL.Image.Image`): Of the checkpoint's size and mode.
        example (`int`, *optional*): The number of the example that it is.
        notes (`list[str]`): What was done to the visitor's picture, in sentences.
    """

    image: Image.Image
    example: int | None = None
    notes: list[str] = field(default_factory=list)


def open_picture(data_url: str) -> Image.Image:
    """
    Opens a picture that a browser sent.

    Args:
        data_url (`str`): `"data:image/...;base64,..."`.

    Returns:
        `PIL.Image.Image`: decoded whole, of mode `"RGB"`; what is transparent is black.

    Raises:
        ValueError: if it is none, too large, or broken.
    """
    header, _, content = data_url.partition(",")
    if not (header.startswith("data:") and header.endswith(";base64")):
        raise ValueError("`picture` expects a drawing, a picture file or an example, got none of them.")
    if len(content) * 3 // 4 > MAX_BYTES:
        raise ValueError(f"`picture` expects a file of at most {MAX_BYTES // 10**6} MB, got a larger one.")
    try:
        image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)), formats=FORMATS)
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"`picture` expects a file of the kind {', '.join(FORMATS)}, got one that cannot be opened."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"`picture` expects at most {MAX_PIXELS // 10**6} million pixels, got {image.width} x {image.height}."
        )
    try:
        image = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, IndexError, EOFError) as error:
        raise ValueError("`picture` expects a whole file, got a broken one.") from error
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")


def fit_digit(image: Image.Image, size: int) -> tuple[Image.Image, list[str]]:
    """
    Brings a digit to the form of MNIST's: bright on dark, scaled to a box of 20 of 28 pixels, its centre of mass in
    the middle ([LeCun et al.](http://yann.lecun.com/exdb/mnist/)).

    Args:
        image (`PIL.Image.Image`): Of mode `"RGB"` or `"L"`, dark on bright or bright on dark.
        size (`int`): Height and width of the result.

    Returns:
        `tuple[PIL.Image.Image, list[str]]`: an image of mode `"L"`, and what was done, in sentences.

    Raises:
        ValueError: if there are no strokes.
    """
    notes = []
    if is_coloured(image):
        notes.append("Its colours were turned to grey.")
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
        notes.append("It was turned to bright on dark.")
    grey = grey - grey.min()
    if grey.max() < DARK:
        raise ValueError("`picture` expects strokes, got an empty one: draw a digit first.")
    grey = grey * (255 / grey.max())

    rows, columns = (np.flatnonzero((grey > DARK).any(axis=axis)) for axis in (1, 0))
    strokes = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = strokes.shape
    scale = round(BOX * size) / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    # Not beyond white: Lanczos overshoots.
    small = np.asarray(Image.fromarray(strokes).resize((width, height), Image.Resampling.LANCZOS)).clip(0, 255)
    mass = small.sum()
    top = round((size - 1) / 2 - (small.sum(axis=1) @ np.arange(height)) / mass)
    left = round((size - 1) / 2 - (small.sum(axis=0) @ np.arange(width)) / mass)
    top, left = min(max(top, 0), size - height), min(max(left, 0), size - width)
    canvas = np.zeros((size, size), dtype=np.float32)
    canvas[top : top + height, left : left + width] = small
    box = round(BOX * size)
    notes.insert(0, f"The digit was scaled to a box of {box} x {box} pixels and centred by mass in {size} x {size}.")
    return Image.fromarray(canvas.round().astype(np.uint8)), notes


def is_coloured(image: Image.Image) -> bool:
    """Whether channels differ by more than JPEG's rounding of grey."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return bool((pixels.max(axis=2) - pixels.min(axis=2)).max() > 8)


def read_picture(picture: str, image_shape: tuple[int, int, int], fit: bool, examples: Examples) -> Factual:
    """
    Reads what a visitor sent.

    Args:
        picture (`str`): `"data:..."`, `"example:3"`, or `"too large:12345678"` for a file that the browser kept back.
        image_shape (`tuple[int, int, int]`): Channels, height and width that the networks take.
        fit (`bool`):
            Whether to bring the picture to the form of the images that the networks know: of grey ones that of
            MNIST's digits ([`fit_digit`]), of others their size.
        examples ([`Examples`]): The tab's.

    Returns:
        [`Factual`]: the image.

    Raises:
        ValueError: with a message for the visitor.
    """
    if not isinstance(picture, str) or not picture:
        raise ValueError("`picture` expects a drawing, a picture file or an example, got nothing.")
    kind, _, content = picture.partition(":")
    if kind == "example":
        if not (content.isascii() and content.isdigit() and int(content) < len(examples)):
            raise ValueError(f"`picture` expects an example from 0 to {len(examples) - 1}, got {content[:20]!r}.")
        return Factual(examples.images[int(content)], int(content))
    if kind == "too large":
        raise ValueError(f"`picture` expects a file of at most {MAX_BYTES // 10**6} MB, got a larger one.")

    channels, height, width = image_shape
    image = open_picture(picture)
    if fit:
        if channels == 1 and height == width:
            image, notes = fit_digit(image, height)
            return Factual(image, notes=notes)
        notes = [] if image.size == (width, height) else [f"It was resized to {width} x {height} pixels."]
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        return Factual(image.convert("RGB" if channels == 3 else "L"), notes=notes)
    if image.size != (width, height):
        raise ValueError(
            f"`picture` expects {width} x {height} pixels, got {image.width} x {image.height}. Tick the box that "
            "brings it to the form of the training images."
        )
    if channels == 1 and is_coloured(image):
        raise ValueError(
            "`picture` expects grey, got colours. Tick the box that brings it to the form of the training images."
        )
    image = image.convert("RGB" if channels == 3 else "L")
    if image.getextrema() == (0, 0):
        raise ValueError("`picture` expects strokes, got an empty one: draw a digit first.")
    return Factual(image)
