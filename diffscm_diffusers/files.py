# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from .checksums import CHECKSUMS_NAME, check_weights, write_weights_checksums
from .finite import check_finite


if TYPE_CHECKING:
    from diffusers import ModelMixin  # which takes long to import


# The file in an output folder by which one run keeps others out.
LOCK_NAME = ".lock"
# What a file or folder is called until it is complete.
UNFINISHED_PREFIX = "unfinished-"


def _remove(path: Path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """
    Gives a file or a folder its name only once it is complete: whoever finds `path` finds all of it.

    ```py
    with written_whole("outputs/summary.json") as unfinished:
        unfinished.write_text("{}")
    ```

    Args:
        path (`str` or `Path`):
            The file or folder to write. Its parent folders are made. An older file is replaced; a folder has to be
            new or empty.

    Returns:
        `Iterator[Path]`: a path beside `path`, where nothing is yet, for the block to write a file or a folder to. It
        is renamed to `path` when the block ends, and removed when the block raises.

    Raises:
        OSError: if it cannot be renamed, for example over a folder with files in it.
    """
    path = Path(path)
    unfinished = path.with_name(UNFINISHED_PREFIX + path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(unfinished)  # a killed process may have left it
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)


@contextmanager
def locked(folder: str | Path, is_new: bool = False) -> Iterator[None]:
    """
    Keeps an output folder for one run: a second one that would write there at the same time is refused. The lock is
    the operating system's (`flock`), so a run that is killed leaves none behind.

    Args:
        folder (`str` or `Path`): The output folder. It is made if there is none, and the lock is a file in it.
        is_new (`bool`, *optional*, defaults to `False`):
            Whether the folder is still to be made, by [`written_whole`]. The lock is then a file beside it, which is
            removed in the end.

    Raises:
        OSError: if another run holds the folder, or if it cannot be one.
    """
    folder = Path(folder).absolute()
    file = next((path for path in (folder, *folder.parents) if path.is_file()), None)
    if file is not None:
        raise NotADirectoryError(f"`output_dir` expects a folder, got {str(folder)!r}: {str(file)!r} is a file.")
    path = folder.with_name(f".{folder.name}{LOCK_NAME}") if is_new else folder / LOCK_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=0)
    except Timeout as error:
        raise OSError(
            f"{str(folder)!r} is being written by another run. Wait until it has ended, or take another folder."
        ) from error
    with lock:
        try:
            yield
        finally:
            if is_new:
                path.unlink()


def save_whole(component, folder: str | Path):
    """
    Saves a model or a pipeline into a folder that may hold other files too. Each of its files is complete before it
    gets its name, and the one that makes the folder a model's or pipeline's, `config.json` or `model_index.json`,
    comes last: a folder that an older save's and a new one's files are mixed in cannot be loaded. Beside the weights
    are their checksums, which [`load_whole`] compares.

    Args:
        component (`ModelMixin` or `DiffusionPipeline`): What to save, by its `save_pretrained`.
        folder (`str` or `Path`): Where to. It is made if there is none; files of an older save are replaced.

    Raises:
        ValueError: if there is NaN or infinity among the weights. Nothing is written then.
    """
    check_finite(component, "component")
    folder = Path(folder)
    unfinished = folder / f"{UNFINISHED_PREFIX}model"
    _remove(unfinished)
    component.save_pretrained(unfinished)
    write_weights_checksums(component, unfinished)
    index = unfinished / component.config_name
    (folder / index.name).unlink(missing_ok=True)
    files = [path for path in sorted(unfinished.rglob("*")) if path.is_file() and path != index]
    for path in [*files, index]:
        target = folder / path.relative_to(unfinished)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent != folder:
            (target.parent / CHECKSUMS_NAME).unlink(missing_ok=True)  # of a network that was saved there alone
        os.replace(path, target)
    _remove(unfinished)


def load_whole(model_class: "type[ModelMixin]", name_or_path: str | Path, subfolder: str | None = None, **kwargs):
    """
    Loads a model, and compares its weights with their checksums, where [`save_whole`] or a pipeline has written some.
    Weights in pickles are not loaded.

    Args:
        model_class (`type`): A `ModelMixin`.
        name_or_path (`str` or `Path`): A folder, or a name on the Hub, whose client compares what it downloads.
        subfolder (`str`, *optional*): The model's folder in it.
        kwargs: Further arguments of its `from_pretrained`.

    Raises:
        ValueError: as [`check_weights`].
        OSError: if there is no such model, or a file of it is missing or torn.
    """
    model = model_class.from_pretrained(name_or_path, subfolder=subfolder, use_safetensors=True, **kwargs)
    check_weights(Path(name_or_path, subfolder or ""))
    return model
