# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffscm_diffusers.data.image_files import decode_image
from diffscm_diffusers.data.images import load_image_dataset
from diffscm_diffusers.files import locked
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.training import trainer
from tests.helpers import load_script, to_argv


# What the module's fixtures make is made once, in one worker.
pytestmark = pytest.mark.xdist_group("metric models")

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIGS = {
    "oracle": {"block_out_channels": [4, 4]},
    "vae": {"latent_dim": 2, "block_out_channels": [4], "hidden_features": 8},
    "autoencoder": {"encoder_layers": [4, "pool", 1], "decoder_layers": [4, "up"]},
    "class_autoencoder": {"encoder_layers": [2], "decoder_layers": []},
}
NAMES = ("oracle", "vae", "autoencoder", "class_autoencoders/0", "class_autoencoders/1")


@pytest.fixture(scope="module")
def tiny_flags(image_folder, cache_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metric_model_configs")
    flags = {"train_data_dir": image_folder, "cache_dir": cache_dir, "train_batch_size": 4, "learning_rate": 0.01}
    for name, config in CONFIGS.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"sample_size": 8, **config}))
        flags[f"{name}_config_name_or_path"] = path
        flags[f"{name}_epochs"] = 8
    return {**flags, "vae_epochs": 32}


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    """Folder of the models of one uninterrupted run."""
    folder = tmp_path_factory.mktemp("trained")
    with mock.patch.dict("os.environ", ACCELERATE_USE_CPU="true"):
        load_script("train_metric_models").main(to_argv({**tiny_flags, "output_dir": folder}))
    return folder


def train(flags):
    load_script("train_metric_models").main(to_argv(flags))


def weights_in(folder):
    return {name: load_file(folder / name / WEIGHTS) for name in NAMES}


def assert_same_weights(first, second):
    for name in NAMES:
        for key, value in first[name].items():
            assert torch.equal(value, second[name][key]), (name, key)


def test_trained_models_load_and_have_learned(trained):
    models = MetricModels.from_pretrained(trained)
    assert models.oracle.id2label == {0: "dark", 1: "light"}
    results = json.loads((trained / "metrics.json").read_text())
    assert results["oracle"]["accuracy"] == 1
    # Better than grey for every pixel: 64 log(2) nats, and the variance of uniform values.
    assert results["vae"]["elbo"] > -44.36
    assert results["vae"]["reconstruction_error"] < 1 / 12
    assert results["autoencoder"]["reconstruction_error"] < 1 / 12
    assert set(results["class_autoencoders"]) == {"dark", "light"}
    for errors in results["class_autoencoders"].values():
        assert errors["reconstruction_error"] < errors["reconstruction_error_of_other_classes"]


def test_measures_are_those_of_the_validation_split(trained, tiny_flags):
    models = MetricModels.from_pretrained(trained)
    results = json.loads((trained / "metrics.json").read_text())
    splits = load_image_dataset(
        train_data_dir=tiny_flags["train_data_dir"], label_column="label", cache_dir=tiny_flags["cache_dir"]
    )
    rows = splits["test"][:]
    images = torch.stack([torch.from_numpy(np.array(decode_image(i, "L")))[None] / 255 for i in rows["image"]])
    errors = (models.autoencoder(images) - images).square().mean()
    assert results["autoencoder"]["reconstruction_error"] == pytest.approx(errors.item(), rel=1e-5)
    light = images[torch.tensor(rows["label"]) == 1]
    errors = (models.class_autoencoders[1](light) - light).square().mean()
    assert results["class_autoencoders"]["light"]["reconstruction_error"] == pytest.approx(errors.item(), rel=1e-5)


def test_interrupted_run_goes_on_to_the_same_weights(trained, tiny_flags, tmp_path):
    folder = tmp_path / "models"
    flags = {**tiny_flags, "checkpointing_steps": 50, "output_dir": folder}
    seed_dropout, replace = trainer.seed_dropout, os.replace

    def stop_in_the_middle(seed, step, process_index):
        if step == 60 and (folder / "oracle").exists():
            raise KeyboardInterrupt
        seed_dropout(seed, step, process_index)

    def stop_before_it_is_complete(source, target):
        if Path(target) == folder / "autoencoder":
            raise KeyboardInterrupt
        replace(source, target)

    # Inside the second model, after a checkpoint: each epoch is of seven steps, of which the oracle takes 56.
    with mock.patch.object(trainer, "seed_dropout", stop_in_the_middle), pytest.raises(KeyboardInterrupt):
        train(flags)
    assert {path.name for path in folder.glob("[!.]*")} == {"oracle", "checkpoints"}
    with pytest.raises(ValueError, match=r"`output_dir` .*vae' holds checkpoints of the steps \[50\]"):
        train(flags)
    # When the third model is complete but has not got its name yet.
    flags["resume_from_checkpoint"] = "latest"
    with mock.patch("os.replace", stop_before_it_is_complete), pytest.raises(KeyboardInterrupt):
        train(flags)
    assert {path.name for path in folder.glob("[!.]*")} == {"oracle", "vae", "checkpoints"}
    written = (folder / "vae" / WEIGHTS).stat().st_mtime_ns
    train(flags)
    assert (folder / "vae" / WEIGHTS).stat().st_mtime_ns == written
    assert_same_weights(weights_in(folder), weights_in(trained))
    assert {path.name for path in folder.iterdir()} == {path.name for path in trained.iterdir()}


