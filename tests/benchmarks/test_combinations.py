# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from unittest import mock

import pytest

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline


@pytest.fixture
def run(load_benchmark, tmp_path):
    combinations = load_benchmark("combinations")
    rows = {
        "2 quadratic": ("quadratic", 2, "source", 0),
        "25 quadratic": ("quadratic", 1, "source", 0),
        "1 even, implicit": ("even", 1, "implicit", 0),
        "2 quadratic, draws": ("quadratic", 2, "source", 2),
    }

    def run(*flags):
        with mock.patch.dict(combinations.ROWS, rows, clear=True):
            argv = ["--num_samples", "2", "--judge_steps", "1", "--num_train", "50", "--output_dir", str(tmp_path)]
            combinations.main([*argv, *flags])
        table = (tmp_path / "combinations.md").read_text().splitlines()
        return json.loads((tmp_path / "combinations.json").read_text())["seeds"], table

    return run


def test_each_row_of_each_seed_is_measured(run):
    seeds, table = run("--seeds", "3", "4")
    assert list(seeds) == ["3", "4"]
    expected = [
        "the truth itself",
        "the factual itself",
        "2 quadratic",
        "25 quadratic",
        "25 quadratic, fresh noise",
        "25 quadratic, the decoder alone",
        "1 even, implicit",
        "2 quadratic, one draw",
        "2 quadratic, mean of 2 draws",
    ]
    assert list(seeds["3"]) == expected and [line.split("|")[1].strip() for line in table[2:]] == expected
    for measured in seeds.values():
        assert measured["the truth itself"]["error"] == measured["the factual itself"]["null"] == 0
        assert measured["2 quadratic, one draw"]["null"] < measured["25 quadratic, fresh noise"]["null"]
        assert measured["25 quadratic"]["error"] < measured["the factual itself"]["error"]
        assert measured["25 quadratic, fresh noise"]["std"] == pytest.approx(1, abs=0.1)
    mean = (seeds["3"]["2 quadratic"]["error"] + seeds["4"]["2 quadratic"]["error"]) / 2
    assert table[4].startswith(f"| 2 quadratic | {mean:.4f} ± ")
    assert "| 25 quadratic |" in table[5] and "| 0.0000 ± 0.0000 |" in table[5]  # its own difference


def test_a_row_is_what_a_call_gives(load_benchmark):
    combinations = load_benchmark("combinations")
    pipes = combinations.make_pipes("checkpoints/diffscm-typeface")
    world = combinations.TypefaceWorld()
    factual = world.sample(2, combinations.torch.Generator().manual_seed(0))
    digit, target = factual.variables["digit"], combinations.torch.tensor([3, 5])
    arguments = (factual.images, digit, target, ("quadratic", 2, "source", 0), 10, None)
    counterfactual, null, noise = combinations.measure_row(pipes["quadratic"], *arguments)[""]
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained("checkpoints/diffscm-typeface")
    pipe.set_progress_bar_config(disable=True)
    pipe.register_to_config(dequantize=False)  # the row is made from the clean image
    for images, intervention in ((counterfactual, target), (null, digit)):
        output = pipe(factual.images, intervention, digit, num_inference_steps=2, output_type="pt")
        combinations.torch.testing.assert_close(images[0], output.images)
        combinations.torch.testing.assert_close(noise, output.exogenous_noise)
