# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import PIL.Image


def test_growth_is_measured_and_drawn(load_benchmark, checkpoint, tmp_path):
    flags = ["--batch_sizes", "1", "2", "--steps", "2", "3", "--resolutions", "8", "16", "--num_targets", "1", "2"]
    flags += ["--num_classes", "3", "5", "--num_inference_steps", "2", "--repeats", "1"]
    figure = tmp_path / "images" / "scaling.png"
    load_benchmark("scaling").main(
        [*flags, "--checkpoint", str(checkpoint), "--output_dir", str(tmp_path), "--figure", str(figure)]
    )
    seconds = json.loads((tmp_path / "results.json").read_text())["processor_seconds"]
    measured = {name: list(values) for name, values in seconds.items()}
    assert measured == {
        "batch": ["1", "2"],
        "steps": ["2", "3"],
        "resolution": ["8", "16"],
        "targets": ["1", "2"],
        "targets, each with its own abduction": ["1", "2"],
        "classes": ["3", "5"],
    }
    assert all(value > 0 for values in seconds.values() for repeats in values.values() for value in repeats)
    with PIL.Image.open(figure) as image:
        assert image.width > image.height
