# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import shutil

import PIL.Image
import pytest
import torch
from datasets import Dataset, Features, Image
from safetensors.torch import load_file

from tests.helpers import free_port, load_script, start_script, to_argv


def run_two_processes(argv: list[str], **environment: str):
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    shared |= environment
    ranks = [start_script("train_diffusion", argv, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    for rank in ranks:
        rank.join(timeout=100)
    assert [rank.exitcode for rank in ranks] == [0, 0]


@pytest.fixture
def flags(flags):
    return {**flags, "validation_grid_size": 1, "validation_inference_steps": 1}


@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_two_processes_equal_one(flags, tmp_path, streaming):
    # Adam with an epsilon that dwarfs the gradients is plain momentum: weights differ as the gradients do, where the
    # usual epsilon would blow a rounding error in a small gradient up to a full step.
    flags |= {
        "gradient_accumulation_steps": 2,
        "max_train_steps": 4,
        "learning_rate": 100,
        "adam_epsilon": 1000,
        "lr_warmup_steps": 3,
        "use_ema": True,
        **({"streaming": True} if streaming else {}),
    }
    one = {"train_batch_size": 8, "checkpointing_steps": 1, "output_dir": tmp_path / "one"}
    load_script("train_diffusion").main(to_argv({**flags, **one}))
    run_two_processes(to_argv({**flags, "train_batch_size": 4, "output_dir": tmp_path / "two"}))

    for weights in ("model.safetensors", "ema.safetensors"):
        one, two = (load_file(tmp_path / run / "checkpoint-4" / weights) for run in ("one", "two"))
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    # That says nothing unless training moves the weights by far more than the tolerance.
    first, last = (load_file(tmp_path / "one" / f"checkpoint-{step}" / "model.safetensors") for step in (1, 4))
    assert max((last[name] - first[name]).abs().max() for name in first) > 1e-2


def test_processes_with_uneven_shards_end_their_epochs_together_and_resume(flags, tmp_path):
    """Files of 9 and 20 images, one for each process: an epoch is two batches of four on both of them."""
    data = tmp_path / "data"
    data.mkdir()
    for i, count in enumerate((9, 20)):
        rows = {"image": [PIL.Image.new("L", (8, 8), 8 * shade) for shade in range(count)]}
        Dataset.from_dict(rows, Features({"image": Image()})).to_parquet(data / f"train-{i:05d}-of-00002.parquet")
    del flags["train_data_dir"]
    flags |= {
        "dataset_name": data,
        "streaming": True,
        "shuffle_buffer_size": 5,
        "max_train_steps": 5,
        "checkpointing_steps": 3,
    }
    run_two_processes(to_argv({**flags, "output_dir": tmp_path / "whole"}))
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    progress = json.loads((tmp_path / "resumed" / "checkpoint-3" / "progress.json").read_text())
    assert (progress["epoch"], progress["batch"]) == (1, 1)
    assert len(progress["stream"]["positions"]) == 2
    run_two_processes(to_argv({**flags, "output_dir": tmp_path / "resumed", "resume_from_checkpoint": "latest"}))
    whole, resumed = (load_file(tmp_path / run / "checkpoint-5" / "model.safetensors") for run in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="accelerate shards weights (FSDP) on two or more GPUs only")
def test_sharded_run_equals_one_process_and_resumes(flags, tmp_path):
    flags |= {
        "learning_rate": 100,
        "adam_epsilon": 1000,
        "lr_warmup_steps": 0,
        "use_ema": True,
        "checkpointing_steps": 2,
        "resume_from_checkpoint": "latest",
    }
    gpu = {"ACCELERATE_USE_CPU": "false"}
    one = start_script(
        "train_diffusion",
        to_argv({**flags, "train_batch_size": 8, "max_train_steps": 4, "output_dir": tmp_path / "one"}),
        CUDA_VISIBLE_DEVICES="0",
        **gpu,
    )
    one.join(timeout=100)
    assert one.exitcode == 0
    fsdp = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "ResnetBlock2D",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    }
    for steps in (2, 4):
        argv = to_argv({**flags, "train_batch_size": 4, "max_train_steps": steps, "output_dir": tmp_path / "sharded"})
        run_two_processes(argv, **gpu, **fsdp)
    for name in ("checkpoint-4/ema.safetensors", "unet/diffusion_pytorch_model.safetensors"):
        whole, sharded = (load_file(tmp_path / run / name) for run in ("one", "sharded"))
        assert whole.keys() == sharded.keys()
        for key in whole:
            torch.testing.assert_close(sharded[key], whole[key], rtol=1e-4, atol=1e-5)
