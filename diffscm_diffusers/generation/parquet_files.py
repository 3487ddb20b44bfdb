# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Rows in, rows out: the source in chunks, and the parquet file of each, written whole or not at all."""

import errno
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Array3D, ClassLabel, Dataset, Features, Image, IterableDataset, Value

from diffscm_diffusers.data.classes import abbreviate
from diffscm_diffusers.files import UNFINISHED_PREFIX, written_whole


# Where a file's metadata lists the images that were left out.
LEFT_OUT = "left_out"


def counterfactual_features(names: list[str], image_shape: tuple[int, int, int], has_classes: bool) -> Features:
    """
    The columns of a counterfactual data set.

    Args:
        names (`list[str]`): The checkpoint's class names.
        image_shape (`tuple[int, int, int]`): Channels, height and width of the images.
        has_classes (`bool`): Whether the factuals' classes are known.
    """
    channels, height, width = image_shape
    return Features(
        {
            "index": Value("int64"),
            "factual": Image(),
            **({"factual_class": ClassLabel(names=names)} if has_classes else {}),
            "counterfactual": Image(),
            "target": ClassLabel(names=names),
            "target_probability": Value("float32"),
            "difference": Array3D((height, width, channels), "float32"),
        }
    )


def split_rows(dataset: Dataset | IterableDataset, chunk_size: int) -> Iterator[tuple[int, Iterable[dict]]]:
    """
    Splits a data set into chunks of `chunk_size` rows; the last may be smaller.

    Returns:
        `Iterator`: the first row's number and the rows, which a `Dataset` reads only where they are iterated over.
    """
    if isinstance(dataset, IterableDataset):
        rows = iter(dataset)
        for start in itertools.count(0, chunk_size):
            chunk = list(itertools.islice(rows, chunk_size))
            if not chunk:
                return
            yield start, chunk
    else:
        for start in range(0, len(dataset), chunk_size):
            yield start, dataset.select(range(start, min(start + chunk_size, len(dataset))))


class ChunkFolder:
    """
    The parquet files of one split, named by the first row of the source that they hold.

    Args:
        folder (`Path`): Where they are.
        split (`str`): The split's name.
    """

    def __init__(self, folder: Path, split: str):
        self.folder = folder
        self.split = split

    def starts(self) -> dict[int, Path]:
        """The complete files by the first row that they hold, in order."""
        pattern = re.compile(rf"{re.escape(self.split)}-(\d+)\.parquet")
        matches = [pattern.fullmatch(path.name) for path in self.folder.glob("*.parquet")]
        return {int(match[1]): self.folder / match[0] for match in sorted(filter(None, matches), key=lambda m: m[0])}

    def remove_unfinished(self):
        """Removes what a killed run left behind. No other process may be writing."""
        for leftover in self.folder.glob(f"{UNFINISHED_PREFIX}*.parquet"):
            leftover.unlink()

    def write(self, start: int, batches: Iterable[dict[str, list]], features: Features, left_out: Callable):
        """
        Writes one chunk, batch by batch, under another name, and renames it when it is complete.

        Args:
            start (`int`): The first row of the source that it holds.
            batches (`Iterable[dict[str, list]]`): Columns by name. No more than one batch is held in memory.
            features (`datasets.Features`): Their types.
            left_out (`Callable`): Gives, once the batches are there, a list of what was left out.

        Raises:
            OSError: if the file cannot be written. Nothing of it is left behind.
        """
        path = self.folder / f"{self.split}-{start:08d}.parquet"
        try:
            with (
                written_whole(path) as unfinished,
                pq.ParquetWriter(unfinished, features.arrow_schema) as writer,
            ):
                for batch in batches:
                    writer.write_table(Dataset.from_dict(batch, features).with_format("arrow")[:])
                writer.add_key_value_metadata({LEFT_OUT: json.dumps(left_out())})
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(
                    error.errno,
                    f"No space left to write {str(path)!r}. The files beside it are complete: make room and start the "
                    "same command again to go on.",
                ) from error
            raise

    def left_out(self) -> list[str]:
        """The images that were left out, each with the reason."""
        metadata = [pq.read_metadata(path).metadata for path in self.starts().values()]
        return [problem for entries in metadata for problem in json.loads(entries[LEFT_OUT.encode()])]

    def summarize(self, names: dict[int, str] | None) -> str:
        """
        Says how many counterfactuals there are, how many of them show their target, and what is not among them.

        Args:
            names (`dict[int, str]`, *optional*): The classes that factuals can have, if they are known.
        """
        num_rows = num_factuals = num_hits = 0
        seen = set()
        for path in self.starts().values():
            table = pq.read_table(path, columns=["index", "target_probability", *(["factual_class"] if names else [])])
            if names:
                seen |= set(table["factual_class"].unique().to_pylist())
            num_rows += len(table)
            num_factuals += len(table["index"].unique())
            num_hits += sum(probability > 0.5 for probability in table["target_probability"].to_pylist())
        summary = (
            f"{num_rows} counterfactuals of {num_factuals} factuals; the anti-causal predictor gives {num_hits} of "
            "them a target probability above 0.5."
        )
        absent = [name for index, name in (names or {}).items() if index not in seen]
        if absent:
            summary += f" No factual is of the class {abbreviate(absent)}."
        if left_out := self.left_out():
            summary += f" {len(left_out)} images of the source cannot be used and were left out."
        return summary
