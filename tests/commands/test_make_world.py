# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
import re
import shlex
from unittest import mock

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.commands import diffscm, make_world
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.files import locked
from diffscm_diffusers.worlds import MorphoMNISTWorld, TypefaceWorld
from tests.helpers import to_argv


DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(autouse=True)
def small_files():
    """Seven rows take two files, of two batches and one."""
    with mock.patch.multiple(make_world, BATCH_SIZE=3, FILE_SIZE=5):
        yield


@pytest.fixture(scope="module")
def base_digits(tmp_path_factory) -> str:
    """A data set of base digits: bars, each of its own length and thickness."""
    images = np.zeros((8, 28, 28), np.uint8)
    for index, image in enumerate(images):
        image[4 + index : 24, 11 : 14 + index % 4] = 255
    features = Features({"image": Image(), "label": ClassLabel(names=DIGITS)})
    rows = {"image": [PIL.Image.fromarray(image) for image in images], "label": [1, 7, 1, 7, 1, 7, 1, 7]}
    dataset = Dataset.from_dict(rows, features)
    folder = tmp_path_factory.mktemp("base_digits")
    for split, part in DatasetDict(train=dataset.select(range(5)), test=dataset.select(range(5, 8))).items():
        part.to_parquet(folder / f"{split}.parquet")
    return str(folder)


def make(output_dir, world="typeface", **flags) -> list[str]:
    argv = [world, *to_argv({"num_train": 7, "num_test": 4, "output_dir": output_dir, **flags})]
    make_world.main(argv)
    return argv


def load(output_dir, tmp_path) -> DatasetDict:
    return load_dataset(str(output_dir), cache_dir=str(tmp_path / "read"))


def pixels(column) -> np.ndarray:
    return np.stack([np.asarray(image) for image in column])


def expected_pixels(images: torch.Tensor) -> np.ndarray:
    return (images * 255).round().byte().movedim(1, -1).squeeze(-1).numpy()


def data_files(output_dir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output_dir / "data").iterdir()}


def test_typefaces_come_back_with_their_variables_noise_and_truth(tmp_path):
    make(tmp_path / "world", color=True, confounding=0.8, seed=5)
    assert sorted(data_files(tmp_path / "world")) == [
        "test-00000000.parquet",
        "train-00000000.parquet",
        "train-00000005.parquet",
    ]
    splits = load(tmp_path / "world", tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 7, "test": 4}
    assert splits["train"].features == splits["test"].features
    features = splits["test"].features
    assert features["image"] == features["counterfactual"] == Image()
    assert features["label"] == features["confounder"] == features["intervention"] == ClassLabel(names=DIGITS)
    assert features["hue"] == features["ink"] == Value("float32")

    for split, confounding in (("train", 0.8), ("test", 0.0)):
        # The columns are all that the world needs to render the images and their counterfactuals again.
        world, rows = TypefaceWorld(color=True, confounding=confounding), splits[split]
        sample = world.sample(len(rows), torch.Generator().manual_seed(0))
        sample.exogenous_noise = {name: torch.tensor(rows[name][:]) for name in sample.exogenous_noise}
        factual = world.counterfactual(sample, do={"digit": torch.tensor(rows["label"][:])})
        for name in ("confounder", "hue"):
            factual.variables[name] = torch.tensor(rows[name][:])
        factual = world.counterfactual(factual, do={"hue": factual.variables["hue"]})
        assert (pixels(rows["image"]) == expected_pixels(factual.images)).all()
        if split == "train":
            assert rows["intervention"][:] == rows["counterfactual"][:] == [None] * 7
        else:
            target = torch.tensor(rows["intervention"][:])
            assert (target != factual.variables["digit"]).all()
            truth = world.counterfactual(factual, do={"digit": target})
            assert (pixels(rows["counterfactual"]) == expected_pixels(truth.images)).all()


