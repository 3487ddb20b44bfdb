# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Images, with or without labels, from the Hub, a data set folder or an image folder, as tensors."""

import argparse

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDatasetDict, Value, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetsError
from diffusers.image_processor import VaeImageProcessor
from PIL import ImageOps
from tqdm.auto import tqdm

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.refusals import check_data_source

from .data_files import check_shards, explain, find_broken_file
from .image_files import NumberedRow, leave_out_broken, read_image
from .image_folders import find_splits, is_image_folder


def load_image_dataset(
    dataset_name: str | None = None,
    train_data_dir: str | None = None,
    *,
    dataset_config_name: str | None = None,
    split: str | None = None,
    image_column: str = "image",
    label_column: str | None = None,
    graph: CausalGraph | None = None,
    cache_dir: str | None = None,
    streaming: bool = False,
    skip_broken: bool = False,
    split_argument: str = "split",
) -> DatasetDict | IterableDatasetDict:
    """
    Loads every split of a data set of images. The images are not decoded: [`ImageCollator`] does that.

    Args:
        dataset_name (`str`, *optional*): Name on the Hub, or a local folder that `datasets` loads.
        train_data_dir (`str`, *optional*):
            Folder of images: a folder per split or none, and in it a subfolder per class if they are labelled. See
            [`find_splits`].
        dataset_config_name (`str`, *optional*): Configuration of `dataset_name`, where it has several.
        split (`str`, *optional*): A split that the data set must have.
        image_column (`str`, *optional*, defaults to `"image"`): Column with the images.
        label_column (`str`, *optional*): Column with the class labels. Without it no labels are needed.
        graph ([`CausalGraph`], *optional*):
            Its image's parents have to be columns, each of its name. The values in `split` are checked, unless they
            are streamed.
        cache_dir (`str`, *optional*): Where the data set is cached.
        streaming (`bool`, *optional*, defaults to `False`): Whether to read the data set without a copy on disk.
        skip_broken (`bool`, *optional*, defaults to `False`):
            Whether to leave out rows whose images cannot be used; see [`leave_out_broken`]. Who reads a streamed data
            set leaves them out on the way.
        split_argument (`str`, *optional*, defaults to `"split"`): What messages call `split`.

    Returns:
        `datasets.DatasetDict` or `datasets.IterableDatasetDict`: the splits by name.

    Raises:
        ValueError: if not exactly one data set is named, if it cannot be found, if one of its files is absent or
            cannot be read, if it lacks the split, if a column is missing or of another type, or if a value is not one
            that `graph` knows.
    """
    check_data_source(dataset_name, train_data_dir, dataset_config_name)
    if train_data_dir is not None:
        argument, source = "train_data_dir", {"path": "imagefolder"}
        source |= find_splits(train_data_dir, is_labelled=label_column is not None)
    else:
        argument, source = "dataset_name", {"path": str(dataset_name), "name": dataset_config_name}
    try:
        if dataset_name is not None:
            check_shards(dataset_name)
        splits = load_dataset(**source, cache_dir=cache_dir, streaming=streaming)
    except (DatasetsError, OSError, RuntimeError, ValueError) as error:  # the third of data sets of code
        name, reason = str(train_data_dir or dataset_name), str(error)
        if isinstance(error, DatasetGenerationError):
            reason = find_broken_file(source) or explain(error)
        raise ValueError(f"`{argument}` expects a data set of images, got {name!r}: {reason}") from error
    if dataset_name is not None and is_image_folder(dataset_name, splits):
        raise ValueError(
            f"`dataset_name` expects a data set that says itself what its splits are, got {str(dataset_name)!r}, a "
            "folder of images: use `train_data_dir`."
        )

    if split is not None:
        check_split(splits, split, split_argument)
    features = splits[split or next(iter(splits))].features
    if features is None:
        raise ValueError("`streaming` expects a data set that declares the types of its columns, got one without.")
    columns = [("image_column", image_column, Image)]
    if label_column is not None:
        columns.append(("label_column", label_column, ClassLabel))
    for argument, column, feature_type in columns:
        if column not in features:
            raise ValueError(
                f"`{argument}` expects one of the data set's columns, {sorted(features)}, got {column!r}."
            )
        if not isinstance(features[column], feature_type):
            raise ValueError(
                f"`{argument}` expects a column of type {feature_type.__name__}, but {column!r} is {features[column]}."
            )
    if graph is not None:
        check_attribute_columns(features, graph)
        for column in find_numeric_labels(features, graph):
            for name in splits:
                splits[name] = splits[name].cast_column(column, Value("string"))
        if split is not None and not streaming:
            names = list(graph.image_parents)
            read_attributes(splits[split].select_columns(names)[:], graph, f"the split {split!r}")
    for name in splits:
        splits[name] = splits[name].cast_column(image_column, Image(decode=False))
        if skip_broken and not streaming:
            splits[name] = leave_out_broken(splits[name], image_column, str(name))
    return splits


