# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import socket

import pytest
import torch
from safetensors.torch import load_file

from .helpers import run_script, start_script, to_argv


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_two_processes_equal_one(image_folder, cache_dir, model_configs, tmp_path, streaming):
    # Adam with an epsilon that dwarfs the gradients is plain momentum: weights differ as the gradients do, where the
    # usual epsilon would blow a rounding error in a small gradient up to a full step.
    flags = {
        "train_data_dir": image_folder,
        "cache_dir": cache_dir,
        "model_config_name_or_path": model_configs["unet"],
        "gradient_accumulation_steps": 2,
        "max_train_steps": 4,
        "learning_rate": 100,
        "adam_epsilon": 1000,
        "lr_warmup_steps": 3,
        "use_ema": True,
        "checkpointing_steps": 1,
        "validation_grid_size": 1,
        "validation_inference_steps": 2,
        "report_to": "none",
        **({"streaming": True} if streaming else {}),
    }
    run_script("train_diffusion", to_argv({**flags, "train_batch_size": 8, "output_dir": tmp_path / "one"}))

    argv = to_argv({**flags, "train_batch_size": 4, "output_dir": tmp_path / "two"})
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    ranks = [start_script("train_diffusion", argv, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    for rank in ranks:
        rank.join(timeout=100)
    assert [rank.exitcode for rank in ranks] == [0, 0]

    for weights in ("model.safetensors", "ema.safetensors"):
        one, two = (load_file(tmp_path / run / "checkpoint-4" / weights) for run in ("one", "two"))
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    # That says nothing unless training moves the weights by far more than the tolerance.
    first, last = (load_file(tmp_path / "one" / f"checkpoint-{step}" / "model.safetensors") for step in (1, 4))
    assert max((last[name] - first[name]).abs().max() for name in first) > 1e-2
