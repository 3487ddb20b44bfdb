# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the sub-folders of a folder of images mean: splits, or classes."""

import os
from pathlib import Path

from datasets import DatasetDict, IterableDatasetDict
from huggingface_hub import metadata_load


# What a sub-folder is called that holds a split: the names that `datasets` knows.
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def _list_folders(folder: Path) -> list[Path]:
    # `datasets` leaves out what is hidden.
    return sorted(
        Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith((".", "__"))
    )


def find_splits(folder: str | Path, is_labelled: bool) -> dict:
    """
    Finds the splits of a folder of images. Its own sub-folders say what they are: either all are splits (`train`,
    `validation`, `test`, and what `datasets` knows beside these), or there is one split, `train`, and they are
    classes. Names of files and of folders deeper down mean nothing.

    Args:
        folder (`str` or `Path`): The folder.
        is_labelled (`bool`): Whether classes are wanted, from the names of the folders in a split.

    Returns:
        `dict`: `data_files` and `drop_labels` of `datasets.load_dataset("imagefolder", data_dir=folder)`.

    Raises:
        ValueError: if only some of the sub-folders are called as splits, if two are the same split, if a class has
            folders in it, or if the path has a character that `datasets` takes for a pattern.
    """
    folder = Path(folder)
    if set("*?[") & set(str(folder.resolve())):
        raise ValueError(
            "`train_data_dir` expects a path without *, ? and [, which `datasets` takes for patterns, got "
            f"{str(folder.resolve())!r}: rename what is called so."
        )
    names = [path.name for path in _list_folders(folder)]
    split_names = [name for name in names if name.lower() in SPLITS]
    others = [name for name in names if name not in split_names]
    if split_names and others:
        raise ValueError(
            f"`train_data_dir` expects sub-folders that are all splits or all classes, got {split_names}, which are "
            f"called as splits, beside {others[:10]}, in {str(folder)!r}. Move the classes into a folder 'train' in "
            "it, or the other folders elsewhere."
        )
    splits = {}
    for name in split_names:
        split = SPLITS[name.lower()]
        if split in splits:
            raise ValueError(
                f"`train_data_dir` expects one sub-folder per split, got {splits[split]!r} and {name!r} for the split "
                f"{split!r} in {str(folder)!r}."
            )
        splits[split] = name
    roots = [folder / name for name in split_names] or [folder]
    classes = [path for root in roots for path in _list_folders(root)]
    nested = [inner for path in classes for inner in _list_folders(path)] if is_labelled else []
    if nested:
        raise ValueError(
            "`train_data_dir` expects a sub-folder per class with images and no folders in it, got "
            f"{str(nested[0].relative_to(folder))!r} in {str(folder)!r}."
        )
    return {
        "data_dir": str(folder),
        "data_files": {split: f"{name}/**" for split, name in splits.items()} or {"train": "**"},
        # Where the images lie in the splits themselves, `datasets` would take the splits for classes.
        "drop_labels": None if classes else True,
    }


def is_image_folder(dataset_name: str, splits: DatasetDict | IterableDatasetDict) -> bool:
    """Whether a data set is a local folder of images, in which `datasets` guessed what the splits are."""
    folder = Path(dataset_name)
    if not folder.is_dir() or next(iter(splits.values())).info.builder_name != "imagefolder":
        return False
    card = folder / "README.md"
    return not (card.is_file() and (metadata_load(card) or {}).get("configs"))