@pytest.mark.parametrize("streaming", [False, True])
def test_an_absent_file_is_named(tmp_path, streaming):
    make(tmp_path / "world")
    (tmp_path / "world" / "data" / "train-00000005.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="train-00000005.parquet"):
        load_dataset(str(tmp_path / "world"), cache_dir=str(tmp_path / "read"), streaming=streaming)
    with pytest.raises(ValueError, match="`dataset_name` expects a data set .*train-00000005.parquet"):
        load_image_dataset(str(tmp_path / "world"), cache_dir=str(tmp_path / "read"), streaming=streaming)


def test_graph_lies_beside_the_data_and_names_their_columns(tmp_path):
    make(tmp_path / "world", color=True, confounding=0.5)
    graph = CausalGraph.from_json(tmp_path / "world" / "graph.json")
    assert graph == CausalGraph.from_dict(TypefaceWorld(color=True, confounding=0.5).graph)
    splits = load_image_dataset(str(tmp_path / "world"), split="train", graph=graph, cache_dir=str(tmp_path / "read"))
    assert splits["train"]["digit"][:] == splits["train"]["label"][:]
    batch = ImageCollator(28, 3, "image", graph=graph)(list(splits["test"]))
    assert batch["condition"].shape == (4, 11)
    assert batch["attributes"]["hue"].tolist() == splits["test"]["hue"][:]


def test_training_images_are_confounded_and_test_images_are_not(tmp_path):
    with mock.patch.multiple(make_world, BATCH_SIZE=400, FILE_SIZE=400):
        make(tmp_path / "world", color=True, confounding=0.9, num_train=400, num_test=400)
    agreement = {}
    for split, rows in load(tmp_path / "world", tmp_path).items():
        agreement[split] = np.mean(np.array(rows["label"][:]) == np.array(rows["confounder"][:]))
    assert agreement["train"] == pytest.approx(0.91, abs=0.05)
    assert agreement["test"] == pytest.approx(0.1, abs=0.05)


def test_targets_are_uniform_over_the_other_digits():
    node, digit = {"kind": "categorical", "labels": DIGITS}, torch.arange(10).repeat(900)
    target = make_world.draw_values(node, digit, torch.Generator().manual_seed(0))
    table = np.histogram2d(digit.numpy(), target.numpy(), bins=10)[0]
    assert (np.diag(table) == 0).all()
    assert (abs(table - 100)[~np.eye(10, dtype=bool)] < 5 * np.sqrt(100 * 8 / 9)).all()


@pytest.mark.parametrize("options", [{}, {"slant": True, "color": True}], ids=["plain", "slant and colour"])
def test_morpho_mnist_comes_back_with_its_variables_noise_and_truth(base_digits, tmp_path, options):
    make(tmp_path / "world", "morpho-mnist", dataset_name=base_digits, cache_dir=tmp_path / "cache", **options)
    splits = load(tmp_path / "world", tmp_path)
    source = load_dataset(base_digits, cache_dir=str(tmp_path / "cache"))
    for split, rows in splits.items():
        world = MorphoMNISTWorld.from_dataset(source[split], **options)
        sample = world.sample(len(rows), torch.Generator().manual_seed(0))
        sample.exogenous_noise = {name: torch.tensor(rows[name][:]) for name in sample.exogenous_noise}
        sample.variables = {
            name: torch.tensor(rows["label" if name == "digit" else name][:]) for name in sample.variables
        }
        factual = world.counterfactual(sample, do={})
        assert (pixels(rows["image"]) == expected_pixels(factual.images)).all()
        attributes = set(sample.variables) - {"digit"}
        assert {name for name in rows.features if name.startswith("do_")} == {f"do_{name}" for name in attributes}
        for name in attributes:
            if split == "train":
                assert rows[f"do_{name}"][:] == rows[f"counterfactual_do_{name}"][:] == [None] * 7
            else:
                value = torch.tensor(rows[f"do_{name}"][:])
                truth = world.counterfactual(factual, do={name: value})
                assert (pixels(rows[f"counterfactual_do_{name}"]) == expected_pixels(truth.images)).all()
                assert (value[:3] != factual.variables[name][:3]).all()


def test_data_set_is_what_training_reads(tmp_path):
    make(tmp_path / "world")
    splits = load_image_dataset(str(tmp_path / "world"), label_column="label", cache_dir=str(tmp_path / "read"))
    assert len(splits["train"]) == 7


def test_card_says_how_to_make_the_same_images_again(tmp_path):
    argv = make(tmp_path / "world", seed=3, color=True)
    card = (tmp_path / "world" / "README.md").read_text()
    settings = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL)[1])
    assert settings == {
        "world": "typeface",
        "dataset_name": None,
        "dataset_config_name": None,
        "train_data_dir": None,
        "image_column": "image",
        "label_column": "label",
        "skip_broken": False,
        "train_split": "train",
        "test_split": "test",
        "num_train": 7,
        "num_test": 4,
        "image_size": 28,
        "color": True,
        "slant": False,
        "confounding": None,
        "seed": 3,
    }
    assert f"\n{shlex.join(['diffscm', 'make-world', *argv])}\n" in card
    assert "`counterfactual` | test only: the true counterfactual under `do(digit)`" in card

    make(tmp_path / "again", seed=3, color=True)
    make(tmp_path / "other", seed=4, color=True)
    assert data_files(tmp_path / "again") == data_files(tmp_path / "world")
    assert data_files(tmp_path / "other") != data_files(tmp_path / "world")


