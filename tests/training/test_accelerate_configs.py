# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from types import SimpleNamespace

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env

from diffscm_diffusers.training import trainer
from diffscm_diffusers.training.arguments import TrainingArguments
from tests.helpers import TRAIN_SCRIPTS


CONFIGS = {path.stem: path for path in (TRAIN_SCRIPTS / "configs" / "accelerate").iterdir()}


@pytest.mark.parametrize(
    ("name", "distributed_type", "num_processes", "num_machines", "mixed_precision"),
    [
        ("one_gpu", "NO", 1, 1, "fp16"),
        ("several_gpus_fp16", "MULTI_GPU", 8, 1, "fp16"),
        ("several_gpus_fsdp", "FSDP", 8, 1, "bf16"),
        ("several_machines_fp16", "MULTI_GPU", 16, 2, "fp16"),
    ],
)
def test_configuration_is_read_by_accelerate(name, distributed_type, num_processes, num_machines, mixed_precision):
    config = load_config_from_file(str(CONFIGS[name]))
    assert config.distributed_type == distributed_type
    assert (config.num_processes, config.num_machines) == (num_processes, num_machines)
    assert config.mixed_precision == mixed_precision


def test_every_configuration_is_tested():
    assert set(CONFIGS) == {"one_gpu", "several_gpus_fp16", "several_gpus_fsdp", "several_machines_fp16"}


def test_launching_with_fsdp_asks_for_its_second_version(monkeypatch):
    args = launch_command_parser().parse_args(["--config_file", str(CONFIGS["several_gpus_fsdp"]), "script.py"])
    args, _, _ = _validate_launch_command(args)
    for name, value in prepare_multi_gpu_env(args).items():
        if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP")):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.transformer_cls_names_to_wrap == ["ResnetBlock2D"]


@pytest.mark.parametrize(("distributed_type", "is_fsdp2"), [("DEEPSPEED", False), ("FSDP", False)])
def test_sharding_without_a_float32_average_is_refused(monkeypatch, tmp_path, distributed_type, is_fsdp2):
    accelerator = SimpleNamespace(distributed_type=distributed_type, is_fsdp2=is_fsdp2)
    monkeypatch.setattr(trainer, "Accelerator", lambda **kwargs: accelerator)
    with pytest.raises(ValueError, match="expects FSDP of version 2, .* got version 1 or DeepSpeed"):
        trainer.create_accelerator(TrainingArguments(output_dir=tmp_path))
