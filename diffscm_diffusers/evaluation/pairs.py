# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Which factual meets which intervention, and their images."""

from dataclasses import dataclass

import torch
from datasets import Dataset, DatasetDict

from diffscm_diffusers.data.classes import match_classes, name_empty_classes
from diffscm_diffusers.data.images import DecodedImages, ImageCollator
from diffscm_diffusers.data.splits import select_rows


# Columns of a data set that brings its own interventions, and the true counterfactuals under them.
INTERVENTION_COLUMN = "intervention"
COUNTERFACTUAL_COLUMN = "counterfactual"


@dataclass
class Pairs:
    """
    Which factual meets which intervention.

    Args:
        row (`torch.Tensor` of shape `(num_pairs,)`): The factuals' rows in their split.
        factual_class (`torch.Tensor` of shape `(num_pairs,)`): Their class indices.
        intervention (`torch.Tensor` of shape `(num_pairs,)`): The target class indices.
    """

    row: torch.Tensor
    factual_class: torch.Tensor
    intervention: torch.Tensor

    def __len__(self) -> int:
        return len(self.row)


def draw_pairs(
    classes: torch.Tensor,
    num_classes: int,
    seed: int,
    max_samples: int | None = None,
    interventions: torch.Tensor | None = None,
) -> Pairs:
    """
    Draws the pairs of the evaluation: every factual once, in random order because image folders are sorted by class,
    with one intervention drawn uniformly from the other classes. All of them are drawn before any is left out, so a
    pair does not depend on `max_samples`.

    Args:
        classes (`torch.Tensor` of shape `(num_rows,)`): The class index of every row of the split.
        num_classes (`int`): How many classes the interventions are drawn from.
        seed (`int`): Seed of order and interventions.
        max_samples (`int`, *optional*): How many pairs to return. Default: one per row.
        interventions (`torch.Tensor` of shape `(num_rows,)`, *optional*):
            The interventions, if the data set has them. Default: they are drawn.

    Raises:
        ValueError: if there are fewer than two classes or pairs, or rows without a class.
    """
    if num_classes < 2:
        raise ValueError(f"`num_classes` expects at least two classes, got {num_classes}.")
    low, high = torch.aminmax(classes)
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"`classes` expects classes from 0 to {num_classes - 1}, got {low} to {high}; -1 is a row without a label."
        )
    generator = torch.Generator().manual_seed(seed)
    row = torch.randperm(len(classes), generator=generator)
    shift = torch.randint(1, num_classes, (len(classes),), generator=generator)

    row, shift = row[:max_samples], shift[:max_samples]
    if len(row) < 2:
        raise ValueError(
            f"`max_samples` expects at least 2, and a split with as many rows, got {max_samples} of {len(classes)}."
        )
    drawn = (classes[row] + shift) % num_classes
    return Pairs(row, classes[row], drawn if interventions is None else interventions[row])


def read_classes(
    rows: Dataset, collate: ImageCollator, class_names: list[str], column: str | None = None
) -> torch.Tensor:
    """
    Reads the class of every row, by name, as an index of `class_names`; -1 where there is none. It stands in `column`,
    by default in the label column.

    Raises:
        ValueError: if the data has other classes than `class_names`.
    """
    column = collate.label_column if column is None else column
    indices = torch.tensor([*match_classes(rows.features[column].names, class_names, whole=True), -1])
    return indices[torch.tensor(rows[column][:])]  # -1 is the last


def load_pairs_and_images(
    splits: DatasetDict,
    split: str,
    train_split: str,
    collate: ImageCollator,
    class_names: list[str],
    seed: int,
    max_samples: int | None = None,
    show_progress: bool = True,
    interventions: torch.Tensor | None = None,
) -> tuple[Pairs, DecodedImages, DecodedImages]:
    """
    Draws the pairs of an evaluation and reads their factuals and the reference set.

    Args:
        splits (`datasets.DatasetDict`): The data set; see [`load_image_dataset`].
        split (`str`): Split of the factuals, or slices of splits.
        train_split (`str`): Split of the reference images, or slices of splits.
        collate (`ImageCollator`): Made for the size of the models' images, with a `label_column`.
        class_names (`list[str]`):
            The models' classes, in their order. Those of the data are found among them by name.
        seed (`int`): See [`draw_pairs`].
        max_samples (`int`, *optional*): See [`draw_pairs`].
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars.
        interventions (`torch.Tensor` of shape `(num_rows,)`, *optional*): See [`draw_pairs`].

    Returns:
        `tuple`: the pairs, their factuals in the same order, and the reference images, with the models' class indices.

    Raises:
        ValueError: as [`select_rows`], [`draw_pairs`] and [`ImageCollator`], and if the data has other classes, or if
            the reference set has fewer than two images of a class that it is needed for.
    """
    factual_rows, reference_rows = select_rows(splits, split), select_rows(splits, train_split, "train_split")
    classes = read_classes(factual_rows, collate, class_names)
    pairs = draw_pairs(classes, len(class_names), seed, max_samples, interventions)
    counts = {name: (pairs.factual_class == c).sum().item() for c, name in enumerate(class_names)}
    name_empty_classes(counts, f"`split` {split!r}, of which {len(pairs)} rows are taken,")

    reference_class = read_classes(reference_rows, collate, class_names)
    used = torch.cat([pairs.factual_class, pairs.intervention]).unique().tolist()
    counts = {class_names[c]: (reference_class == c).sum().item() for c in used}
    too_few = {name: count for name, count in counts.items() if count < 2}
    if too_few:
        raise ValueError(
            f"`train_split` expects at least two images of every class to compare with, but {train_split!r} has "
            f"{too_few}."
        )
    # Other columns may hold images as well, which need not be decoded.
    columns = [collate.image_column, collate.label_column]
    factual_rows, reference_rows = factual_rows.select_columns(columns), reference_rows.select_columns(columns)
    factuals = DecodedImages(
        factual_rows.select(pairs.row), collate, "Reading factuals", show_progress, pairs.row.tolist()
    )
    reference = DecodedImages(reference_rows, collate, "Reading references", show_progress)
    factuals.classes, reference.classes = pairs.factual_class, reference_class
    return pairs, factuals, reference
