# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Labelled images from the Hub, a data set folder or an image folder, ready for training."""

import os

import torch
from datasets import ClassLabel, DatasetDict, Image, IterableDatasetDict, load_dataset
from diffusers.image_processor import VaeImageProcessor
from PIL import ImageOps


def load_image_dataset(args):
    """
    Loads every split of the data set that the arguments name.

    Args:
        args (`argparse.Namespace`):
            Parsed command line. `dataset_name` is a Hub name or a local data set folder; `train_data_dir` is a folder
            with one subfolder of images per class. `dataset_config_name`, `cache_dir`, `streaming`, `train_split`,
            `image_column` and `label_column` say how to read it.

    Returns:
        `datasets.DatasetDict` or `datasets.IterableDatasetDict`: the splits by name.

    Raises:
        ValueError: if no data set is named, if the split is missing, or if a column is missing or of another type.
    """
    if (args.dataset_name is None) == (args.train_data_dir is None):
        raise ValueError(
            "Exactly one of `--dataset_name` and `--train_data_dir` is needed, got "
            f"{args.dataset_name!r} and {args.train_data_dir!r}."
        )
    if args.train_data_dir is not None:
        if not os.path.isdir(args.train_data_dir):
            raise ValueError(
                f"`--train_data_dir` takes a folder with one subfolder per class, got {args.train_data_dir!r}."
            )
        splits = load_dataset(
            "imagefolder", data_dir=args.train_data_dir, cache_dir=args.cache_dir, streaming=args.streaming
        )
    else:
        splits = load_dataset(
            args.dataset_name, args.dataset_config_name, cache_dir=args.cache_dir, streaming=args.streaming
        )
    check_columns(splits, args.train_split, args.image_column, args.label_column)
    return splits


def check_columns(splits: DatasetDict | IterableDatasetDict, split: str, image_column: str, label_column: str):
    if split not in splits:
        raise ValueError(f"`--train_split` names {split!r}, but the data set has the splits {sorted(splits)}.")
    features = splits[split].features
    for flag, column, feature_type in (
        ("--image_column", image_column, Image),
        ("--label_column", label_column, ClassLabel),
    ):
        if column not in features:
            raise ValueError(f"`{flag}` names {column!r}, but the data set has the columns {sorted(features)}.")
        if not isinstance(features[column], feature_type):
            raise ValueError(
                f"`{flag}` takes a column of type {feature_type.__name__}, but {column!r} is {features[column]}."
            )


class ImageCollator:
    """
    Turns rows into one batch: `pixel_values` of shape `(batch, channels, height, width)` in [-1, 1] and `labels`.

    Images are resized to fill `resolution`, then cropped at the centre; they become greyscale or RGB as `channels`
    asks.
    """

    def __init__(self, resolution: int, channels: int, image_column: str, label_column: str):
        if channels not in (1, 3):
            raise ValueError(f"`channels` takes 1 (greyscale) or 3 (RGB), got {channels}.")
        self.resolution = resolution
        self.mode = "L" if channels == 1 else "RGB"
        self.image_column = image_column
        self.label_column = label_column
        self.processor = VaeImageProcessor(do_resize=False)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        size = (self.resolution, self.resolution)
        images = [ImageOps.fit(row[self.image_column].convert(self.mode), size) for row in rows]
        pixel_values = self.processor.preprocess(images)
        labels = torch.tensor([row[self.label_column] for row in rows])
        return {"pixel_values": pixel_values, "labels": labels}
