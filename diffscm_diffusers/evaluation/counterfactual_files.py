# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Counterfactuals on disk, in chunks that are written whole or not at all."""

import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from diffscm_diffusers.files import UNFINISHED_PREFIX, written_whole


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


def hash_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """The SHA-256 of tensors' values, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_chunk(folder: Path, chunk: range, counterfactual: torch.Tensor, seconds: float, **others: torch.Tensor):
    """
    Writes the counterfactuals of consecutive pairs.

    Args:
        folder (`Path`): One method's folder.
        chunk (`range`): The pairs' numbers.
        counterfactual (`torch.Tensor` of shape `(len(chunk), channels, height, width)`): Float32 in [0, 1].
        seconds (`float`): How long they took together.
        others (`torch.Tensor`, *optional*): What else belongs to them, with the same first axis.
    """
    per_counterfactual = torch.full((len(chunk),), seconds / len(chunk))
    tensors = {"counterfactual": counterfactual, **others}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()} | {"seconds": per_counterfactual}
    with written_whole(folder / f"{chunk.start:05d}-{chunk.stop - 1:05d}.safetensors") as path:
        save_file(tensors, path, metadata={"sha256": hash_tensors(tensors)})


def read_chunks(
    folder: str | Path, num_pairs: int | None = None, others: tuple[str, ...] = (), first: int = 0
) -> tuple:
    """
    Reads one method's counterfactuals, in the order of the pairs.

    Args:
        folder (`str` or `Path`): `counterfactuals/<method>` in the output folder of `diffscm evaluate`.
        num_pairs (`int`, *optional*): Up to which number to read. Default: all that are there.
        others (`tuple[str]`, *optional*): Names of what else belongs to them.
        first (`int`, *optional*, defaults to 0): The first number to read. Chunks before it are not opened.

    Returns:
        `tuple`: counterfactuals, float32 in [0, 1], `(num_pairs - first, channels, height, width)`, the seconds that
        each of them took, `(num_pairs - first,)`, and `others`, `None` where they are not there.

    Raises:
        ValueError: if some of them are missing, or if a file is damaged.
    """
    chunks = list_chunks(Path(folder))
    if num_pairs is None:
        num_pairs = max((chunk.stop for chunk in chunks), default=0)
    chunks = {chunk: path for chunk, path in chunks.items() if chunk.start < num_pairs and chunk.stop > first}
    if num_pairs == 0 or any(chunk.stop > first for chunk in missing_chunks(Path(folder), num_pairs, num_pairs)):
        raise ValueError(
            f"{str(folder)!r} does not hold all counterfactuals of {num_pairs} pairs: generate them first."
        )
    files = []
    for path in chunks.values():
        try:
            with safe_open(path, "pt") as file:
                files.append({name: file.get_tensor(name) for name in file.keys()})
                expected = (file.metadata() or {}).get("sha256")
            if expected not in (None, hash_tensors(files[-1])):
                raise ValueError("Its values are not those that were written.")
        except (SafetensorError, ValueError) as error:
            raise ValueError(
                f"{str(path)!r} is damaged: delete it and run again what wrote it, which makes it anew. {error}"
            ) from error
    start = next(iter(chunks)).start
    return tuple(
        torch.cat([file[name] for file in files])[first - start : num_pairs - start] if name in files[0] else None
        for name in ("counterfactual", "seconds", *others)
    )


def record_settings(folder: Path, settings: dict):
    """
    Writes down what a folder's counterfactuals are made with, so that they are never mixed with others. Settings of a
    run that finished no counterfactual are written over: its flags may have been wrong.

    Args:
        folder (`Path`): One method's folder, or a whole data set's, with its counterfactuals at any depth.
        settings (`dict`): JSON-serialisable.

    Raises:
        ValueError: if the folder holds counterfactuals and was begun with other settings, of which it names the
            difference, or with settings that cannot be read.
    """
    path = folder / "settings.json"
    finished = any(
        not file.name.startswith(UNFINISHED_PREFIX)
        for pattern in ("*.safetensors", "*.parquet")
        for file in folder.rglob(pattern)
    )
    recorded = None
    if path.exists():
        try:
            recorded = json.loads(path.read_text())
        except ValueError as error:
            if finished:
                raise ValueError(
                    f"{str(path)!r} is damaged. If the counterfactuals beside it were made with the settings of this "
                    f"run, delete it and run again; otherwise take another `--output_dir`. {error}"
                ) from error
    if recorded is not None:
        differences = [
            f"`{name}` {recorded.get(name)!r} there and {settings.get(name)!r} here"
            for name in {**recorded, **settings}
            if recorded.get(name) != settings.get(name)
        ]
        if not differences:
            return
        if finished:
            raise ValueError(
                f"{str(folder)!r} holds counterfactuals that were made with other settings: {', '.join(differences)}. "
                "Take another `--output_dir`."
            )
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(settings, indent=2) + "\n")
