# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Samples that stand for a whole split, however its rows are sorted and read."""

import heapq
from collections import Counter

import numpy as np
from datasets import Dataset, IterableDataset

from .image_files import BrokenImageError, NumberedRow, read_image


def cover_classes(drawn: list[tuple], first: dict[int, tuple], argument: str) -> list[tuple]:
    """Puts an entry of each class that was not drawn in the place of one of the class that was drawn most often."""
    if len(first) > len(drawn):
        raise ValueError(f"`{argument}` expects at least one image of each of {len(first)} classes, got {len(drawn)}.")
    counts = Counter(label for _, _, label, _ in drawn)
    for label in sorted(first.keys() - counts.keys()):
        most = max(counts, key=lambda c: (counts[c], -c))
        drawn.remove(max(entry for entry in drawn if entry[2] == most))
        drawn.append(first[label])
        counts[most] -= 1
        counts[label] = 1
    return sorted(drawn)


def draw_numbers(labels: list[int], num_rows: int, seed: int, argument: str) -> list[int]:
    """
    Draws rows of a split: uniformly, and at least one of each class that the split has.

    Args:
        labels (`list[int]`): The class of each row.
        num_rows (`int`): How many rows to draw at most.
        seed (`int`): Seed of the draw.
        argument (`str`): What the caller calls `num_rows`, for messages.

    Returns:
        `list[int]`: the rows' numbers, in random order.

    Raises:
        ValueError: if there are more classes than `num_rows`.
    """
    keys = np.random.default_rng(seed).random(len(labels)).tolist()
    entries = sorted((key, number, label, None) for number, (key, label) in enumerate(zip(keys, labels, strict=True)))
    first = {label: (key, number, label, None) for key, number, label, _ in reversed(entries) if label >= 0}
    return [number for _, number, _, _ in cover_classes(entries[:num_rows], first, argument)]


def draw_rows(
    dataset: Dataset | IterableDataset,
    num_rows: int,
    seed: int,
    argument: str,
    image_column: str,
    label_column: str | None = None,
    skip_broken: bool = False,
) -> list[NumberedRow]:
    """
    Draws rows of a split as [`draw_numbers`] does. A streamed split is read once to its end, as its first rows may be
    all of one class, and its images are not decoded.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): The split.
        num_rows (`int`): How many rows to draw at most.
        seed (`int`): Seed of the draw.
        argument (`str`): What the caller calls `num_rows`, for messages.
        image_column (`str`): Column with the images.
        label_column (`str`, *optional*): Column with the classes. Without it rows are drawn uniformly.
        skip_broken (`bool`, *optional*, defaults to `False`):
            Whether to draw no images of a streamed split that cannot be used.

    Raises:
        ValueError: if there are more classes than `num_rows`.
    """
    if isinstance(dataset, Dataset):
        labels = [-1] * len(dataset) if label_column is None else dataset[label_column][:]
        numbers = draw_numbers(labels, num_rows, seed, argument)
        return [NumberedRow(dataset[number], f"row {number}") for number in numbers]

    generator = np.random.default_rng(seed)
    drawn, first = [], {}
    for number, row in enumerate(dataset):
        key, label = generator.random(), -1 if label_column is None else row[label_column]
        is_drawn = len(drawn) < num_rows or -drawn[0][0] > key
        is_first = label >= 0 and (label not in first or first[label][0] > key)
        if not is_drawn and not is_first:
            continue
        row = NumberedRow(row, f"row {number}")
        if skip_broken:
            try:
                read_image(row, image_column, "RGB")
            except BrokenImageError:
                continue
        if is_first:
            first[label] = (key, number, label, row)
        if is_drawn:
            # A heap with the highest key on top, which is replaced once there are enough.
            add = heapq.heappush if len(drawn) < num_rows else heapq.heapreplace
            add(drawn, (-key, number, label, row))
    drawn = [(-key, *rest) for key, *rest in drawn]
    return [row for _, _, _, row in cover_classes(drawn, first, argument)]
