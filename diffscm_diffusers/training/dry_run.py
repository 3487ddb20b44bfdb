# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What a training run would be, printed instead of done."""

import json

from accelerate import Accelerator
from accelerate.utils import DistributedType
from datasets import Dataset, IterableDataset
from diffusers import ModelMixin

from diffscm_diffusers.data.images import ImageCollator

from .arguments import TrainingArguments
from .trainer import check_run


def estimate_memory(
    num_parameters: int, mixed_precision: str, use_ema: bool, num_processes: int, is_sharded: bool
) -> dict[str, int]:
    """
    Returns the bytes that one process holds for the weights and what belongs to each of them.

    Activations, the data, the libraries' workspaces and, where weights are sharded, the layers that are gathered at
    the moment are not among them.

    Args:
        num_parameters (`int`): Number of weights, all trained.
        mixed_precision (`str`): `"no"`, `"fp16"` or `"bf16"`.
        use_ema (`bool`): Whether there is a moving average.
        num_processes (`int`): Number of processes.
        is_sharded (`bool`): Whether each process holds its share alone.
    """
    memory = {"weights": 4, "gradients": 4, "Adam's two moments": 8}
    if use_ema:
        memory["moving average"] = 4
    if mixed_precision != "no":
        memory[f"weights cast to {mixed_precision}"] = 2
    if num_processes > 1 and not is_sharded:
        memory["gradients in communication buckets"] = 4
    shard = -(-num_parameters // num_processes) if is_sharded else num_parameters
    return {name: size * shard for name, size in memory.items()}


def print_dry_run(
    flags: dict,
    accelerator: Accelerator,
    model: ModelMixin,
    dataset: Dataset | IterableDataset,
    training_args: TrainingArguments,
    collate: ImageCollator,
):
    """
    Prints a script's flags, the model's configuration and size, an estimate of memory, and the first batch's shape.

    Raises:
        ValueError: if the steps, the batch size and the data do not fit together.
    """
    num_processes = accelerator.num_processes
    check_run(training_args, num_processes, dataset, model)
    is_sharded = accelerator.distributed_type == DistributedType.FSDP
    batch_size, num_batches = training_args.train_batch_size, training_args.gradient_accumulation_steps
    batch = collate(list(dataset.take(batch_size)))
    attributes = batch.pop("attributes", {})
    batch |= {f"attributes[{name!r}]": values for name, values in attributes.items()}
    memory = estimate_memory(
        model.num_parameters(), accelerator.mixed_precision, training_args.use_ema, num_processes, is_sharded
    )
    lines = [
        "Arguments: " + json.dumps(flags, indent=2, sort_keys=True, default=str),
        f"Model: {type(model).__name__} " + json.dumps(dict(model.config), indent=2, default=str),
        f"Processes: {num_processes} ({accelerator.distributed_type.value}), on {accelerator.device.type}, mixed "
        f"precision {accelerator.mixed_precision}",
        f"Images in an optimizer step: {batch_size} x {num_processes} processes x {num_batches} accumulated = "
        f"{batch_size * num_processes * num_batches}",
        "Parameters:",
        *(f"  {name}: {sum(p.numel() for p in part.parameters()):,}" for name, part in model.named_children()),
        f"  all: {model.num_parameters():,}",
        "Memory of a process, in MiB:",
        *(f"  {name}: {size / 2**20:,.1f}" for name, size in memory.items()),
        f"  together: {sum(memory.values()) / 2**20:,.1f}",
        "  not counted: activations, which grow with the batch, the data, the libraries' workspaces"
        + (", the layers gathered at the moment" if is_sharded else ""),
        "First batch of a process:",
        *(f"  {name}: {tuple(value.shape)}, {value.dtype}" for name, value in batch.items()),
    ]
    accelerator.print("\n".join(lines))
