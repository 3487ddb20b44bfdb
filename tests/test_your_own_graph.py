# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The page "Your own graph and table" from its first block to its last, on a folder of small images."""

import json
import re
import shlex

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline

from .helpers import load_script
from .hub.conftest import ROOT


TINY = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [4],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*less probable")
def test_page_runs_from_a_folder_to_a_counterfactual(tmp_path, monkeypatch):
    generator, count = np.random.default_rng(0), 24
    age = generator.uniform(20, 300, count)
    height = np.clip(10 + age / 10 + generator.normal(0, 2, count), 1, 50)
    names = [f"{i:04d}.png" for i in range(count)]
    table = {"file_name": names, "species": ["oak", "beech", "birch"] * (count // 3), "age": age, "height": height}
    (tmp_path / "trees").mkdir()
    for name, level in zip(names, height, strict=True):
        pixels = generator.integers(0, 100, (12, 12)) + 3 * level
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "trees" / name)
    pd.DataFrame(table).to_csv(tmp_path / "trees" / "metadata.csv", index=False)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    fewer = {
        "train_scm": ["--max_train_steps", "5"],
        "train_diffusion": [
            *("--max_train_steps", "2", "--lr_warmup_steps", "1", "--train_batch_size", "4", "--report_to", "none"),
            *("--model_config_name_or_path", "tiny.json", "--validation_inference_steps", "2", "--cache_dir", "cache"),
        ],
    }
    page = (ROOT / "docs" / "your_own_graph.md").read_text()
    ran, variables = [], {}
    for kind, block in re.findall(r"^```(py|bash)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if kind == "py":
            exec(block, variables)
            continue
        for command in block.replace("\\\n", " ").strip().splitlines():
            script, *flags = shlex.split(command.split("train_scripts/", 1)[1])
            ran.append(script.removesuffix(".py"))
            load_script(ran[-1]).main([*flags, *fewer[ran[-1]]])
    assert ran == ["train_scm", "train_diffusion"]
    output = variables["output"]
    assert output.images[0].size == (8, 8) and (tmp_path / "older.png").exists()
    assert output.counterfactual_attributes["age"].item() == 120
    assert output.counterfactual_attributes["height"].item() > output.attributes["height"].item()
    assert DiffSCMGraphCounterfactualPipeline.from_pretrained(tmp_path / "outputs" / "trees").scm.graph.image_parents
