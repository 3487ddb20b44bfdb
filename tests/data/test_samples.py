# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections import Counter

import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from diffscm_diffusers.data.images import load_image_dataset
from diffscm_diffusers.data.samples import draw_numbers, draw_rows


LABELS = [0] * 300 + [1] * 90 + [2] * 9 + [3]  # sorted by class, as image folders are


@pytest.fixture(scope="module")
def split():
    features = Features({"label": ClassLabel(names=list("abcd")), "number": Value("int64")})
    return Dataset.from_dict({"label": LABELS, "number": range(400)}, features)


@pytest.fixture(params=["on disk", "streaming", "streaming files"])
def rows(split, request):
    if request.param == "on disk":
        return split
    return split.to_iterable_dataset(num_shards=1 if request.param == "streaming" else 7)


class TestCoversTheData:
    """Not the first rows, in no mode of reading."""

    @pytest.mark.parametrize("num_rows", [4, 10, 100])
    def test_every_class_is_drawn(self, rows, num_rows):
        for seed in range(5):
            drawn = draw_rows(rows, num_rows, seed, "num_rows", "image", "label")
            assert len({row["number"] for row in drawn}) == num_rows
            assert {row["label"] for row in drawn} == {0, 1, 2, 3}

    def test_classes_are_as_frequent_as_in_the_split(self, rows):
        counts = Counter(
            row["label"] for seed in range(20) for row in draw_rows(rows, 80, seed, "n", "image", "label")
        )
        # Of 80 rows 60 and 18 are expected, and less than one of the rarest class; standard deviations are below 4.
        assert counts[0] / 20 == pytest.approx(60, abs=3) and counts[1] / 20 == pytest.approx(18, abs=3)
        assert counts[3] == 20

    def test_rows_are_drawn_from_everywhere_without_labels(self, rows):
        numbers = [row["number"] for row in draw_rows(rows, 40, 0, "n", "image")]
        assert min(numbers) < 50 and max(numbers) > 350 and numbers != sorted(numbers)
        assert numbers == [row["number"] for row in draw_rows(rows, 40, 0, "n", "image")]
        assert numbers != [row["number"] for row in draw_rows(rows, 40, 1, "n", "image")]

    def test_more_rows_than_there_are(self, rows):
        assert sorted(row["number"] for row in draw_rows(rows, 1000, 0, "n", "image", "label")) == list(range(400))

    def test_too_few_for_the_classes_are_refused(self, rows):
        with pytest.raises(ValueError, match="`num_images` expects at least one image of each of 4 classes, got 3"):
            draw_rows(rows, 3, 0, "num_images", "image", "label")


def test_numbers_are_those_of_rows_in_memory(split):
    assert draw_numbers(LABELS, 12, 0, "n") == [
        row["number"] for row in draw_rows(split, 12, 0, "n", "image", "label")
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_folder_is_covered(cache_dir, image_folder, streaming):
    splits = load_image_dataset(
        train_data_dir=image_folder, label_column="label", cache_dir=cache_dir, streaming=streaming
    )
    for seed in range(5):
        assert {row["label"] for row in draw_rows(splits["train"], 2, seed, "n", "image", "label")} == {0, 1}


def test_broken_images_of_a_stream_are_not_drawn():
    images = [{"path": None, "bytes": b"404"}] * 20 + [Image().encode_example(PIL.Image.new("L", (4, 4)))] * 2
    rows = Dataset.from_dict({"image": images}, Features({"image": Image(decode=False)})).to_iterable_dataset()
    drawn = draw_rows(rows, 5, 0, "n", "image", skip_broken=True)
    assert sorted(row.position for row in drawn) == ["row 20", "row 21"]
