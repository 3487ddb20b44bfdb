# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import sys

import pytest
import torch

from diffscm_diffusers import CausalUNet2DModel
from diffscm_diffusers.worlds import TypefaceWorld


@pytest.fixture
def confounding(load_benchmark):
    return load_benchmark("confounding")


def test_hue_is_measured_in_turns_on_a_circle(confounding):
    sample = TypefaceWorld(color=True).sample(20, torch.Generator().manual_seed(0))
    measured = confounding.measure_hue(sample.images)
    assert confounding.turns_between(measured, sample.variables["hue"]).max() < 0.02
    apart = confounding.turns_between(torch.tensor([0.95, 0.1, 0.0]), torch.tensor([0.05, 0.4, 0.5]))
    torch.testing.assert_close(apart, torch.tensor([0.1, 0.3, 0.5]))


def test_a_restricted_denoiser_is_told_some_parents_only(confounding):
    unet = CausalUNet2DModel(
        {"digit": 10, "hue": 1},
        sample_size=8,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        block_out_channels=(4,),
        norm_num_groups=4,
        add_attention=False,
    ).requires_grad_(False)
    sample, condition = torch.randn(2, 1, 8, 8), torch.rand(2, 11)
    keep = torch.tensor([[True, False]]).expand(2, -1)
    told = confounding.restrict(unet, [True, False])
    torch.testing.assert_close(told(sample, 5, condition).sample, unet(sample, 5, condition, keep).sample)
    blind = confounding.restrict(unet, [False, False])
    torch.testing.assert_close(blind(sample, 5).sample, unet(sample, 5, condition, ~keep & keep).sample)
    assert "condition_widths" in unet.config and "condition_widths" not in blind.config


@pytest.mark.filterwarnings("ignore:.*less probable")
def test_a_checkpoint_is_measured_as_it_ships(confounding, tmp_path):
    checkpoint = "checkpoints/diffscm-typeface-confounded"
    confounding.main(["--quick", "--pretrained_model_name_or_path", checkpoint, "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "confounding.json").read_text())
    measures = results["checkpoint"]
    assert results["truth"]["error to the truth"] == 0 < measures["error to the truth"] < 0.04
    assert measures["null intervention"] < 0.01 and measures["hue dragged"] < 0.05
    assert measures["there and back"] < 0.03 and 0.9 < measures["exogenous noise of a draw"]["std"] < 1.1
    assert not any(tmp_path.glob("strength-*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*less probable")
def test_everything_is_trained_once_and_measured(confounding, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    argv = ["--quick", "--strengths", "0.9", "--output_dir", str(tmp_path)]
    confounding.main(argv)
    results = json.loads((tmp_path / "confounding.json").read_text())
    assert results["truth"]["error to the truth"] == 0 and results["truth"]["hue dragged"] < 0.01
    assert len(results["methods"]["0.9"]) == 6 and (tmp_path / "confounding.png").exists()
    for script in ("train_diffusion", "train_classifier", "train_semantic_encoder"):
        monkeypatch.setitem(sys.modules, script, None)  # its import fails
    confounding.main(argv)
    assert json.loads((tmp_path / "confounding.json").read_text()) == results
