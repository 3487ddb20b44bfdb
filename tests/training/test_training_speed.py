# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import importlib.util
import json

from tests.helpers import TRAIN_SCRIPTS


def test_speed_of_both_loops_is_measured(model_configs, tmp_path):
    path = TRAIN_SCRIPTS.parent / "benchmarks" / "training_speed.py"
    spec = importlib.util.spec_from_file_location("training_speed", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    flags = ["--synthetic", "--num_images", "5", "--train_batch_size", "2", "--steps", "1", "--repeats", "2"]
    benchmark.main([*flags, "--model_config", str(model_configs["unet"]), "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    for clock in ("elapsed", "processor"):
        seconds = results[clock]["seconds_per_step"]
        assert seconds.keys() == {"example", "ours"}
        for summary in (*seconds.values(), results[clock]["speedup"]):
            assert 0 < summary["min"] <= summary["median"] <= summary["max"]
