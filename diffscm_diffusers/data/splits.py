# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Factual and reference images, held in memory with eight bits a value."""

import re
from argparse import Namespace
from dataclasses import dataclass

import torch
from datasets import Dataset, ReadInstruction, concatenate_datasets
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.pairs import Pairs, draw_pairs


@dataclass
class LabelledImages:
    """
    Images and their classes.

    Args:
        pixels (`torch.Tensor` of shape `(num_images, channels, height, width)`): uint8 in [0, 255].
        classes (`torch.Tensor` of shape `(num_images,)`): Class indices, int64.
    """

    pixels: torch.Tensor
    classes: torch.Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: slice | torch.Tensor) -> torch.Tensor:
        """The images at these indices as float32 in [0, 1]."""
        return self.pixels[index].float() / 255


def load_pairs_and_images(
    args: Namespace, num_classes: int, image_shape: tuple[int, int, int], show_progress: bool
) -> tuple[Pairs, LabelledImages, LabelledImages]:
    """
    Draws the pairs of an evaluation and reads their factuals and the reference set.

    Args:
        args (`argparse.Namespace`): See [`add_evaluation_arguments`].
        num_classes (`int`): Number of classes that the models know.
        image_shape (`tuple[int, int, int]`): Channels, height and width of the models' images.
        show_progress (`bool`): Whether to show progress bars.

    Returns:
        `tuple`: the pairs, their factuals in the same order, and the reference images.

    Raises:
        ValueError: as [`load_image_dataset`], [`draw_pairs`] and [`ImageCollator`], and if a split is unknown, no
            slice, or empty, if the data has another number of classes, or if the reference set has fewer than two
            images of a class that it is needed for.
    """
    factual_rows, reference_rows = load_splits(args)
    names = factual_rows.features[args.label_column].names
    if len(names) != num_classes:
        raise ValueError(
            f"`--pretrained_model_name_or_path` knows {num_classes} classes, but the data set has {len(names)}."
        )
    pairs = draw_pairs(torch.tensor(factual_rows[args.label_column][:]), num_classes, args.seed, args.max_samples)

    reference_class = torch.tensor(reference_rows[args.label_column][:])
    used = torch.cat([pairs.factual_class, pairs.intervention]).unique().tolist()
    counts = {names[c]: (reference_class == c).sum().item() for c in used}
    too_few = {name: count for name, count in counts.items() if count < 2}
    if too_few:
        raise ValueError(
            f"`--train_split` takes at least two images of every class to compare with, but {args.train_split!r} has "
            f"{too_few}."
        )
    images = [
        read_images(rows, image_shape, args.image_column, args.label_column, show_progress)
        for rows in (factual_rows.select(pairs.row), reference_rows)
    ]
    return pairs, *images


def load_splits(args: Namespace) -> tuple[Dataset, Dataset]:
    """Loads the rows of `--split` and of `--train_split`, both a split's name or slices of splits."""
    whole_train_split = re.split(r"[\[+]", args.train_split)[0]
    splits = load_image_dataset(Namespace(**{**vars(args), "train_split": whole_train_split}), args.label_column)
    num_rows = {name: len(rows) for name, rows in splits.items()}
    selected = []
    for flag, split in (("--split", args.split), ("--train_split", args.train_split)):
        try:
            slices = ReadInstruction.from_spec(split).to_absolute(num_rows)
        except (AssertionError, ValueError) as error:
            raise ValueError(f"`{flag}` takes a split or slices of splits, got {split!r}: {error}") from error
        slices = [s for s in slices if s.from_ < s.to]
        if not slices:
            raise ValueError(f"`{flag}` {split!r} has no rows; the data set's splits have {num_rows}.")
        selected.append(concatenate_datasets([splits[s.splitname].select(range(s.from_, s.to)) for s in slices]))
    return tuple(selected)


def read_images(
    rows: Dataset, image_shape: tuple[int, int, int], image_column: str, label_column: str, show_progress: bool
) -> LabelledImages:
    """Decodes images, resized and cropped as in training."""
    channels, height, _ = image_shape
    collate = ImageCollator(height, channels, image_column, label_column)
    pixels = torch.empty(len(rows), *image_shape, dtype=torch.uint8)
    classes = torch.empty(len(rows), dtype=torch.int64)
    start = 0
    for batch in tqdm(rows.iter(batch_size=500), "Reading images", -(-len(rows) // 500), disable=not show_progress):
        batch = collate([dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)])
        stop = start + len(batch["labels"])
        pixels[start:stop] = (batch["pixel_values"] * 127.5 + 127.5).round().byte()
        classes[start:stop] = batch["labels"]
        start = stop
    return LabelledImages(pixels, classes)
