# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Checksums beside what was saved, by which damage is found that a file's format does not show: of training checkpoints,
and of the weights of models and pipelines. They guard against accidents; whoever changes a file can change its
checksum.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

CHECKSUMS_NAME = "checksums.json"


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, read a mebibyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_checksums(folder: Path, paths: dict[str, Path]):
    """Writes `checksums.json` into a folder: size and SHA-256 of files, by what they are called in that folder."""
    checksums = {
        name: {"size": path.stat().st_size, "sha256": hash_file(path)} for name, path in sorted(paths.items())
    }
    (folder / CHECKSUMS_NAME).write_text(json.dumps(checksums, indent=2) + "\n")


def read_checksums(folder: Path) -> dict[str, dict]:
    """
    Reads what [`write_checksums`] wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    path = folder / CHECKSUMS_NAME
    try:
        checksums = json.loads(path.read_text())
        return {name: {key: entry[key] for key in ("size", "sha256")} for name, entry in checksums.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is no JSON of checksums") from error


def find_change(folder: Path, checksums: dict[str, dict]) -> str | None:
    """Says which file is not what was written, and in what way. `None` if all of them are."""
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file():
            return f"{str(path)!r} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{str(path)!r} has {path.stat().st_size} bytes instead of {expected['size']}"
        if hash_file(path) != expected["sha256"]:
            return f"{str(path)!r} has other bytes than were written"
    return None


def write_weights_checksums(component: "ModelMixin | DiffusionPipeline", folder: str | Path):
    """Writes `checksums.json` for the weights of a model or a pipeline that was saved into a folder."""
    folder = Path(folder)
    from diffusers import DiffusionPipeline  # not above: it takes long to import

    parts = component.components if isinstance(component, DiffusionPipeline) else [""]
    weights = [path for part in parts for path in Path(folder, part).glob("*.safetensors")]
    paths = {path.relative_to(folder).as_posix(): path for path in weights}
    if paths:
        write_checksums(folder, paths)


def check_weights(folder: str | Path):
    """
    Compares the weights of a model with the checksums in its folder, or in those above it, where a pipeline or a
    collection of models has them. Where there are none, nothing is compared, and neither are files that are absent,
    such as another variant's.

    Args:
        folder (`str` or `Path`): The model's folder. Nothing is done if there is none.

    Raises:
        ValueError: if a file's bytes are not those that were saved. It is named, with what to do.
    """
    folder = Path(folder).absolute()
    for root in (folder, *folder.parents[:2]):
        if not (root / CHECKSUMS_NAME).is_file():
            continue
        damage = None
        try:
            checksums = {
                name: expected
                for name, expected in read_checksums(root).items()
                if (root / name).parent == folder and (root / name).is_file()
            }
            damage = find_change(root, checksums)
        except ValueError as error:
            damage = str(error)
        if damage is not None:
            raise ValueError(
                f"{damage}: it is damaged, or was replaced. Restore it, by downloading or saving all of {str(root)!r} "
                f"again; if you replaced it on purpose, remove {str(root / CHECKSUMS_NAME)!r}."
            )


def check_pipeline(pipeline: "DiffusionPipeline", options: dict):
    """
    Compares the weights of a pipeline that was just loaded with its `checksums.json`, if it has one.

    Args:
        pipeline ([`DiffusionPipeline`]): The pipeline, from a local folder or from the Hub.
        options (`dict`): The arguments of its `from_pretrained`. Components among them are not compared.

    Raises:
        ValueError: as [`check_weights`].
    """
    from diffusers import ModelMixin

    for name, component in pipeline.components.items():
        if name in options or not isinstance(component, ModelMixin):
            continue
        folder = Path(component.config._name_or_path)
        # Diffusers downloads what it knows of a repository. The folder is named by the commit.
        if folder.parents[1].name == "snapshots" and not (folder.parent / CHECKSUMS_NAME).is_file():
            repo_id = folder.parents[2].name.removeprefix("models--").replace("--", "/")
            hub = {key: options[key] for key in ("cache_dir", "token", "local_files_only") if key in options}
            try:
                hf_hub_download(repo_id, CHECKSUMS_NAME, revision=folder.parent.name, **hub)
            except EntryNotFoundError:  # a repository without, or none of it in the cache
                return
        check_weights(folder)
