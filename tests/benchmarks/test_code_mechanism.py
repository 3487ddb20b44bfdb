# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest
import torch

from diffscm_diffusers import SemanticEncoder2DModel


SHORT = ["--num_samples", "12", "--num_references", "40", "--judge_steps", "2"]


def test_mechanism_that_does_nothing_changes_nothing(load_benchmark, tmp_path):
    torch.manual_seed(0)
    encoder = SemanticEncoder2DModel(28, 10, code_dim=7, block_out_channels=(4, 4, 4), mechanism_features=4)
    encoder.save_pretrained(tmp_path / "moves")
    for parameter in encoder.mechanism.parameters():
        torch.nn.init.zeros_(parameter)
    encoder.save_pretrained(tmp_path / "idle")
    folders = [str(tmp_path / name) for name in ("idle", "moves")]
    load_benchmark("code_mechanism").main(["--encoders", *folders, *SHORT, "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "code-mechanism.json").read_text())
    idle, moves = (results[folder] for folder in folders)
    assert idle["change of the code"] == pytest.approx(0, abs=1e-5) and moves["change of the code"] > 1e-4
    for measure in ("error", "target seen"):
        assert idle[f"{measure}, with the mechanism"] == pytest.approx(idle[f"{measure}, without the mechanism"])
    assert 0 < idle["error, with the mechanism"] < 1
    assert len((tmp_path / "code-mechanism.md").read_text().splitlines()) == 4


def test_encoder_without_a_mechanism_is_refused(load_benchmark, tmp_path):
    SemanticEncoder2DModel(28, 10, code_dim=7, block_out_channels=(4, 4, 4)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`--encoders` expects encoders with a mechanism, got"):
        load_benchmark("code_mechanism").main(["--encoders", str(tmp_path), *SHORT, "--output_dir", str(tmp_path)])
