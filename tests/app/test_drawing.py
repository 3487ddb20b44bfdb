# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What visitors see: differences, draws, and code that gives the same pixels."""

import contextvars
import re
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers.app.code_box import Call
from diffscm_diffusers.app.drawing import Cell, Row, difference, message, to_html, to_sheet
from diffscm_diffusers.app.progress import Cancelled, Steps, in_one_thread, with_steps
from diffscm_diffusers.app.results import counterfactual_rows
from tests.pipelines.dummies import get_dummy_pipe


def grey(*rows) -> Image.Image:
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def test_difference_is_red_where_brighter_and_blue_where_darker():
    after, before = grey([255, 0, 100]), grey([0, 255, 100])
    assert np.asarray(difference(after, before)).tolist() == [[[255, 0, 0], [0, 0, 255], [255, 255, 255]]]


def test_mean_and_spread_of_draws_are_the_pipelines():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    generator = torch.Generator().manual_seed(0)
    output = get_dummy_pipe()(image, ["one", "two"], num_inference_steps=3, num_draws=3, generator=generator)
    rows = counterfactual_rows(image, output, ["a", "b"], lambda images: [""] * len(images))

    assert [row.title.partition(":")[0].partition(" (")[0] for row in rows] == [
        "Factual",
        "Mean of 3 draws",
        "Spread",
        "Difference",
        *(f"Draw {i}" for i in (1, 2, 3)),
    ]
    stack = np.stack([[np.asarray(image) / 255 for image in draw] for draw in output.images])
    for j in range(2):
        assert abs(np.asarray(rows[1].cells[j].image) / 255 - stack[:, j].mean(axis=0)).max() <= 0.5 / 255 + 1e-9
        spread = stack[:, j].std(axis=0, ddof=1)
        assert abs(np.asarray(rows[2].cells[j].image) / 255 - spread / spread.max()).max() <= 0.5 / 255 + 1e-6
        assert rows[2].cells[j].detail == f"up to {spread.max():.2f}"
        assert rows[5].cells[j].image is output.images[1][j]


def test_page_holds_each_picture_and_escapes_what_it_is_told():
    rows = [Row("<b>", [Cell(grey([1, 2]), "<script>", "100%")]), Row("two", [Cell(grey([3, 4]), "c")] * 3)]
    page = to_html(rows, "a.png")
    assert page.count("<img") == 4 and page.count("alt=") == 4
    assert "<script>" not in page and "<b>" not in page and "<b>" not in message("<b>")
    assert to_sheet(rows).width > 0


@pytest.mark.parametrize("seed, more", [(None, {}), (3, {"num_draws": 2})])
def test_code_gives_the_same_pixels(seed, more, tmp_path):
    get_dummy_pipe().save_pretrained(tmp_path)
    pipe = type(get_dummy_pipe()).from_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    arguments = {"intervention": ["one", "two"], "guidance_scale": 2.0, "num_inference_steps": 3, **more}
    call = Call(str(tmp_path), image, arguments, seed)

    namespace = {}
    exec(call.code(type(pipe).__name__), namespace)

    images = call.run(pipe).images
    assert np.array_equal(namespace["images"], images)
    assert seed is None or not np.array_equal(*images)


def test_code_is_formatted():
    code = Call("a", grey([0]), {"intervention": ["1"]}, 5).code("DiffSCMCounterfactualPipeline")
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


def test_all_calls_run_in_one_thread_in_the_context_of_their_caller():
    visitor = contextvars.ContextVar("visitor")
    seen = []

    def visit(name):
        visitor.set(name)
        seen.append(in_one_thread(lambda word: (word, visitor.get(), threading.get_ident()), "hello"))

    threads = [threading.Thread(target=visit, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words, names, used = zip(*seen, strict=True)
    assert set(words) == {"hello"} and sorted(names) == list("abcd")
    assert len(set(used)) == 1 and used[0] not in [thread.ident for thread in threads]

    with pytest.raises(ZeroDivisionError):
        in_one_thread(lambda: 1 / 0)
