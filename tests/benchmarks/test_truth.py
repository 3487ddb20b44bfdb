# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from unittest import mock

import pytest
import torch

from diffscm_diffusers.worlds import TypefaceWorld


@pytest.fixture
def measure(load_benchmark, tmp_path):
    def measure(*more_flags):
        flags = {"num_samples": 10, "num_references": 200, "num_codes": 20, "judge_steps": 2, "num_inference_steps": 2}
        flags |= {"num_drawn_factuals": 1, "num_noises": 10}
        argv = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        with mock.patch("diffscm_diffusers.metrics.probe.NUM_STEPS", 2):
            load_benchmark("truth").main([*argv, *more_flags, "--output_dir", str(tmp_path)])
        return json.loads((tmp_path / "truth.json").read_text())

    return measure


def test_other_settings_are_measured(measure):
    shipped, clean = measure(), measure("--no-dequantize")
    assert shipped["null intervention"] != clean["null intervention"]
    assert shipped["encoder and decoder alone"] == clean["encoder and decoder alone"]
    uncorrected = measure("--num_corrections", "0")
    assert shipped["encoder and decoder alone"] != uncorrected["encoder and decoder alone"]


def test_everything_is_measured(measure):
    results = measure()
    assert results["settings"]["num_samples"] == 10
    # With so few steps too, a counterfactual is nearer to the truth than the factual is.
    assert 0 < results["counterfactual"] < results["factual itself"] < 0.2
    assert 0 < results["encoder and decoder alone"] < results["factual itself"]
    assert results["exogenous noise of a draw"].keys() == {"mean", "std", "kurtosis"}
    assert 0 <= results["coverage of the 90 % interval, where draws or truth differ"] <= 1
    split = results["error of the counterfactual, split"]
    assert 0 < split["pose"] <= results["counterfactual"] <= split["pose"] + split["typeface"]
    for probed in ("the noise of a draw", "the noise without draws", "the noise of a drawn code"):
        assert results[f"class that a probe reads from {probed}"].keys() == {"accuracy", "chance"}
    drawn, fixed = (
        results[f"distance correlation of the noise {start} and the class"] for start in ("of a draw", "without draws")
    )
    assert drawn != fixed and 0 < drawn["distance_correlation"] < 1 and 0 < fixed["p_value"] <= 1


@pytest.fixture(scope="module")
def split_and_renderings(load_benchmark):
    truth, world = load_benchmark("truth"), TypefaceWorld()
    factual = world.sample(6, torch.Generator().manual_seed(0))
    digit = torch.tensor([4, 1, 8, 8, 2, 0])
    renderings = truth.render_typefaces(world, factual, digit)
    typeface = factual.exogenous_noise["typeface"]
    true = world.counterfactual(factual, {"digit": digit}).images
    assert renderings.shape == (12, 6, 1, 28, 28) and torch.equal(renderings[typeface, range(6)], true)
    return (lambda images: truth.split_error(images, renderings, typeface)), renderings, typeface, true


def test_the_truth_has_no_error(split_and_renderings):
    split, _, _, true = split_and_renderings
    assert split(true) == {"pose": 0, "typeface": 0, "typeface identified": 1}


def test_less_ink_is_pose_alone(split_and_renderings):
    split, _, _, true = split_and_renderings
    expected = {"pose": pytest.approx(0.05 * true.mean().item()), "typeface": 0, "typeface identified": 1}
    assert split(0.95 * true) == expected


def test_another_typeface_in_the_same_pose_is_typeface_alone(split_and_renderings):
    split, renderings, typeface, true = split_and_renderings
    wrong = renderings[(typeface + 1) % 12, range(6)]
    expected = pytest.approx((wrong - true).abs().mean().item())
    assert split(wrong) == {"pose": 0, "typeface": expected, "typeface identified": 0}


@pytest.mark.parametrize("flag", ("num_codes", "num_noises"))
def test_too_few_to_probe_are_refused(load_benchmark, flag, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load_benchmark("truth").parse_args([f"--{flag}", "9", "--output_dir", str(tmp_path)])
    assert f"--{flag} expects at least 10, for a probe, got 9" in capsys.readouterr().err
