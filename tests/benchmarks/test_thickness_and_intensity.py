# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import dataclasses
import json
from unittest import mock

import pytest
import torch

from diffscm_diffusers.baselines import ConditionalVAE2DModel
from diffscm_diffusers.worlds import TypefaceWorld


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
    assert 0 < results["what is measured less the attribute"]["thickness"] < 1


def test_two_samples_of_the_same_attributes_are_measured_apart(load_benchmark, monkeypatch):
    """Offsets of 1, 3 and 0 pixels are 2, 3 and 1 apart; a constant one of 5 grey levels never."""
    benchmark = load_benchmark("thickness_and_intensity")
    sample = mock.Mock(images=None, variables={"thickness": torch.ones(3), "intensity": torch.full((3,), 100.0)})
    monkeypatch.setattr(benchmark, "measure_thickness", lambda images: torch.tensor([2.0, 4.0, 1.0]))
    monkeypatch.setattr(benchmark, "measure_intensity", lambda images: torch.full((3,), 105.0))
    measures = benchmark.measure_offsets(sample)
    assert measures["thickness"].tolist() == [1, 3, 0]
    assert sorted(measures["thickness, between two samples"].tolist()) == [1, 2, 3]
    assert measures["intensity"].tolist() == [5, 5, 5]
    assert measures["intensity, between two samples"].tolist() == [0, 0, 0]


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
