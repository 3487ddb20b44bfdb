# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest

from diffscm_diffusers.training.dry_run import estimate_memory
from tests.helpers import load_script, to_argv


@pytest.fixture
def dry_flags(flags, tmp_path):
    return {**flags, "output_dir": tmp_path / "output", "report_to": "tensorboard", "dry_run": True}


def test_memory_by_what_is_held_for_each_weight():
    memory = estimate_memory(1000, "no", use_ema=True, num_processes=1, is_sharded=False)
    assert sum(memory.values()) == 20 * 1000
    assert sum(estimate_memory(1000, "no", False, 1, False).values()) == 16 * 1000
    assert sum(estimate_memory(1000, "fp16", True, 1, False).values()) == 22 * 1000
    assert sum(estimate_memory(1000, "no", True, 2, False).values()) == 24 * 1000
    # A process holds its share, rounded up.
    assert sum(estimate_memory(1001, "no", True, 2, True).values()) == 20 * 501


@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_dry_run_of_the_denoiser_prints_and_writes_nothing(dry_flags, capsys, streaming):
    flags = {**dry_flags, "push_to_hub": True, "use_ema": True, **({"streaming": True} if streaming else {})}
    load_script("train_diffusion").main(to_argv(flags))
    output = capsys.readouterr().out
    assert '"max_train_steps": 2' in output and '"sample_size": 8' in output
    assert "pixel_values: (4, 1, 8, 8), torch.float32" in output
    assert "moving average" in output and "not counted: activations" in output
    assert "labels" not in output
    assert not flags["output_dir"].exists()


def test_dry_run_of_the_classifier_shows_labels(dry_flags, model_configs, capsys):
    denoiser_only = ("validation_grid_size", "validation_inference_steps")
    flags = {name: value for name, value in dry_flags.items() if name not in denoiser_only}
    flags["model_config_name_or_path"] = model_configs["classifier_dropout"]
    load_script("train_classifier").main(to_argv(flags))
    output = capsys.readouterr().out
    assert "labels: (4,), torch.int64" in output
    assert '"num_classes": 2' in output
    assert not flags["output_dir"].exists()


def test_dry_run_finds_what_the_run_would_refuse(dry_flags):
    with pytest.raises(ValueError, match="`train_batch_size` 31 .* got one of 30"):
        load_script("train_diffusion").main(to_argv({**dry_flags, "train_batch_size": 31}))
