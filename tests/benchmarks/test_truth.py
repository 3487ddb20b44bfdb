# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json


def test_everything_is_measured(load_benchmark, tmp_path):
    flags = {"num_samples": 4, "num_references": 200, "judge_steps": 2, "num_inference_steps": 2}
    argv = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
    load_benchmark("truth").main([*argv, "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "truth.json").read_text())
    assert results["settings"]["num_samples"] == 4
    # With so few steps too, a counterfactual is nearer to the truth than the factual is.
    assert 0 < results["counterfactual"] < results["factual itself"] < 0.2
    assert results["exogenous noise of a draw"].keys() == {"mean", "std", "kurtosis"}
    assert 0 <= results["coverage of the 90 % interval, where draws or truth differ"] <= 1
