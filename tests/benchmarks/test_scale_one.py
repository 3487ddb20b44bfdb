# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

from diffscm_diffusers import DiffSCMCounterfactualPipeline


ROOT = Path(__file__).resolve().parents[2]


def test_each_way_is_under_the_factuals_class_at_scale_one(load_benchmark, tmp_path, monkeypatch):
    scale_one = load_benchmark("scale_one")
    names = [str(digit) for digit in range(10)]
    rows = {"image": [str(ROOT / "examples" / "digits" / f"{digit}.png") for digit in names], "label": list(range(10))}
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    (tmp_path / "data").mkdir()
    Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "data" / "test.parquet"))
    calls, call = [], DiffSCMCounterfactualPipeline.__call__

    def record(self, image, intervention, **arguments):
        calls.append((intervention, arguments))
        return call(self, image, intervention, **arguments)

    monkeypatch.setattr(DiffSCMCounterfactualPipeline, "__call__", record)
    checkpoint, metrics = str(ROOT / "checkpoints" / "diffscm-mnist"), str(ROOT / "checkpoints/diffscm-mnist-metrics")
    argv = ["--pretrained_model_name_or_path", checkpoint, "--metric_models", metrics, "--num_inference_steps", "2"]
    scale_one.main([*argv, "--dataset_name", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")])

    results = json.loads((tmp_path / "out" / "scale_one.json").read_text())[checkpoint]
    assert list(results) == list(scale_one.WAYS) and len(calls) == 2
    for (intervention, arguments), (abduction, num_draws) in zip(calls, scale_one.WAYS.values(), strict=True):
        assert (intervention != arguments["factual_class"]).all() and arguments["guidance_scale"] == 1
        assert (arguments["abduction"], arguments["num_draws"]) == (abduction, num_draws)
        assert torch.equal(arguments["factual_class"].sort().values, torch.arange(10))
    # A draw has the noise's law sooner than a clean image.
    spread = {way: abs(result["std of the noise"] - 1) for way, result in results.items()}
    assert spread["source, one draw"] < spread["destination, from the clean image"]
    assert all(
        result["target seen"] == pytest.approx(round(10 * result["target seen"]) / 10) for result in results.values()
    )
