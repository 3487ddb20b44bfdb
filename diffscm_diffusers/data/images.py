# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Images, with or without labels, from the Hub, a data set folder or an image folder, ready for training."""

import os
from argparse import Namespace

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image, IterableDatasetDict, load_dataset
from diffusers.image_processor import VaeImageProcessor
from PIL import ImageOps
from tqdm.auto import tqdm


def load_image_dataset(args: Namespace, label_column: str | None = None) -> DatasetDict | IterableDatasetDict:
    """
    Loads every split of the data set that the arguments name.

    Args:
        args (`argparse.Namespace`):
            See [`add_training_arguments`]. `dataset_name` is a Hub name or a local data set folder; `train_data_dir`
            is a folder of images, with one subfolder per class if they are labelled.
        label_column (`str`, *optional*): Column with the class labels. Without it no labels are needed.

    Returns:
        `datasets.DatasetDict` or `datasets.IterableDatasetDict`: the splits by name.

    Raises:
        ValueError: if not exactly one data set is named, if it cannot be found, if it lacks the split, or if a column
            is missing or of another type.
    """
    if (args.dataset_name is None) == (args.train_data_dir is None):
        raise ValueError(
            "Exactly one of `--dataset_name` and `--train_data_dir` is needed, got "
            f"{args.dataset_name!r} and {args.train_data_dir!r}."
        )
    if args.train_data_dir is not None:
        flag, source = "--train_data_dir", {"path": "imagefolder", "data_dir": args.train_data_dir}
        if not os.path.isdir(args.train_data_dir):
            raise ValueError(f"`--train_data_dir` takes a folder of images, got {args.train_data_dir!r}.")
    else:
        flag, source = "--dataset_name", {"path": args.dataset_name, "name": args.dataset_config_name}
    try:
        splits = load_dataset(**source, cache_dir=args.cache_dir, streaming=args.streaming)
    except (FileNotFoundError, ValueError) as error:
        name = args.train_data_dir or args.dataset_name
        raise ValueError(f"`{flag}` takes a data set of images, got {name!r}: {error}") from error

    if args.train_split not in splits:
        raise ValueError(
            # No flag is named: it is `--split` in a script that has nothing to train or compare with.
            f"The split asked for is {args.train_split!r}, but the data set has the splits {sorted(splits)}."
        )
    features = splits[args.train_split].features
    if features is None:
        raise ValueError("`--streaming` takes a data set that declares the types of its columns; this one does not.")
    columns = [("--image_column", args.image_column, Image)]
    if label_column is not None:
        columns.append(("--label_column", label_column, ClassLabel))
    for flag, column, feature_type in columns:
        if column not in features:
            raise ValueError(f"`{flag}` names {column!r}, but the data set has the columns {sorted(features)}.")
        if not isinstance(features[column], feature_type):
            raise ValueError(
                f"`{flag}` takes a column of type {feature_type.__name__}, but {column!r} is {features[column]}."
            )
    return splits


class ImageCollator:
    """
    Turns rows into one batch: `pixel_values` of shape `(batch, channels, height, width)` in [-1, 1] and, if a column
    is named for them, `labels` of shape `(batch,)`.

    Images are resized to fill a square, then cropped at the centre; they become greyscale or RGB as `channels` asks.

    Args:
        resolution (`int`): Height and width of the batch.
        channels (`int`): 1 (greyscale) or 3 (RGB).
        image_column (`str`): Column with PIL images of 8 bits per channel.
        label_column (`str`, *optional*): Column with class indices.

    Raises:
        ValueError: if `channels` is neither 1 nor 3, if an image has more than 8 bits per channel, or if an example
            has no label.
    """

    def __init__(self, resolution: int, channels: int, image_column: str, label_column: str | None = None):
        if channels not in (1, 3):
            raise ValueError(f"`channels` takes 1 (greyscale) or 3 (RGB), got {channels}.")
        self.resolution = resolution
        self.mode = "L" if channels == 1 else "RGB"
        self.image_column = image_column
        self.label_column = label_column
        self.processor = VaeImageProcessor(do_resize=False)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        images = [row[self.image_column] for row in rows]
        for image in images:
            # Pillow would cut such values off at 255.
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"`--image_column` takes images of 8 bits per channel, got one of mode {image.mode!r}: rescale it."
                )
        size = (self.resolution, self.resolution)
        batch = {"pixel_values": self.processor.preprocess([ImageOps.fit(i.convert(self.mode), size) for i in images])}
        if self.label_column is not None:
            batch["labels"] = torch.tensor([row[self.label_column] for row in rows])
            if batch["labels"].min() < 0:
                raise ValueError(f"`--label_column` {self.label_column!r} holds examples without a label (-1).")
        return batch


class DecodedImages(torch.utils.data.Dataset):
    """
    A whole split in memory, decoded once. A list of indices gives the batch that `collate` makes of those rows, bit
    for bit, from eight bits a value.

    Args:
        dataset (`datasets.Dataset`): The split.
        collate (`ImageCollator`): Makes batches of rows.
    """

    def __init__(self, dataset: Dataset, collate: ImageCollator):
        images, labels = [], []
        for i in tqdm(range(0, len(dataset), 1000), desc="Decoding"):
            batch = collate(list(dataset.select(range(i, min(i + 1000, len(dataset))))))
            images.append(((batch["pixel_values"] / 2 + 0.5) * 255).round().to(torch.uint8))
            labels.append(batch.get("labels"))
        self.images = torch.cat(images)
        self.labels = torch.cat(labels) if collate.label_column is not None else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = {"pixel_values": 2 * (self.images[indices].float() / 255) - 1}
        if self.labels is not None:
            batch["labels"] = self.labels[indices]
        return batch


def decode_images(dataset: Dataset, collate: ImageCollator, description: str) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Decodes a whole split, for sets that fit into memory.

    Args:
        dataset (`datasets.Dataset`): The split.
        collate (`ImageCollator`): Made with a `label_column`.
        description (`str`): What the progress bar says.

    Returns:
        `tuple`: images in [0, 1], `(num_images, channels, height, width)`, and labels, `(num_images,)`.
    """
    batches = [
        collate(list(dataset.select(range(i, min(i + 1000, len(dataset))))))
        for i in tqdm(range(0, len(dataset), 1000), desc=description)
    ]
    images = torch.cat([batch["pixel_values"] for batch in batches]) / 2 + 0.5
    return images, torch.cat([batch["labels"] for batch in batches])
