# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pandas as pd
import PIL.Image
from datasets import Dataset, DatasetDict


def test_every_method_is_measured_once(load_benchmark, checkpoint, tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    data = Dataset.from_dict({"image": [PIL.Image.fromarray(image) for image in images]})
    benchmark = load_benchmark("round_trip")
    monkeypatch.setattr(benchmark, "load_dataset", lambda name, split: DatasetDict({split: data})[split])
    flags = [
        "--checkpoint",
        str(checkpoint),
        "--num_samples",
        "3",
        "--max_iterations",
        "10",
        "--output_dir",
        str(tmp_path),
    ]
    for steps in (["4"], ["4", "6"]):  # the second run adds to the first
        benchmark.main([*flags, "--num_inference_steps", *steps])

    table = pd.read_csv(tmp_path / "round_trip.csv").set_index(["method", "steps"])
    assert len(table) == 10 and (table.images == 3).all()
    assert table.mean_absolute_error["belm", 6] < 1e-5 < table.mean_absolute_error["source", 6]
    assert table.evaluations_up["belm", 6] == 6 < table.evaluations_up["implicit", 6]
    assert table.mean_absolute_error["implicit_quadratic", 6] != table.mean_absolute_error["implicit", 6]