def check_split(splits: DatasetDict | IterableDatasetDict, split: str, argument: str = "split"):
    """Raises a `ValueError` if the data set has no such split. Messages call it `argument`."""
    if split not in splits:
        raise ValueError(f"`{argument}` expects one of the data set's splits, {sorted(splits)}, got {split!r}.")


def load_flagged_dataset(
    args: argparse.Namespace,
    split_flag: str | None = None,
    label_column: str | None = None,
    graph: CausalGraph | None = None,
) -> DatasetDict | IterableDatasetDict:
    """
    Loads the data set that flags of `add_data_arguments` and `--streaming` name; see [`load_image_dataset`].

    Args:
        args (`argparse.Namespace`): The flags.
        split_flag (`str`, *optional*): The one that names a split that the data set must have.
        label_column (`str`, *optional*): Column with the class labels. Without it no labels are needed.
        graph ([`CausalGraph`], *optional*): Its image's parents have to be columns.

    Raises:
        ValueError: as [`load_image_dataset`].
    """
    split = {} if split_flag is None else {"split": getattr(args, split_flag), "split_argument": split_flag}
    return load_image_dataset(
        args.dataset_name,
        args.train_data_dir,
        dataset_config_name=args.dataset_config_name,
        image_column=args.image_column,
        label_column=label_column,
        graph=graph,
        cache_dir=args.cache_dir,
        streaming=getattr(args, "streaming", False),
        skip_broken=args.skip_broken,
        **split,
    )


def check_attribute_columns(features: Features, graph: CausalGraph):
    """Raises a `ValueError` if an image's parent is no column, or one of another type or with other classes."""
    missing = [name for name in graph.image_parents if name not in features]
    if missing:
        raise ValueError(
            f"`graph` expects a column for each parent of the image, {list(graph.image_parents)}, but {missing} are "
            f"none of the data set's, {sorted(features)}."
        )
    for name in graph.image_parents:
        node, feature = graph.nodes[name], features[name]
        if isinstance(feature, ClassLabel):
            if node.labels is None or list(node.labels) != feature.names:
                expected = "numbers" if node.labels is None else f"the classes {list(node.labels)}, in this order,"
                raise ValueError(f"`graph` expects {expected} in the column {name!r}, got classes {feature.names}.")
        else:
            is_number = isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "float"))
            is_label = isinstance(feature, Value) and feature.dtype.startswith(
                ("int", "uint", "string", "large_string")
            )
            if not (is_number if node.labels is None else is_label):
                expected = "numbers" if node.labels is None else "labels or their indices"
                raise ValueError(f"`graph` expects {expected} in the column {name!r}, which is {feature}.")


def find_numeric_labels(features: Features, graph: CausalGraph) -> list[str]:
    """The columns whose numbers are labels of the graph and not their indices, see [`Node.read_numbers`]."""
    columns = []
    for name in graph.image_parents:
        node, feature = graph.nodes[name], features[name]
        if node.labels is not None and isinstance(feature, Value) and feature.dtype.startswith(("int", "uint")):
            numbers = node.read_numbers(f"column {name!r}")
            if any(number != index for number, index in numbers.items()):
                columns.append(name)
    return columns


def read_attributes(columns: dict[str, list], graph: CausalGraph, source: str) -> dict[str, torch.Tensor]:
    """
    Reads the values of attributes.

    Args:
        columns (`dict[str, list]`): Attribute to its values, one for each row.
        graph ([`CausalGraph`]): Says what the values may be.
        source (`str`): What messages call the rows' origin.

    Returns:
        `dict[str, torch.Tensor]`: the values, as [`CausalGraph.check_values`] gives them.

    Raises:
        ValueError: if a value is missing or none that the graph knows. The message names column and row.
    """
    attributes = {}
    for name, values in columns.items():
        node, values = graph.nodes[name], list(values)
        # Numbers that are labels were made text when the data set was loaded. These are indices, as of classes.
        is_indices = node.labels is not None and all(type(value) is int for value in values)
        try:
            attributes[name] = node.check(torch.tensor(values) if is_indices else values, len(values), name)
        except (TypeError, ValueError):
            for row, value in enumerate(values):
                try:
                    node.check(torch.tensor([value]) if is_indices else [value], 1, name)
                except (TypeError, ValueError) as error:
                    reason = "expects a value, got none." if value is None else str(error).removeprefix(f"`{name}` ")
                    raise ValueError(f"Column {name!r}, row {row} of {source} (from 0): {reason}") from error
            raise
    return attributes


