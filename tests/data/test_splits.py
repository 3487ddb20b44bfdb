# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import shutil
from argparse import Namespace

import numpy as np
import PIL.Image
import pytest

from diffscm_diffusers.data.splits import load_pairs_and_images


@pytest.fixture
def args(image_folder, cache_dir):
    return Namespace(
        dataset_name=None,
        dataset_config_name=None,
        train_data_dir=str(image_folder),
        split="test",
        train_split="train",
        image_column="image",
        label_column="label",
        cache_dir=str(cache_dir),
        max_samples=None,
        seed=0,
        streaming=False,
    )


def load(args, num_classes=3):
    return load_pairs_and_images(args, num_classes, (1, 8, 8), show_progress=False)


def test_factuals_are_the_images_of_their_rows(args, image_folder):
    pairs, factuals, reference = load(args)
    files = [image_folder / "test" / name / f"{i}.png" for name in ("dark", "grey", "light") for i in range(4)]
    for i, row in enumerate(pairs.row.tolist()):
        expected = np.asarray(PIL.Image.open(files[row]))
        assert (factuals.pixels[i, 0].numpy() == expected).all()
        assert (factuals.images(slice(i, i + 1))[0, 0].numpy() == expected.astype(np.float32) / 255).all()
        assert factuals.classes[i] == pairs.factual_class[i] == row // 4
    assert len(reference) == 18


def test_splits_are_sliced(args, image_folder):
    args.split, args.train_split = "train[15:]", "train[:15]+test"
    pairs, factuals, reference = load(args)
    assert (len(pairs), len(reference)) == (3, 15 + 12)
    last = {np.asarray(PIL.Image.open(image_folder / "train" / "light" / f"{i}.png")).tobytes() for i in (3, 4, 5)}
    assert {pixels.numpy().tobytes() for pixels in factuals.pixels} == last


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "validation"}, "`--split` takes a split .*got 'validation'.*Unknown split"),
        ({"train_split": "all"}, "The split asked for is 'all'"),
        ({"split": "test[5:"}, "`--split` takes a split or slices of splits, got 'test\\[5:'"),
        ({"split": "train[100:]"}, "`--split` 'train\\[100:\\]' has no rows"),
        ({"train_split": "train[:12]"}, "`--train_split` takes at least two images of every class.*{'light': 0}"),
        ({"train_split": "train[:13]"}, "`--train_split` takes at least two images of every class.*{'light': 1}"),
        ({"label_column": "digit"}, "`--label_column` names 'digit'"),
        ({"train_data_dir": None}, "Exactly one of `--dataset_name` and `--train_data_dir`"),
        ({"max_samples": 1}, "`--max_samples`"),
    ],
)
def test_bad_input(args, change, message):
    vars(args).update(change)
    with pytest.raises(ValueError, match=message):
        load(args)


def test_models_must_know_the_classes(args):
    with pytest.raises(ValueError, match="knows 10 classes, but the data set has 3"):
        load(args, num_classes=10)


def test_a_class_without_factuals_is_still_a_target(args, image_folder, tmp_path):
    """The label's names, not the factuals, say which classes there are."""
    folder = shutil.copytree(image_folder, tmp_path / "images")
    shutil.rmtree(folder / "test" / "light")
    args.train_data_dir = str(folder)
    pairs, _, _ = load(args)
    assert set(pairs.factual_class.tolist()) == {0, 1}
    assert 2 in pairs.intervention.tolist()
