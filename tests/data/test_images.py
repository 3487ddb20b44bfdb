# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value, concatenate_datasets

from diffscm_diffusers.data.image_files import NumberedRow, decode_image
from diffscm_diffusers.data.images import DecodedImages, ImageCollator, load_image_dataset


MNIST = Path(os.environ.get("DIFFSCM_TEST_MNIST", Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"))


@pytest.fixture(scope="module")
def parquet_folder(tmp_path_factory):
    """A data set folder as the Hub has them, with columns of several types."""
    folder = tmp_path_factory.mktemp("parquet")
    rows = {
        "image": [PIL.Image.new("L", (8, 8), 10 * i) for i in range(4)],
        "label": [0, 1, 1, 0],
        "number": [0, 1, 1, 0],
    }
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "number": Value("int64")})
    Dataset.from_dict(rows, features).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_folder(cache_dir, parquet_folder, streaming):
    splits = load_image_dataset(
        str(parquet_folder), split="train", label_column="label", cache_dir=cache_dir, streaming=streaming
    )
    assert list(splits) == ["train"]
    batch = ImageCollator(8, 1, "image", "label")(list(splits["train"]))
    assert batch["labels"].tolist() == [0, 1, 1, 0]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == pytest.approx([2 * v / 255 - 1 for v in (0, 10, 20, 30)])


@pytest.mark.parametrize("streaming", [False, True])
def test_image_folder(cache_dir, image_folder, streaming):
    splits = load_image_dataset(
        train_data_dir=image_folder, label_column="label", cache_dir=cache_dir, streaming=streaming
    )
    assert {name: len(list(split)) for name, split in splits.items()} == {"train": 30, "test": 6}
    assert splits["train"].features["label"].names == ["dark", "light"]


def test_unlabelled_images_serve_where_no_labels_are_asked_for(cache_dir, tmp_path):
    PIL.Image.new("L", (8, 8)).save(tmp_path / "0.png")
    rows = load_image_dataset(train_data_dir=tmp_path, cache_dir=cache_dir)["train"]
    assert set(ImageCollator(8, 1, "image")(list(rows))) == {"pixel_values"}
    with pytest.raises(
        ValueError, match=r"`label_column` expects one of the data set's columns, \['image'\], got 'label'"
    ):
        load_image_dataset(train_data_dir=tmp_path, label_column="label", cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "dev"}, r"`split` expects one of the data set's splits, \['train'\], got 'dev'"),
        ({"image_column": "img"}, "`image_column` expects one of .* columns, .*'image'.* got 'img'"),
        ({"label_column": "digit"}, "`label_column` expects one of .* columns, .*'label'.* got 'digit'"),
        ({"image_column": "number"}, "`image_column` expects a column of type Image, but 'number'"),
        ({"label_column": "number"}, "`label_column` expects a column of type ClassLabel, but 'number'"),
        ({"train_data_dir": "images"}, "Exactly one of `dataset_name` and `train_data_dir` .* and 'images'"),
        ({"dataset_name": None}, "Exactly one of `dataset_name` and `train_data_dir` .* None and None"),
        ({"dataset_name": "./missing"}, "`dataset_name` expects a data set of images, got './missing'"),
        (
            {"dataset_name": None, "train_data_dir": "missing"},
            "`train_data_dir` expects a folder of images, got 'missing'",
        ),
    ],
)
def test_data_set_that_does_not_fit_is_refused(cache_dir, parquet_folder, changes, message):
    with pytest.raises(ValueError, match=message):
        load_image_dataset(**{"dataset_name": str(parquet_folder), "cache_dir": cache_dir} | changes)


def test_empty_image_folder_is_refused(cache_dir, tmp_path):
    with pytest.raises(ValueError, match="`train_data_dir` expects a data set of images"):
        load_image_dataset(train_data_dir=tmp_path, cache_dir=cache_dir)


@pytest.mark.parametrize("label_column", [None, "label"])
def test_images_in_memory_are_those_of_the_collator(cache_dir, image_folder, label_column):
    splits = load_image_dataset(train_data_dir=image_folder, label_column=label_column, cache_dir=cache_dir)
    dataset = concatenate_datasets([splits["train"]] * 20)  # more than are decoded at once
    collate = ImageCollator(6, 1, "image", label_column)
    decoded = DecodedImages(dataset, collate, show_progress=False)
    assert len(decoded) == 600
    assert decoded.pixels.dtype == torch.uint8
    rows = [7, 529, 7, 0]
    batch, expected = decoded.__getitems__(rows), collate([dataset[i] for i in rows])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in batch)


