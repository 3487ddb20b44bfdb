# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.pairs import draw_pairs, load_pairs_and_images, read_classes


NAMES = ["dark", "grey", "light"]
CLASSES = torch.arange(4).repeat_interleave(500)  # sorted, as an image folder is


def test_targets_are_uniform_over_the_other_classes():
    pairs = draw_pairs(CLASSES, num_classes=4, seed=0)
    counts = torch.zeros(4, 4)
    for factual_class, intervention in zip(pairs.factual_class, pairs.intervention, strict=True):
        counts[factual_class, intervention] += 1
    assert (counts.diagonal() == 0).all()
    # 500 draws with probability 1/3: the standard deviation is 10.5.
    others = counts[~torch.eye(4, dtype=torch.bool)]
    assert (others - 500 / 3).abs().max() < 4 * 10.5


def test_every_factual_comes_once_and_a_few_are_of_all_classes():
    pairs = draw_pairs(CLASSES, num_classes=4, seed=0)
    assert pairs.row.sort().values.tolist() == list(range(2000))
    assert torch.equal(pairs.factual_class, CLASSES[pairs.row])
    assert set(draw_pairs(CLASSES, 4, seed=0, max_samples=40).factual_class.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("max_samples", [2, 17, 1999])
def test_pairs_do_not_depend_on_how_many_there_are(max_samples):
    everything, some = draw_pairs(CLASSES, 4, seed=3), draw_pairs(CLASSES, 4, seed=3, max_samples=max_samples)
    assert len(some) == max_samples
    for name in ("row", "factual_class", "intervention"):
        assert torch.equal(getattr(some, name), getattr(everything, name)[:max_samples])


def test_pairs_depend_on_the_seed_alone():
    first, again, other = (draw_pairs(CLASSES, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(first.row, again.row) and torch.equal(first.intervention, again.intervention)
    assert not torch.equal(first.row, other.row) and not torch.equal(first.intervention, other.intervention)


@pytest.mark.parametrize(
    ("classes", "num_classes", "max_samples", "message"),
    [
        ([0, 0, 0], 1, None, "at least two classes"),
        ([0, -1, 1], 2, None, "got -1 to 1; -1 is a row without a label"),
        ([0, 1, 2], 2, None, "from 0 to 1, got 0 to 2"),
        ([0, 1, 1], 2, 1, "`max_samples` .* got 1 of 3"),
        ([0], 2, None, "`max_samples` .* got None of 1"),
    ],
)
def test_bad_input(classes, num_classes, max_samples, message):
    with pytest.raises(ValueError, match=message):
        draw_pairs(torch.tensor(classes), num_classes, 0, max_samples)


@pytest.fixture
def load(image_folder, cache_dir):
    def load(folder=image_folder, split="test", train_split="train", class_names=NAMES, max_samples=None):
        splits = load_image_dataset(train_data_dir=folder, label_column="label", cache_dir=cache_dir)
        collate = ImageCollator(8, 1, "image", "label")
        return load_pairs_and_images(
            splits, split, train_split, collate, class_names, 0, max_samples, show_progress=False
        )

    return load


def test_factuals_are_the_images_of_their_rows(load, image_folder):
    pairs, factuals, reference = load()
    files = [image_folder / "test" / name / f"{i}.png" for name in ("dark", "grey", "light") for i in range(4)]
    for i, row in enumerate(pairs.row.tolist()):
        expected = np.asarray(PIL.Image.open(files[row]))
        assert (factuals.pixels[i, 0].numpy() == expected).all()
        assert factuals.classes[i] == pairs.factual_class[i] == row // 4
    assert len(reference) == 18


def test_splits_are_sliced(load, image_folder):
    pairs, factuals, reference = load(split="train[15:]", train_split="train[:15]+test")
    assert (len(pairs), len(reference)) == (3, 15 + 12)
    last = {np.asarray(PIL.Image.open(image_folder / "train" / "light" / f"{i}.png")).tobytes() for i in (3, 4, 5)}
    assert {pixels.numpy().tobytes() for pixels in factuals.pixels} == last


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_split": "all"}, "`train_split` expects .*got 'all'.*Unknown split"),
        ({"train_split": "train[:12]"}, "`train_split` expects at least two images of every class.*{'light': 0}"),
        ({"train_split": "train[:13]"}, "`train_split` expects at least two images of every class.*{'light': 1}"),
        ({"class_names": ["dark", "light"]}, "checkpoint knows, 'dark', 'light', got 'dark', 'grey', 'light'"),
        ({"class_names": ["0", "1", "2"]}, "checkpoint knows, '0', '1', '2', got 'dark', 'grey', 'light'"),
        ({"class_names": [*NAMES, "white"]}, "knows, 'dark', 'grey', 'light', 'white', got 'dark', 'grey', 'light'"),
        ({"max_samples": 1}, "`max_samples`"),
    ],
)
def test_data_that_does_not_fit_is_refused(load, change, message):
    with pytest.raises(ValueError, match=message):
        load(**change)


def test_a_class_without_factuals_is_still_a_target(load, image_folder, tmp_path):
    """The label's names, not the factuals, say which classes there are."""
    folder = shutil.copytree(image_folder, tmp_path / "images")
    shutil.rmtree(folder / "test" / "light")
    pairs, _, _ = load(folder)
    assert set(pairs.factual_class.tolist()) == {0, 1}
    assert 2 in pairs.intervention.tolist()


class TestClassesByName:
    """The data's classes and the models' are in different orders."""

    def test_classes_are_those_of_the_models(self, load, image_folder):
        names = ["light", "dark", "grey"]
        pairs, factuals, reference = load(class_names=names)
        folders = {
            name: {np.asarray(PIL.Image.open(file)).tobytes() for file in image_folder.glob(f"*/{name}/*")}
            for name in names
        }
        for images in (factuals, reference):
            for pixels, c in zip(images.pixels, images.classes, strict=True):
                assert pixels.numpy().tobytes() in folders[names[c]]
        assert torch.equal(factuals.classes, pairs.factual_class)

    def test_a_row_without_a_label_stays_one(self):
        rows = {"image": [PIL.Image.new("L", (8, 8))] * 3, "label": [0, -1, 1]}
        features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
        classes = read_classes(Dataset.from_dict(rows, features), ImageCollator(8, 1, "image", "label"), ["b", "a"])
        assert classes.tolist() == [1, -1, 0]


def test_classes_without_factuals_are_named(load, caplog):
    load(max_samples=2)
    assert "`split` 'test', of which 2 rows are taken, has no image of the classes '" in caplog.text
    caplog.clear()
    load()
    assert not caplog.text
