# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Which file of a data set is absent, or cannot be read: `datasets` does not say."""

import os
import re
from pathlib import Path

from datasets import load_dataset, load_dataset_builder


def check_shards(folder: str | Path):
    """
    Raises a `ValueError` that names the absent ones of a folder's files that are numbered as `datasets` and the Hub
    number them, such as `train-00001-of-00004.parquet`. `datasets` would load the others without a word.

    Args:
        folder (`str` or `Path`): The data set's folder. Nothing is done if there is none.
    """
    counts, found = {}, set()
    for path in Path(folder).rglob("*-of-*"):
        match = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})(.*)", path.name)
        if match:
            name, number, count, suffix = match.groups()
            counts[path.parent / name, suffix] = count
            found.add(path)
    absent = [
        path
        for (stem, suffix), count in counts.items()
        for number in range(int(count))
        if (path := stem.with_name(f"{stem.name}-{number:05d}-of-{count}{suffix}")) not in found
    ]
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise ValueError(
            f"{', '.join(repr(str(path)) for path in absent[:3])}{more} missing: restore what is missing, or rename "
            "the files if they are all"
        )


def explain(error: BaseException) -> str:
    """What an error of `datasets` comes from, on one line: its own text often is that there was an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def find_broken_file(source: dict) -> str:
    """
    Says which local file of a data set that could not be loaded is the reason, by reading each alone. Either it cannot
    be read, or its columns are not those of the file before it.

    Args:
        source (`dict`): Arguments of `datasets.load_dataset`.

    Returns:
        `str`: the file, and either how many of its rows can be read, and why no more, or its columns. Empty if none is
        the reason.
    """
    builder = load_dataset_builder(**source)
    schema = None
    for file in (str(file) for files in (builder.config.data_files or {}).values() for file in files):
        if not os.path.isfile(file):
            continue
        num_rows = 0
        try:
            # As tables: images are not decoded.
            alone = load_dataset(builder.info.builder_name, data_files=file, split="train", streaming=True)
            for table in alone.with_format("arrow").iter(batch_size=1):
                num_rows += len(table)
                before, schema = schema, {field.name: str(field.type) for field in table.schema}
                if before not in (None, schema):
                    return f"the file {file!r} has the columns {schema}, and one before it has {before}"
        except Exception as error:  # of the reader of the file's format
            return f"the file {file!r} cannot be read after {num_rows} rows: {explain(error)}"
    return ""
