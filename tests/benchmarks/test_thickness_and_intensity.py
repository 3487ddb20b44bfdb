# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import dataclasses
import json
from unittest import mock

import numpy as np
import pytest
import torch

from diffscm_diffusers.baselines import ConditionalVAE2DModel
from diffscm_diffusers.worlds import MorphoMNISTWorld, TypefaceWorld


@pytest.mark.filterwarnings("ignore:.*less probable", "ignore:Implicit abduction of")
def test_baselines_get_the_same_samples_and_attributes(load_benchmark, labelled_digits, tmp_path):
    vae = tmp_path / "vae"
    ConditionalVAE2DModel(28, 12, block_out_channels=(4, 4)).save_pretrained(vae)

    argv = ["--dataset_name", labelled_digits, "--train_split", "test", "--num_samples", "10"]
    argv += ["--num_noises", "10"]
    argv += ["--num_train", "20", "--judge_steps", "1", "--num_drawn_factuals", "1", "--num_inference_steps", "2"]
    argv += ["--max_iterations", "3", "--no-dequantize", "--num_corrections", "0"]
    with mock.patch("diffscm_diffusers.metrics.probe.NUM_STEPS", 2):
        load_benchmark("thickness_and_intensity").main([*argv, "--baselines", str(vae), "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "thickness_and_intensity.json").read_text())
    for node in ("thickness", "intensity"):
        ours, theirs = results[f"do({node}), diffusion causal model"], results[f"do({node}), {vae}"]
        assert ours["error to the truth"] != theirs["error to the truth"]
        for name in ("the factual itself", "error of the intensity that the structural causal model predicts"):
            assert ours[name] == theirs[name]
    for method in ("diffusion causal model", str(vae)):
        measures = results[f"do(digit), {method}"]
        assert 0 <= measures["digit seen by the judge"] <= 1 and measures["change of the thickness"] >= 0
    for part in ("the noise of a draw", "the noise of a drawn code"):
        read = results[f"what a probe reads from {part}"]
        assert read["thickness, R2"] <= 1 and 0 <= read["digit"] <= 1
    assert 0 <= results["draws of do(thickness)"]["coverage of the 90 % interval, where draws or truth differ"] <= 1
    assert 0 < results["two samples of the same attributes"]["thickness"] < 1


def test_copies_of_one_digit_differ_by_nothing_where_their_attributes_are_the_same(load_benchmark):
    """Whatever their own attributes: each is compared with what it is under those of another."""
    y, x = np.mgrid[:28, :28] - 13.5
    ring = (255 * (2 - abs(np.hypot(x, y) - 8)).clip(0, 1)).astype(np.uint8)
    world = MorphoMNISTWorld(ring[None], np.zeros(1, dtype=np.int64))
    sample = world.sample(4, torch.Generator().manual_seed(0))
    assert sample.variables["thickness"].unique().numel() == 4
    differences = load_benchmark("thickness_and_intensity").measure_same_attributes(world, sample)
    assert {name: value.tolist() for name, value in differences.items()} == {
        "thickness": [0.0] * 4,
        "intensity": [0.0] * 4,
    }


@pytest.mark.parametrize("flag", ("num_noises", "num_train"))
def test_too_few_to_probe_are_refused(load_benchmark, flag, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load_benchmark("thickness_and_intensity").parse_args([f"--{flag}", "9", "--output_dir", str(tmp_path)])
    assert f"--{flag} expects at least 10, for a probe, got 9" in capsys.readouterr().err


def test_samples_inside_the_support_are_measured_apart(load_benchmark):
    world = TypefaceWorld()
    factual = world.sample(4, torch.Generator().manual_seed(0))
    factual = dataclasses.replace(factual, variables={"thickness": torch.ones(4), "intensity": torch.ones(4)})
    error = torch.tensor([0.0, 0.1, 0.2, 0.3])
    images = (factual.images * 0.5 + error[:, None, None, None]).contiguous()
    output = mock.Mock(images=images, counterfactual_attributes=factual.variables)
    pipe = mock.Mock(return_value=output, encoder=None)
    truth = dataclasses.replace(factual, images=factual.images * 0.5)
    is_inside = torch.tensor([True, False, False, True])
    measure = load_benchmark("thickness_and_intensity").measure_intervention
    measures = measure(pipe, factual, truth, {"thickness": torch.ones(4)}, is_inside, {})
    torch.testing.assert_close(measures["error to the truth"].float(), error)
    torch.testing.assert_close(measures["error to the truth, inside the support"].float(), error[is_inside])
    for name in ("error of the thickness", "error of the intensity"):
        torch.testing.assert_close(measures[f"{name}, inside the support"], measures[name][is_inside])
    assert not any("inside" in name for name in measure(pipe, factual, truth, {"thickness": 1}, is_inside & False, {}))
