# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Slices of splits, in the notation of `datasets`."""

from datasets import Dataset, DatasetDict, ReadInstruction, concatenate_datasets


def select_rows(splits: DatasetDict, split: str, argument: str = "split") -> Dataset:
    """
    Selects the rows of a split, or of slices of splits.

    Args:
        splits (`datasets.DatasetDict`): See [`load_image_dataset`].
        split (`str`): As `datasets` writes slices: `"test"`, `"train[55000:]"` or `"train[:10%]+test"`.
        argument (`str`, *optional*, defaults to `"split"`): What messages call it.

    Raises:
        ValueError: if a split is unknown, if a slice is no slice, or if there are no rows.
    """
    num_rows = {name: len(rows) for name, rows in splits.items()}
    try:
        slices = ReadInstruction.from_spec(split).to_absolute(num_rows)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"`{argument}` expects a split or slices of splits, got {split!r}: {error}") from error
    selected = [splits[s.splitname].select(range(s.from_, s.to)) for s in slices if s.from_ < s.to]
    if not selected:
        raise ValueError(
            f"`{argument}` expects at least one row, got {split!r} of splits with {num_rows} rows, which has none."
        )
    return concatenate_datasets(selected)
