# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What defines a training run, and whether two runs are the same."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict

import torch
from datasets import IterableDataset
from diffusers import ModelMixin
from torch.utils.data import Dataset

from .arguments import TrainingArguments


# What may differ between a run and its resumption, as it leaves the weights at each step what they were (all but the
# order of sums). Everything else has to be the same, flags that a script adds included.
MAY_CHANGE = {
    # Where things are, and what is told on the way.
    "output_dir",
    "logging_dir",
    "cache_dir",
    "report_to",
    "logging_steps",
    "resume_from_checkpoint",
    "dry_run",
    "push_to_hub",
    "hub_model_id",
    # What is saved and measured, and when.
    "checkpointing_steps",
    "checkpoints_total_limit",
    "validation_steps",
    "validation_split",
    "validation_grid_size",
    "validation_inference_steps",
    "num_validation_images",
    "num_noise_levels",
    # How the same numbers are computed.
    "dataloader_num_workers",
    "cache_images",
    "gradient_checkpointing",
    "torch_compile",
    # Recorded below with the number of processes, and as accelerate understands it.
    "train_batch_size",
    "mixed_precision",
}
# Flags whose meaning is compared instead: the images, and the network's configuration.
SOURCES = {
    "data": (
        "dataset_name",
        "dataset_config_name",
        "train_data_dir",
        "train_split",
        "image_column",
        "label_column",
        "graph",
    ),
    "network": ("model_config_name_or_path", "resolution"),
}
# Schedules of the learning rate that do not depend on when the run ends.
ENDLESS_SCHEDULES = ("constant", "constant_with_warmup")


def fingerprint_data(
    dataset: Dataset | IterableDataset, collate: Callable[[list[dict]], dict[str, torch.Tensor]] | None
) -> str:
    """
    A short hash of what a network is shown: the number of images, and 100 of them, evenly spaced, with all that is
    told about them. Of a streamed data set, its first 100 images and its number of files.
    """
    if isinstance(dataset, IterableDataset):
        size, batches = dataset.num_shards, []
        for row in dataset.take(100):
            with contextlib.suppress(ValueError):  # a broken image, which is skipped or named where it is trained on
                batches.append(collate([row]))
    else:
        size = len(dataset)
        indices = sorted({index * size // 100 for index in range(100)})
        batch = dataset.__getitems__(indices)
        batches = [batch if collate is None else collate(batch)]
    digest = hashlib.sha256(str(size).encode())
    for name, value in (item for batch in batches for item in sorted(batch.items())):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def describe_run(
    training_args: TrainingArguments,
    flags: dict,
    model: ModelMixin,
    data: str,
    num_processes: int,
    mixed_precision: str,
    is_finished: bool = False,
) -> dict:
    """
    Describes a run, for the record beside its checkpoints and the networks that it completes.

    Args:
        training_args ([`TrainingArguments`]): The settings of the trainer.
        flags (`dict`): All flags of the script that may matter.
        model (`ModelMixin`): The network.
        data (`str`): From [`fingerprint_data`].
        num_processes (`int`): Number of processes.
        mixed_precision (`str`): As accelerate understands it.
        is_finished (`bool`, *optional*, defaults to `False`): Whether the record is that of a finished network.

    Returns:
        `dict`: JSON-serialisable.
    """
    settings = {**flags, **asdict(training_args)}
    sources = {part: {name: settings.get(name) for name in names} for part, names in SOURCES.items()}
    left_out = MAY_CHANGE.union(*SOURCES.values())
    if training_args.lr_scheduler in ENDLESS_SCHEDULES and not is_finished:
        left_out = left_out | {"max_train_steps"}
    record = {
        "settings": {
            **{name: value for name, value in settings.items() if name not in left_out},
            "train_batch_size times processes": training_args.train_batch_size * num_processes,
            "mixed_precision": mixed_precision,
        },
        "network": {name: value for name, value in model.config.items() if not name.startswith("_")},
        "data": {"fingerprint": data},
        "sources": sources,
    }
    return json.loads(json.dumps(record, sort_keys=True, default=str))


def find_differences(there: dict, here: dict) -> list[str]:
    """Names what differs between the records of two runs, with both values."""

    def compare(a: dict, b: dict, text: str) -> list[str]:
        return [
            text.format(name) + f" {a.get(name)!r} there and {b.get(name)!r} here"
            for name in sorted({*a, *b})
            if a.get(name) != b.get(name)
        ]

    differences = compare(there["settings"], here["settings"], "`{}`")
    for part, text in (("network", "the network's `{}`"), ("data", "the images' {}")):
        found = compare(there[part], here[part], text)
        if found:
            differences += compare(there["sources"][part], here["sources"][part], "`{}`") + found
    return differences
