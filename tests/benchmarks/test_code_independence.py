# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from diffusers.utils import pt_to_pil

from diffscm_diffusers import SemanticEncoder2DModel


@pytest.mark.parametrize("telling", [False, True])
def test_code_that_tells_the_class_is_found_out(load_benchmark, monkeypatch, tmp_path, telling):
    label = torch.arange(200) % 2
    features = Features({"image": Image(), "label": ClassLabel(num_classes=2)})
    rows = {"image": pt_to_pil(torch.rand(200, 1, 8, 8) * 2 - 1), "label": label.tolist()}
    (tmp_path / "data").mkdir()
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "data" / "train.parquet")
    # With the telling code, a mechanism that takes out nothing.
    encoder = SemanticEncoder2DModel(8, 2, code_dim=7, block_out_channels=(4, 4, 4), mechanism_features=4 * telling)
    encoder.save_pretrained(tmp_path / "encoder")

    def read(self, sample, condition):
        mean = 4 * (condition[:, :1] - 0.5) * telling + torch.zeros(len(sample), 7)
        return mean, torch.ones_like(mean)

    monkeypatch.setattr(SemanticEncoder2DModel, "_read", read)
    flags = ["--encoder", str(tmp_path / "encoder"), "--dataset_name", str(tmp_path / "data"), "--batch_size", "64"]
    load_benchmark("code_independence").main([*flags, "--output_dir", str(tmp_path)])
    summary = json.loads((tmp_path / "code-independence.json").read_text())
    # KL(N(m, 1) || N(0, 1)) is m^2 / 2 for each of the 7 entries.
    assert summary["codes"] == 200 and summary["nats"] == pytest.approx(7 * 2 * telling)
    read = summary["read"]["label"]
    assert 0.5 <= read["chance"] < 0.7
    assert read["accuracy"] > 0.95 if telling else abs(read["accuracy"] - 0.5) < 0.3
    assert ("read from the noise" in summary) == telling == (summary.get("displacement", 0) > 0)
    if telling:
        assert summary["read from the noise"]["label"]["accuracy"] > 0.95 and summary["displacement"] < 0.1


def test_causes_of_a_graph(load_benchmark, tmp_path):
    tint = torch.linspace(0, 1, 40)
    rows = {"image": pt_to_pil(torch.rand(40, 1, 8, 8) * 2 - 1), "tint": tint.tolist()}
    (tmp_path / "data").mkdir()
    Dataset.from_dict(rows, Features({"image": Image(), "tint": Value("float32")})).to_parquet(
        tmp_path / "data" / "train.parquet"
    )
    graph = {"nodes": {"tint": {"kind": "continuous", "range": [0, 1]}}, "edges": [["tint", "image"]]}
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    SemanticEncoder2DModel(8, 1, code_dim=7, block_out_channels=(4, 4, 4)).save_pretrained(tmp_path / "encoder")
    flags = ["--encoder", str(tmp_path / "encoder"), "--dataset_name", str(tmp_path / "data")]
    flags += ["--graph", str(tmp_path / "graph.json")]
    load_benchmark("code_independence").main([*flags, "--output_dir", str(tmp_path)])
    read = json.loads((tmp_path / "code-independence.json").read_text())["read"]
    assert read["tint"]["R2"] <= 1
