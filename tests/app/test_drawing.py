# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What visitors see: differences, draws, and code that gives the same pixels."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers.app.code_box import Call
from diffscm_diffusers.app.drawing import Cell, Row, difference, mean_and_spread, message, to_html, to_sheet
from diffscm_diffusers.app.progress import Cancelled, Steps, with_steps
from tests.pipelines.dummies import get_dummy_pipe


def grey(*rows) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def test_difference_is_red_where_brighter_and_blue_where_darker():
    after, before = grey([255, 0, 100]), grey([0, 255, 100])
    assert np.asarray(difference(after, before)).tolist() == [[[255, 0, 0], [0, 0, 255], [255, 255, 255]]]


def test_mean_and_spread_are_those_of_the_draws():
    mean, spread, largest = mean_and_spread([grey([0, 100]), grey([200, 100])])
    assert np.asarray(mean).tolist() == [[100, 100]]
    assert np.asarray(spread).tolist() == [[255, 0]]
    assert largest == pytest.approx(100 / 255)


def test_page_holds_each_picture_and_escapes_what_it_is_told():
    rows = [Row("<b>", [Cell(grey([1, 2]), "<script>", "100%")]), Row("two", [Cell(grey([3, 4]), "c")] * 3)]
    page = to_html(rows, "a.png")
    assert page.count("<img") == 4 and page.count("alt=") == 4
    assert "<script>" not in page and "<b>" not in page and "<b>" not in message("<b>")
    assert to_sheet(rows).width > 0


@pytest.mark.parametrize("seed, more", [(None, {}), (3, {"eta": 1.0})])
def test_code_gives_the_same_pixels(seed, more, tmp_path):
    get_dummy_pipe().save_pretrained(tmp_path)
    pipe = type(get_dummy_pipe()).from_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    arguments = {"intervention": ["one", "two"] * 2, "guidance_scale": 2.0, "num_inference_steps": 3, **more}
    call = Call(str(tmp_path), image, arguments, seed)

    namespace = {}
    exec(call.code(pipe), namespace)

    images = call.run(pipe).images
    assert all(np.array_equal(a, b) for a, b in zip(namespace["images"], images, strict=True))
    assert seed is None or not np.array_equal(images[0], images[2])


def test_code_is_formatted():
    code = Call("a", grey([0]), {"intervention": ["1"]}, 5).code(get_dummy_pipe())
    assert "generator=torch.Generator().manual_seed(5)," in code and "import torch" in code
    assert not re.search(r"[ \t]$", code, flags=re.MULTILINE)


def test_steps_are_reported_and_cancel_a_call_of_their_own():
    pipe, reports = get_dummy_pipe(), []
    image = torch.rand(1, 8, 8)
    stop = []
    own = with_steps(pipe, Steps(lambda done, text: reports.append((done, text)), lambda: bool(stop)))
    own(image, "one", num_inference_steps=2)
    assert [done for done, _ in reports] == [(1, 2), (2, 2)] * 2
    assert reports[0][1].startswith("Abduction") and reports[-1][1].startswith("Prediction")

    stop.append(True)
    with pytest.raises(Cancelled):
        own(image, "one", num_inference_steps=2)
    pipe(image, "one", num_inference_steps=2)
    assert len(reports) == 4
