# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import shutil

import PIL.Image
import pytest

from diffscm_diffusers.data.images import load_image_dataset


@pytest.fixture
def make(tmp_path):
    """Makes a folder of images."""

    def make(*paths: str, folder: str = "images"):
        for path in paths:
            file = tmp_path / folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("L", (8, 8)).save(file)
        return tmp_path / folder

    return make


@pytest.fixture(params=[False, True], ids=["on disk", "streaming"])
def load(request, cache_dir):
    def load(folder, **options):
        return load_image_dataset(train_data_dir=folder, cache_dir=cache_dir, streaming=request.param, **options)

    return load


def count(splits) -> dict[str, int]:
    return {name: len(list(rows)) for name, rows in splits.items()}


class TestSplits:
    """Only the folder's own sub-folders are splits."""

    def test_parts_deep_in_the_path_are_no_splits(self, make, load):
        paths = ["crash_test/0.png", "crash_test/test-1.png", "dark/val_2.png", "dark/train.png", "test set/4.png"]
        splits = load(make(*paths, folder="test/data"), label_column="label")
        assert count(splits) == {"train": 5}
        assert splits["train"].features["label"].names == ["crash_test", "dark", "test set"]

    def test_sub_folders_are_splits(self, make, load):
        paths = [f"{split}/{label}/test-0.png" for split in ("train", "val", "test") for label in ("eval", "train")]
        splits = load(make(*paths), label_column="label")
        assert count(splits) == {"train": 2, "validation": 2, "test": 2}
        assert splits["train"].features["label"].names == ["eval", "train"]

    def test_splits_are_no_classes(self, make, load):
        splits = load(make("train/0.png", "test/1.png"))
        assert set(splits["train"].features) == {"image"}
        with pytest.raises(ValueError, match="`label_column` expects one of the data set's columns"):
            load(make(), label_column="label")

    def test_splits_beside_classes_are_refused_and_the_advice_helps(self, make, load, tmp_path):
        folder = make("train/0.png", "bus/1.png", "car/2.png")  # the vehicle
        with pytest.raises(
            ValueError, match=r"all splits or all classes, got \['train'\], .* beside \['bus', 'car'\]"
        ):
            load(folder, label_column="label")
        shutil.move(folder, tmp_path / "train")
        shutil.move(tmp_path / "train", folder / "train")
        splits = load(folder, label_column="label")
        assert splits["train"].features["label"].names == ["bus", "car", "train"]

    def test_two_folders_of_a_split_are_refused(self, make, load):
        with pytest.raises(ValueError, match="got 'val' and 'validation' for the split 'validation'"):
            load(make("val/0.png", "validation/1.png"))

    def test_folders_in_classes_are_refused(self, make, load):
        folder = make("cat/left/0.png", "dog/left/1.png", "dog/right/2.png")
        with pytest.raises(ValueError, match="a sub-folder per class .* got 'cat/left'"):
            load(folder, label_column="label")
        assert count(load(folder)) == {"train": 3}

    def test_patterns_in_the_path_are_refused_and_the_advice_helps(self, make, load, tmp_path):
        folder = make("dark/0.png", "light/1.png", folder="my[1]")
        (tmp_path / "link").symlink_to(folder)
        for path in (folder, tmp_path / "link"):  # `datasets` resolves links
            with pytest.raises(ValueError, match=r"a path without \*, \? and \[, .* got '.*my\[1\]': rename what"):
                load(path)
        folder.rename(tmp_path / "my{1}!, $x;~")
        assert count(load(tmp_path / "my{1}!, $x;~")) == {"train": 2}

    def test_image_folder_by_the_other_flag_is_refused(self, make, cache_dir):
        folder = make("crash_test/0.png", "dark/1.png")
        with pytest.raises(ValueError, match="`dataset_name` expects .*, a folder of images: use `train_data_dir`"):
            load_image_dataset(str(folder), cache_dir=cache_dir)
        # Unless it says itself what its splits are.
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: dev\n    path: '*/*.png'\n---\n"
        )
        assert count(load_image_dataset(str(folder), cache_dir=cache_dir)) == {"dev": 2}