def test_images_in_memory_are_floats_on_demand(cache_dir, image_folder):
    dataset = load_image_dataset(train_data_dir=image_folder, label_column="label", cache_dir=cache_dir)["test"]
    pixels = np.stack([np.asarray(decode_image(row["image"], "L")) for row in dataset])[:, None]
    decoded = DecodedImages(dataset, ImageCollator(8, 1, "image", "label"), "Reading")
    assert np.array_equal(decoded.images(slice(None)).numpy(), pixels / np.float32(255))
    assert decoded.classes.tolist() == [0, 0, 0, 1, 1, 1]


def test_broken_image_in_memory_is_named_by_its_row(cache_dir, image_folder):
    rows = load_image_dataset(train_data_dir=image_folder, cache_dir=cache_dir)["train"].select_columns(["image"])
    broken = Dataset.from_dict({"image": [{"path": "x.png", "bytes": b"404"}]}, rows.features)
    rows = concatenate_datasets([rows, broken])
    collate = ImageCollator(8, 1, "image")
    for numbers, number in ((None, 1), ([7, 30], 30)):
        with pytest.raises(ValueError, match=f"got one in row {number} of the file 'x.png'"):
            DecodedImages(rows.select([7, 30]), collate, show_progress=False, numbers=numbers)


def collate(image: PIL.Image.Image, resolution: int, channels: int) -> torch.Tensor:
    return ImageCollator(resolution, channels, "image")([{"image": image}])["pixel_values"][0]


def test_colours_are_converted_to_the_channels():
    red = PIL.Image.new("RGB", (4, 4), (255, 0, 0))
    assert torch.equal(collate(red, 4, 3), torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 4, 4))
    # ITU-R 601: red is 0.299 of the luma.
    torch.testing.assert_close(collate(red, 4, 1), torch.full((1, 4, 4), 2 * 76 / 255 - 1))
    grey = PIL.Image.new("L", (4, 4), 255)
    assert torch.equal(collate(grey, 4, 3), torch.ones(3, 4, 4))
    assert torch.equal(collate(grey.convert("1"), 4, 1), torch.ones(1, 4, 4))


@pytest.mark.parametrize("shape", [(4, 8), (8, 4)])
def test_oblong_images_are_cropped_at_the_centre(shape):
    pixels = np.zeros(shape, dtype=np.uint8)
    centre = (slice(None), slice(2, 6)) if shape[1] == 8 else (slice(2, 6), slice(None))
    pixels[centre] = 255
    assert torch.equal(collate(PIL.Image.fromarray(pixels), 4, 1), torch.ones(1, 4, 4))


def test_images_are_resized():
    assert torch.equal(collate(PIL.Image.new("L", (9, 6), 255), 4, 1), torch.ones(1, 4, 4))


def test_more_than_eight_bits_are_refused():
    image = PIL.Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16))
    with pytest.raises(
        ValueError, match="`image_column` expects .* got one in a row: it has more than 8 bits .* 'I;16'"
    ):
        collate(image, 4, 1)


@pytest.mark.parametrize("label", [-1, None])
def test_examples_without_a_label_are_refused(label):
    rows = [{"image": PIL.Image.new("L", (4, 4)), "label": value} for value in (0, label)]
    with pytest.raises(ValueError, match=r"`label_column` .* every row, but 'label' has none \(-1\) in a row"):
        ImageCollator(4, 1, "image", "label")(rows)
    numbered = [NumberedRow(row, f"row {number}") for number, row in enumerate(rows)]
    with pytest.raises(ValueError, match=r"`label_column` .* every row, but 'label' has none \(-1\) in row 1"):
        ImageCollator(4, 1, "image", "label")(numbered)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channel_counts_are_refused(channels):
    with pytest.raises(ValueError, match=f"`channels` expects 1 .* or 3 .*, got {channels}"):
        ImageCollator(4, channels, "image")


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not at {MNIST}; DIFFSCM_TEST_MNIST names its folder")
def test_mnist(cache_dir):
    splits = load_image_dataset(str(MNIST), label_column="label", cache_dir=cache_dir, streaming=True)
    assert splits["train"].features["label"].num_classes == 10
    batch = ImageCollator(28, 1, "image", "label")(list(splits["train"].take(64)))
    assert batch["pixel_values"].shape == (64, 1, 28, 28)
    assert torch.aminmax(batch["pixel_values"]) == (-1, 1)
    assert set(batch["labels"].tolist()) == set(range(10))
