# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Files of a data set that are absent or damaged are named."""

import os

import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.data_files import check_shards
from diffscm_diffusers.data.images import load_image_dataset
from diffscm_diffusers.data.streaming import ShuffledStream


@pytest.fixture
def shards(tmp_path):
    """A folder of three parquet files of four rows, numbered as the Hub numbers them."""
    features = Features({"image": Image(), "number": Value("int64")})
    for i in range(3):
        rows = {"image": [PIL.Image.new("L", (8, 8), 10 * i + j) for j in range(4)], "number": range(4)}
        Dataset.from_dict(rows, features).to_parquet(tmp_path / "data" / f"train-{i:05d}-of-00003.parquet")
    return sorted((tmp_path / "data").iterdir())


def load(folder, tmp_path, **kwargs):
    return load_image_dataset(str(folder), cache_dir=str(tmp_path / "cache"), **kwargs)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("number", [0, 2])
def test_absent_shard_is_named(shards, tmp_path, number, streaming):
    shards[number].unlink()
    with pytest.raises(ValueError, match=rf"`dataset_name` expects .*'{shards[number]}' missing: restore what"):
        load(tmp_path / "data", tmp_path, streaming=streaming)


class TestCheckShards:
    def test_each_series_is_complete_in_itself(self, tmp_path):
        for name in ("a/train-00000-of-00001.csv", "b/train-00000-of-00001.csv", "test-00000-of-00001.csv", "x-of-y"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        check_shards(tmp_path)
        check_shards("a name on the Hub")
        (tmp_path / "a" / "train-00000-of-00001.csv").rename(tmp_path / "a" / "train-00001-of-00003.csv")
        with pytest.raises(ValueError, match="a/train-00000-of-00003.csv', '.*a/train-00002-of-00003.csv' missing"):
            check_shards(tmp_path)

    def test_advice_to_rename_helps(self, shards, tmp_path):
        shards[2].unlink()
        for i in range(2):
            shards[i].rename(shards[i].with_name(f"train-{i:05d}-of-00002.parquet"))
        assert load(tmp_path / "data", tmp_path)["train"].num_rows == 8


def test_truncated_file_is_named(shards, tmp_path):
    os.truncate(shards[1], shards[1].stat().st_size // 2)
    with pytest.raises(ValueError, match=rf"`dataset_name` .* the file '{shards[1]}' cannot be read after 0 rows"):
        load(tmp_path / "data", tmp_path)


def test_broken_line_is_named_by_file_and_row(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        lines = ['{"image": null, "number": 1}'] * 3 + ['{"image": nu' if name == "b" else ""]
        (tmp_path / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"the file '.*/b.jsonl' cannot be read after \d rows"):
        load(tmp_path / "data", tmp_path)


def test_files_of_other_columns_are_named(shards, tmp_path):
    Dataset.from_dict({"other": [1]}).to_parquet(shards[1])
    with pytest.raises(ValueError, match=rf"`dataset_name` expects .*{shards[1].name}"):
        load(tmp_path / "data", tmp_path)


def test_classes_in_another_order_than_the_graphs_are_refused(tmp_path):
    features = Features({"image": Image(), "shade": ClassLabel(names=["light", "dark"])})
    rows = {"image": [PIL.Image.new("L", (8, 8))], "shade": [0]}
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "data" / "train.parquet")
    node = {"kind": "categorical", "labels": ["dark", "light"]}
    graph = CausalGraph({"shade": node}, [["shade", "image"]])
    with pytest.raises(ValueError, match=r"the classes \['dark', 'light'\], in this order, in the column 'shade'"):
        load(tmp_path / "data", tmp_path, split="train", graph=graph)


def test_file_that_breaks_while_it_is_streamed_is_named_by_file_and_row(shards, tmp_path):
    stream = ShuffledStream(load(tmp_path / "data", tmp_path, streaming=True)["train"], 4, 4, seed=0)
    os.truncate(shards[1], shards[1].stat().st_size // 2)
    with pytest.raises(ValueError, match="Row 0 of the data set's file 1 cannot be read: "):
        list(stream)