class ImageCollator:
    """
    Turns rows into one batch: `pixel_values` of shape `(batch, channels, height, width)` in [-1, 1]; if a column is
    named for them, `labels` of shape `(batch,)`; with a graph, `attributes`, the values of the image's parents by name
    (see [`CausalGraph.check_values`]), and `condition`, the same as one vector (see [`CausalGraph.condition`]).

    Images are read as [`decode_image`] does, become greyscale or RGB as `channels` asks, are resized to fill a square,
    then cropped at the centre.

    Args:
        resolution (`int`): Height and width of the batch.
        channels (`int`): 1 (greyscale) or 3 (RGB).
        image_column (`str`): Column with images, decoded or not.
        label_column (`str`, *optional*): Column with class indices.
        graph ([`CausalGraph`], *optional*): Its image's parents are columns, each of its name.

    Raises:
        ValueError: if `channels` is neither 1 nor 3, if an image cannot be used, of which it names row and file where
            they are known, if an example has no label, or if a value is not one that the graph knows.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        image_column: str,
        label_column: str | None = None,
        graph: CausalGraph | None = None,
    ):
        if channels not in (1, 3):
            raise ValueError(f"`channels` expects 1 (greyscale) or 3 (RGB), got {channels}.")
        self.resolution = resolution
        self.mode = "L" if channels == 1 else "RGB"
        self.image_column = image_column
        self.label_column = label_column
        self.graph = graph
        self.processor = VaeImageProcessor(do_resize=False)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        images = [read_image(row, self.image_column, self.mode) for row in rows]
        size = (self.resolution, self.resolution)
        batch = {"pixel_values": self.processor.preprocess([ImageOps.fit(image, size) for image in images])}
        if self.label_column is not None:
            labels = [row[self.label_column] for row in rows]
            unlabelled = [row for row, label in zip(rows, labels, strict=True) if label is None or label < 0]
            if unlabelled:
                raise ValueError(
                    f"`label_column` expects a label in every row, but {self.label_column!r} has none (-1) in "
                    f"{getattr(unlabelled[0], 'position', 'a row')}."
                )
            batch["labels"] = torch.tensor(labels)
        if self.graph is not None:
            columns = {name: [row[name] for row in rows] for name in self.graph.image_parents}
            batch["attributes"] = read_attributes(columns, self.graph, "a batch")
            batch["condition"] = self.graph.condition(batch["attributes"])
        return batch


class DecodedImages(torch.utils.data.Dataset):
    """
    A whole split in memory, decoded once, with eight bits a value. A list of indices gives the batch that `collate`
    makes of those rows, bit for bit.

    Args:
        dataset (`datasets.Dataset`): The split.
        collate (`ImageCollator`): Makes batches of rows.
        description (`str`, *optional*, defaults to `"Decoding"`): What the progress bar says.
        show_progress (`bool`, *optional*, defaults to `True`): Whether there is a progress bar.
        numbers (`list[int]`, *optional*):
            The numbers of the rows, which are named in errors. Default: they are counted.

    Attributes:
        pixels (`torch.Tensor` of shape `(num_images, channels, height, width)`): uint8 in [0, 255].
        classes (`torch.Tensor` of shape `(num_images,)`):
            Class indices, int64. `None` if `collate` has no `label_column`.
        attributes (`dict[str, torch.Tensor]`):
            Values of the image's parents, of shape `(num_images,)`. `None` if `collate` has no `graph`.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: ImageCollator,
        description: str = "Decoding",
        show_progress: bool = True,
        numbers: list[int] | None = None,
    ):
        numbers = range(len(dataset)) if numbers is None else numbers
        self.graph = collate.graph
        self.pixels = self.classes = self.attributes = None
        for start in tqdm(range(0, len(dataset), 500), description, disable=not show_progress):
            rows = slice(start, min(start + 500, len(dataset)))
            chunk = zip(dataset.select(range(rows.start, rows.stop)), numbers[rows], strict=True)
            batch = collate([NumberedRow(row, f"row {number}") for row, number in chunk])
            if self.pixels is None:
                self.pixels = torch.empty(len(dataset), *batch["pixel_values"].shape[1:], dtype=torch.uint8)
                self.classes = torch.empty(len(dataset), dtype=torch.int64) if "labels" in batch else None
                if self.graph is not None:
                    parts = batch["attributes"].items()
                    self.attributes = {name: part.new_empty(len(dataset)) for name, part in parts}
            self.pixels[rows] = (batch["pixel_values"] * 127.5 + 127.5).round().byte()
            if self.classes is not None:
                self.classes[rows] = batch["labels"]
            if self.attributes is not None:
                for name, part in batch["attributes"].items():
                    self.attributes[name][rows] = part

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, index: slice | list[int] | torch.Tensor) -> torch.Tensor:
        """The images at these indices as float32 in [0, 1]."""
        return self.pixels[index].float() / 255

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        batch = {"pixel_values": 2 * self.images(indices) - 1}
        if self.classes is not None:
            batch["labels"] = self.classes[indices]
        if self.attributes is not None:
            batch["attributes"] = {name: values[indices] for name, values in self.attributes.items()}
            batch["condition"] = self.graph.condition(batch["attributes"])
        return batch