def test_seed_decides_the_weights(tiny_flags, tmp_path):
    epochs = {f"{name}_epochs": 1 for name in CONFIGS}
    first, second = ({**tiny_flags, **epochs, "seed": seed, "output_dir": tmp_path / str(seed)} for seed in (0, 1))
    train(first)
    train(second)
    first, second = weights_in(tmp_path / "0"), weights_in(tmp_path / "1")
    for name in NAMES:
        assert not all(torch.equal(value, second[name][key]) for key, value in first[name].items())


def test_mixed_precision_keeps_float32_weights(tiny_flags, tmp_path, fresh_accelerate):
    epochs = {f"{name}_epochs": 1 for name in CONFIGS}
    train({**tiny_flags, **epochs, "mixed_precision": "bf16", "output_dir": tmp_path})
    for weights in weights_in(tmp_path).values():
        assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


def test_batches_are_no_larger_than_a_class(tiny_flags, tmp_path):
    epochs = {f"{name}_epochs": 1 for name in CONFIGS}
    with mock.patch.object(trainer.Trainer, "backward", autospec=True, side_effect=trainer.Trainer.backward) as calls:
        train({**tiny_flags, **epochs, "train_batch_size": 20, "output_dir": tmp_path})
    # One step of 20 of the 30 images for each of three networks, one of all 15 images of a class for each of two.
    assert calls.call_count == 5


def test_model_of_another_configuration_is_refused(trained, tiny_flags, tmp_path):
    shutil.copytree(trained, tmp_path / "models")
    config = json.loads(tiny_flags["vae_config_name_or_path"].read_text())
    (tmp_path / "vae.json").write_text(json.dumps({**config, "latent_dim": 5}))
    flags = {**tiny_flags, "vae_config_name_or_path": tmp_path / "vae.json", "output_dir": tmp_path / "models"}
    with pytest.raises(
        ValueError, match=r"vae' holds a network of another run: the network's `latent_dim` \d+ there and"
    ):
        train(flags)
    assert_same_weights(weights_in(tmp_path / "models"), weights_in(trained))


def test_models_that_do_not_fit_together_are_refused_before_any_is_trained(tiny_flags, tmp_path):
    (tmp_path / "vae.json").write_text(json.dumps({"sample_size": 16}))
    flags = {**tiny_flags, "vae_config_name_or_path": tmp_path / "vae.json", "output_dir": tmp_path / "models"}
    with pytest.raises(ValueError, match="The models must have the same `in_channels` and `sample_size`"):
        train(flags)
    assert not list((tmp_path / "models").glob("[!.]*"))


def test_class_without_images_is_refused(image_folder, tiny_flags, tmp_path):
    shutil.copytree(image_folder, tmp_path / "images")
    shutil.copytree(image_folder / "test" / "light", tmp_path / "images" / "test" / "lighter")
    flags = {**tiny_flags, "train_data_dir": tmp_path / "images", "output_dir": tmp_path / "models"}
    with pytest.raises(
        ValueError, match="`train_split` expects images of every class, got 'train' without any of 'lighter'"
    ):
        train(flags)
    assert not list((tmp_path / "models").glob("[!.]*"))


def test_class_without_validation_images_is_refused(image_folder, tiny_flags, tmp_path):
    shutil.copytree(image_folder, tmp_path / "images")
    shutil.copytree(image_folder / "train" / "light", tmp_path / "images" / "train" / "lighter")
    flags = {**tiny_flags, "train_data_dir": tmp_path / "images", "output_dir": tmp_path / "models"}
    with pytest.raises(ValueError, match="`validation_split` expects images of every class, .* any of 'lighter'"):
        train(flags)
    assert not list((tmp_path / "models").glob("[!.]*"))


def test_unknown_validation_split_is_refused(tiny_flags, tmp_path):
    flags = {**tiny_flags, "validation_split": "other", "output_dir": tmp_path / "models"}
    with pytest.raises(ValueError, match=r"`--validation_split` expects one of .* \['test', 'train'\], got 'other'"):
        train(flags)


@pytest.mark.parametrize("script", ["train_metric_models", "train_baselines"])
def test_several_processes_are_refused(script, monkeypatch, tmp_path):
    module = load_script(script)
    monkeypatch.setattr(module, "PartialState", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="expected to train in one process, got 2"):
        module.main(to_argv({"dataset_name": "me/data", "output_dir": tmp_path / "models"}))


def test_second_run_in_the_same_folder_is_refused(tiny_flags, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(OSError, match="is being written by another run. Wait until it"):
        train({**tiny_flags, "output_dir": tmp_path / "out"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