def test_splits_differ_and_do_not_depend_on_each_others_size(tmp_path):
    make(tmp_path / "world")
    make(tmp_path / "larger", num_train=9)
    small, large = load(tmp_path / "world", tmp_path), load(tmp_path / "larger", tmp_path)
    assert small["test"][:4]["ink"] == large["test"][:4]["ink"]
    assert not set(small["train"]["ink"][:]) & set(small["test"]["ink"][:])


def test_interrupted_run_leaves_nothing_behind(tmp_path):
    with mock.patch.object(make_world, "make_rows", side_effect=[KeyboardInterrupt]), pytest.raises(KeyboardInterrupt):
        make(tmp_path / "world")
    assert os.listdir(tmp_path) == []


def test_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="`--output_dir` expects a new folder, got .*world', which exists"):
        make(tmp_path / "world")
    assert os.listdir(tmp_path / "world") == ["mine.txt"]


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"confounding": 0.5}, "`--confounding` expects `--color` beside it, got 0.5 alone"),
        ({"image_size": 32}, "`--image_size` expects 28 or 64 with typeface, got 32"),
        ({"dataset_name": "mnist"}, "`--dataset_name` is expected with morpho-mnist only, got it with typeface"),
        ({"slant": True}, "`--slant` is expected with morpho-mnist only"),
        ({"world": "morpho-mnist", "image_size": 64}, "`--image_size` expects 28 with morpho-mnist, got 64"),
        ({"world": "morpho-mnist", "confounding": 0.5}, "`--confounding` is expected with typeface only"),
        ({"world": "morpho-mnist", "test_split": "other"}, "one of the other splits, .'test'., got 'other'"),
        ({"world": "morpho-mnist", "test_split": "train"}, "another split than `--train_split`, got 'train'"),
        ({"world": "morpho-mnist", "label_column": "digit"}, "`label_column` expects .* got 'digit'"),
    ],
)
def test_wrong_flags_are_refused(flags, message, base_digits, tmp_path, capsys):
    world = flags.get("world", "typeface")
    if world == "morpho-mnist":
        flags = {**flags, "dataset_name": base_digits, "cache_dir": tmp_path / "cache"}
    flags = {name: value for name, value in flags.items() if name != "world"}
    with pytest.raises(SystemExit) as error:
        diffscm.main(["make-world", world, *to_argv({**flags, "output_dir": tmp_path / "world"})])
    assert error.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "world").exists()


def test_a_second_run_to_the_same_folder_is_refused(tmp_path):
    folder = tmp_path / "world"
    with locked(folder, is_new=True), pytest.raises(OSError, match="is being written by another run. Wait until it"):
        make(folder)
    assert not any(tmp_path.iterdir())
