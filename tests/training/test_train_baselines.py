# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from diffscm_diffusers.baselines import SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.metrics.networks import MLPEnsemble
from tests.helpers import load_script, to_argv


WEIGHTS = "diffusion_pytorch_model.safetensors"
NAMES = (
    "van_looveren_klaise/classifier",
    "van_looveren_klaise/autoencoder",
    "van_looveren_klaise/prototypes",
    "schut/classifier",
)


@pytest.fixture(scope="module")
def tiny_flags(image_folder, cache_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline_configs")
    configs = {
        "classifier": {"block_out_channels": [4], "block_kernel_sizes": [2], "block_dropouts": [0.3]},
        "autoencoder": {"encoder_layers": [4, "pool", 1], "decoder_layers": [4, "up"]},
        "ensemble": {"num_members": 3, "hidden_features": [8]},
    }
    flags = {"train_data_dir": image_folder, "cache_dir": cache_dir, "num_validation_images": 4}
    for name, config in configs.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({"sample_size": 8, **config}))
        flags[f"{name}_config_name_or_path"] = path
        flags[f"{name}_epochs"] = 8
    return {**flags, "train_batch_size": 4, "learning_rate": 0.01}


def train(flags):
    load_script("train_baselines").main(to_argv(flags))


@pytest.fixture(scope="module")
def trained(tiny_flags, tmp_path_factory):
    """Folder of one uninterrupted run."""
    folder = tmp_path_factory.mktemp("trained")
    with mock.patch.dict("os.environ", ACCELERATE_USE_CPU="true"):
        train({**tiny_flags, "output_dir": folder})
    return folder


def weights_in(folder):
    return {name: load_file(folder / name / WEIGHTS) for name in NAMES}


def load_rows(flags):
    script = load_script("train_baselines")
    rows = script.load_image_dataset(script.parse_args(to_argv({**flags, "output_dir": "unused"})), "label")["train"][
        :
    ]
    images = torch.stack([torch.from_numpy(np.array(image))[None] / 255 for image in rows["image"]])
    return images, torch.tensor(rows["label"])


def test_trained_methods_load_and_have_learned(trained, tiny_flags):
    images, labels = load_rows(tiny_flags)
    van_looveren_klaise = VanLooverenKlaisePipeline.from_pretrained(trained / "van_looveren_klaise")
    schut = SchutPipeline.from_pretrained(trained / "schut")
    with torch.no_grad():
        assert (van_looveren_klaise.classifier(images).argmax(dim=1) == labels).all()
        assert (schut.classifier(images).argmax(dim=2) == labels).float().mean() > 0.95
        # Better than grey for every pixel.
        assert (van_looveren_klaise.autoencoder(images) - images).square().mean() < 1 / 12
    for pipe in (van_looveren_klaise, schut):
        assert pipe.classifier.id2label == {0: "dark", 1: "light"}
        pipe.register_to_config(max_iterations=2)
        assert len(pipe(images[0], ["dark", "light"]).images) == 2


@torch.no_grad()
def test_last_images_are_held_out(trained, tiny_flags):
    images, labels = load_rows(tiny_flags)
    pipe = VanLooverenKlaisePipeline.from_pretrained(trained / "van_looveren_klaise")
    encodings = pipe.autoencoder.encode(images)[:-4]
    for c in (0, 1):
        torch.testing.assert_close(pipe.prototypes.encodings[c], encodings[labels[:-4] == c].mean(dim=0))


def test_interrupted_run_goes_on_to_the_same_weights(trained, tiny_flags, tmp_path, capsys):
    flags = {**tiny_flags, "output_dir": tmp_path}
    weights = tmp_path / "van_looveren_klaise" / "autoencoder" / WEIGHTS
    replace = os.replace

    def interrupted(source, target):
        if Path(target) == weights:
            raise KeyboardInterrupt
        replace(source, target)

    # Ends when the second network is complete but its weights have not got their name yet.
    with mock.patch("os.replace", interrupted), pytest.raises(KeyboardInterrupt):
        train(flags)
    classifier = tmp_path / "van_looveren_klaise" / "classifier" / WEIGHTS
    assert classifier.exists() and not weights.exists()
    train(flags)
    assert "classifier is already there" in capsys.readouterr().out
    expected = weights_in(trained)
    for name, state in weights_in(tmp_path).items():
        for key, value in state.items():
            assert torch.equal(value, expected[name][key]), (name, key)
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (tmp_path, trained)]
    assert files[0] == files[1]


def test_settings_change_without_training(trained, tiny_flags, tmp_path, capsys):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    assert SchutPipeline.from_pretrained(tmp_path / "schut").config.confidence == 0.999999
    train({**tiny_flags, "output_dir": tmp_path, "settings": "published"})
    assert capsys.readouterr().out.count("is already there") == 3
    assert SchutPipeline.from_pretrained(tmp_path / "schut").config.confidence == 0.99
    config = VanLooverenKlaisePipeline.from_pretrained(tmp_path / "van_looveren_klaise").config
    assert (config.c_steps, config.max_iterations, config.kappa) == (2, 1000, 0)


def test_seed_decides_the_weights(trained, tiny_flags, tmp_path):
    train({**tiny_flags, "output_dir": tmp_path, "seed": 1})
    expected = weights_in(trained)
    for name, state in weights_in(tmp_path).items():
        assert not all(torch.equal(value, expected[name][key]) for key, value in state.items()), name


def test_each_member_trains_against_its_own_adversaries():
    """Of a linear ensemble without hidden layers, whose adversaries move each pixel against its weight."""
    script = load_script("train_baselines")
    ensemble = MLPEnsemble(2, num_classes=2, num_members=2, hidden_features=())
    images, labels = 0.3 + 0.4 * torch.rand(2, 5, 1, 2, 2), torch.randint(2, (2, 5))
    loss = script.adversarial_loss(ensemble, images.clone(), labels, step=0.1)

    expected = 0
    for member in range(2):
        weight, bias = ensemble.layers[0].weight[member], ensemble.layers[0].bias[member]
        x, y = images[member].flatten(1), labels[member]
        towards_one = (weight[:, 1] - weight[:, 0]).sign()
        adversaries = x + 0.1 * torch.where(y[:, None] == 1, -towards_one, towards_one)
        for batch in (x, adversaries):
            expected += F.cross_entropy(batch @ weight + bias, y) / 2
    torch.testing.assert_close(loss, expected)
    # Images stay images.
    black = torch.zeros(2, 5, 1, 2, 2)
    with mock.patch.object(ensemble, "forward", wraps=ensemble.forward) as forward:
        script.adversarial_loss(ensemble, black, labels, step=0.1)
    adversaries = forward.call_args.args[0]
    assert adversaries.min() == 0 and adversaries.max() == pytest.approx(0.1)


def test_everything_held_out(tiny_flags, tmp_path):
    with pytest.raises(ValueError, match="`--num_validation_images` takes less than the 30 images"):
        train({**tiny_flags, "output_dir": tmp_path, "num_validation_images": 30})
