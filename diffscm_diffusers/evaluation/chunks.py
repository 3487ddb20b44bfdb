# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Counterfactuals on disk, in chunks that are written whole or not at all."""

import json
import os
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffscm_diffusers.training.checkpoints import UNFINISHED_PREFIX


def list_chunks(folder: Path) -> dict[range, Path]:
    """Returns the complete chunks in a folder by the numbers of their pairs, in order."""
    matches = [re.fullmatch(r"(\d+)-(\d+)\.safetensors", path.name) for path in folder.glob("*.safetensors")]
    bounds = sorted((int(match[1]), int(match[2]), match[0]) for match in matches if match)
    return {range(first, last + 1): folder / name for first, last, name in bounds}


def missing_chunks(folder: Path, num_pairs: int, batch_size: int) -> list[range]:
    """Returns the numbers of the first `num_pairs` pairs that no chunk holds, in chunks of at most `batch_size`."""
    done = {index for chunk in list_chunks(folder) for index in chunk}
    missing = []
    for index in range(num_pairs):
        if index in done:
            continue
        if missing and index == missing[-1].stop and index % batch_size != 0:
            missing[-1] = range(missing[-1].start, index + 1)
        else:
            missing.append(range(index, index + 1))
    return missing


def write_chunk(folder: Path, chunk: range, counterfactual: torch.Tensor, seconds: float):
    """
    Writes the counterfactuals of consecutive pairs.

    Args:
        folder (`Path`): One method's folder.
        chunk (`range`): The pairs' numbers.
        counterfactual (`torch.Tensor` of shape `(len(chunk), channels, height, width)`): Float32 in [0, 1].
        seconds (`float`): How long they took together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{chunk.start:05d}-{chunk.stop - 1:05d}.safetensors"
    unfinished = path.with_name(UNFINISHED_PREFIX + path.name)
    per_counterfactual = torch.full((len(chunk),), seconds / len(chunk))
    save_file({"counterfactual": counterfactual.cpu().contiguous(), "seconds": per_counterfactual}, unfinished)
    os.replace(unfinished, path)


def read_chunks(folder: str | Path, num_pairs: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Reads one method's counterfactuals, in the order of the pairs.

    Args:
        folder (`str` or `Path`): `counterfactuals/<method>` in the output folder of `evaluate.py`.
        num_pairs (`int`, *optional*): How many to read. Default: all that are there.

    Returns:
        `tuple`: counterfactuals, float32 in [0, 1], `(num_pairs, channels, height, width)`, and the seconds that each
        of them took, `(num_pairs,)`.

    Raises:
        ValueError: if some of them are missing.
    """
    chunks = list_chunks(Path(folder))
    if num_pairs is None:
        num_pairs = max((chunk.stop for chunk in chunks), default=0)
    chunks = {chunk: path for chunk, path in chunks.items() if chunk.start < num_pairs}
    if num_pairs == 0 or missing_chunks(Path(folder), num_pairs, num_pairs):
        raise ValueError(
            f"{str(folder)!r} does not hold all counterfactuals of {num_pairs} pairs: generate them first."
        )
    files = [load_file(path) for path in chunks.values()]
    counterfactual, seconds = (torch.cat([file[name] for file in files]) for name in ("counterfactual", "seconds"))
    return counterfactual[:num_pairs], seconds[:num_pairs]


def record_settings(folder: Path, settings: dict):
    """
    Writes down what a folder's counterfactuals are made with, so that they are never mixed with others.

    Args:
        folder (`Path`): One method's folder.
        settings (`dict`): JSON-serialisable.

    Raises:
        ValueError: if the folder has been begun with other settings; it names the difference.
    """
    path = folder / "settings.json"
    if path.exists():
        recorded = json.loads(path.read_text())
        differences = [
            f"`{name}` {recorded.get(name)!r} there and {settings.get(name)!r} here"
            for name in {**recorded, **settings}
            if recorded.get(name) != settings.get(name)
        ]
        if differences:
            raise ValueError(
                f"{str(folder)!r} holds counterfactuals that were made with other settings: {', '.join(differences)}. "
                "Take another `--output_dir`."
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(UNFINISHED_PREFIX + path.name)
        unfinished.write_text(json.dumps(settings, indent=2) + "\n")
        os.replace(unfinished, path)
