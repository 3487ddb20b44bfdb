# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What visitors send: digits in MNIST's form, and messages about what cannot be used."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diffscm_diffusers.app.drawing import to_data_url
from diffscm_diffusers.app.examples import Examples
from diffscm_diffusers.app.picture import MAX_BYTES, fit_digit, read_picture


SHAPE = (1, 28, 28)
EXAMPLES = Examples([Image.new("L", (28, 28), 7)], ["seven"])


def stroke(size=(300, 200), box=(20, 30, 60, 130), ground="black", ink="white"):
    image = Image.new("RGB", size, ground)
    ImageDraw.Draw(image).rectangle(box, fill=ink)
    return image


def read(picture, fit=True):
    picture = to_data_url(picture) if isinstance(picture, Image.Image) else picture
    return read_picture(picture, SHAPE, fit, EXAMPLES)


def test_digit_fills_its_box_and_is_centred_by_mass():
    image = stroke()
    ImageDraw.Draw(image).rectangle((20, 100, 100, 130), fill="white")  # more mass at the bottom
    pixels = np.asarray(fit_digit(image, 28)[0], dtype=float)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
    grid = np.arange(28)
    assert abs((pixels.sum(axis=1) @ grid) / pixels.sum() - 13.5) <= 0.5
    assert abs((pixels.sum(axis=0) @ grid) / pixels.sum() - 13.5) <= 0.5
    assert pixels.max() == 255 and pixels[0, 0] == 0


def test_dark_on_bright_is_turned_round():
    bright, notes = fit_digit(stroke(ground="white", ink="black"), 28)
    assert np.array_equal(bright, fit_digit(stroke(), 28)[0])
    assert "It was turned to bright on dark." in notes


def test_colours_are_told_of():
    assert "Its colours were turned to grey." in read(stroke(ink="yellow")).notes


def test_picture_of_the_right_form_stays_as_it_is():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))
    assert np.array_equal(read(image, fit=False).image, image)


def test_what_is_transparent_is_dark():
    image = Image.new("RGBA", (28, 28), (255, 255, 255, 0))
    ImageDraw.Draw(image).line((5, 5, 20, 20), fill=(255, 255, 255, 255))
    pixels = np.asarray(read(image, fit=False).image)
    assert pixels[0, 0] == 0 and pixels[10, 10] == 255


def test_examples_are_taken_by_number():
    factual = read("example:0")
    assert factual.image is EXAMPLES.images[0] and factual.example == 0


def broken_png() -> str:
    return to_data_url(Image.effect_noise((64, 64), 50))[:-2000] + "A" * 12


def as_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "picture, fit, text",
    [
        ("", True, "got nothing"),
        (None, True, "got nothing"),
        ("example:1", True, "an example from 0 to 0, got '1'"),
        ("example:-1", True, "an example from 0 to 0"),
        ("too large:5000000", True, "at most 4 MB"),
        ("/etc/passwd", True, "got none of them"),
        ("data:image/png;base64,???", True, "cannot be opened"),
        (as_url(b"no picture"), True, "cannot be opened"),
        (as_url(b"a" * (MAX_BYTES + 3)), True, "at most 4 MB"),
        (as_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), True, "cannot be opened"),
        (broken_png(), True, "a broken one"),
        (as_url(bomb()), True, "got 8000 x 8000"),
        (Image.new("RGB", (280, 280)), True, "draw a digit first"),
        (Image.new("L", (28, 28)), False, "draw a digit first"),
        (Image.new("RGBA", (280, 280)), True, "draw a digit first"),
        (stroke(), False, "expects 28 x 28 pixels, got 300 x 200"),
        (Image.new("RGB", (28, 28), "red"), False, "expects grey, got colours"),
    ],
)
def test_what_cannot_be_used_is_refused(picture, fit, text):
    with pytest.raises(ValueError, match="`picture` expects") as error:
        read(picture, fit)
    assert text in str(error.value)
