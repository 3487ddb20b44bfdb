# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from diffusers.utils import pt_to_pil

from diffscm_diffusers.baselines import ConditionalVAE2DModel
from diffscm_diffusers.worlds import TypefaceWorld


@pytest.mark.filterwarnings("ignore:.*less probable")
def test_baselines_get_the_same_samples_and_attributes(load_benchmark, tmp_path):
    digits = TypefaceWorld().sample(6, torch.Generator().manual_seed(0))
    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    rows = {"image": pt_to_pil(2 * digits.images - 1), "label": digits.variables["digit"].tolist()}
    (tmp_path / "digits").mkdir()
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "digits" / "test.parquet")
    vae = tmp_path / "vae"
    ConditionalVAE2DModel(28, 12, block_out_channels=(4, 4)).save_pretrained(vae)

    argv = ["--dataset_name", str(tmp_path / "digits"), "--num_samples", "3", "--num_inference_steps", "2"]
    load_benchmark("thickness_and_intensity").main([*argv, "--baselines", str(vae), "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "thickness_and_intensity.json").read_text())
    for node in ("thickness", "intensity"):
        ours, theirs = results[f"do({node}), diffusion causal model"], results[f"do({node}), {vae}"]
        assert ours["error to the truth"] != theirs["error to the truth"]
        for name in ("the factual itself", "error of the intensity that the structural causal model predicts"):
            assert ours[name] == theirs[name]
