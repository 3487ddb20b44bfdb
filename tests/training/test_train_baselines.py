# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import shutil
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file

from diffscm_diffusers.baselines import SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.data.image_files import decode_image
from diffscm_diffusers.data.images import load_image_dataset
from diffscm_diffusers.data.samples import draw_numbers
from diffscm_diffusers.evaluation.methods import METHODS
from diffscm_diffusers.files import locked
from diffscm_diffusers.metrics.networks import MLPEnsemble
from diffscm_diffusers.training import trainer
from tests.helpers import load_script, to_argv


# What the module's fixtures make is made once, in one worker.
pytestmark = pytest.mark.xdist_group("baselines")

WEIGHTS = "diffusion_pytorch_model.safetensors"
NAMES = (
    "van-looveren-klaise/classifier",
    "van-looveren-klaise/autoencoder",
    "van-looveren-klaise/prototypes",
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
    splits = load_image_dataset(
        train_data_dir=flags["train_data_dir"], label_column="label", cache_dir=flags["cache_dir"]
    )
    rows = splits["train"][:]
    images = torch.stack([torch.from_numpy(np.array(decode_image(i, "L")))[None] / 255 for i in rows["image"]])
    return images, torch.tensor(rows["label"])


def test_the_evaluation_finds_the_methods_by_their_names(trained):
    for name in ("van-looveren-klaise", "schut"):
        inputs = {"pairs": None, "factuals": None, "baselines": str(trained), "accelerator": Accelerator(cpu=True)}
        method = METHODS[name].create(**inputs, class_names=["light", "dark"])
        with pytest.raises(ValueError, match="`--baselines` '.*' expects the classes .*'dark', 'light', got 'dark'."):
            METHODS[name].create(**inputs, class_names=["dark"])
        assert method.settings["baselines"] == str(trained)


def test_trained_methods_load_and_have_learned(trained, tiny_flags):
    images, labels = load_rows(tiny_flags)
    van_looveren_klaise = VanLooverenKlaisePipeline.from_pretrained(trained / "van-looveren-klaise")
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
def test_validation_images_are_of_every_class_and_held_out(trained, tiny_flags):
    images, labels = load_rows(tiny_flags)
    held_out = draw_numbers(labels.tolist(), 4, 0, "num_validation_images")
    assert set(labels[held_out].tolist()) == {0, 1}
    images, labels = (torch.stack([r for i, r in enumerate(t) if i not in held_out]) for t in (images, labels))
    pipe = VanLooverenKlaisePipeline.from_pretrained(trained / "van-looveren-klaise")
    encodings = pipe.autoencoder.encode(images)
    for c in (0, 1):
        torch.testing.assert_close(pipe.prototypes.encodings[c], encodings[labels == c].mean(dim=0))


def test_interrupted_run_goes_on_to_the_same_weights(trained, tiny_flags, tmp_path, capsys):
    flags = {**tiny_flags, "output_dir": tmp_path, "resume_from_checkpoint": "latest", "checkpointing_steps": 20}
    seed_dropout = trainer.seed_dropout

    def stop_in_the_ensemble(seed, step, process_index):
        if step == 30 and (tmp_path / "van-looveren-klaise" / "prototypes").exists():
            raise KeyboardInterrupt
        seed_dropout(seed, step, process_index)

    with mock.patch.object(trainer, "seed_dropout", stop_in_the_ensemble), pytest.raises(KeyboardInterrupt):
        train(flags)
    assert not (tmp_path / "schut").exists()
    assert (tmp_path / "checkpoints" / "schut" / "classifier" / "checkpoint-20").exists()
    train(flags)
    output = capsys.readouterr().out
    assert "van-looveren-klaise/classifier is already there" in output
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
    config = VanLooverenKlaisePipeline.from_pretrained(tmp_path / "van-looveren-klaise").config
    assert (config.c_steps, config.max_iterations, config.kappa) == (2, 1000, 0)


def test_seed_decides_the_weights(tiny_flags, tmp_path):
    epochs = {f"{name}_epochs": 1 for name in ("classifier", "autoencoder", "ensemble")}
    for seed in (0, 1):
        train({**tiny_flags, **epochs, "seed": seed, "output_dir": tmp_path / str(seed)})
    first, second = weights_in(tmp_path / "0"), weights_in(tmp_path / "1")
    for name, state in first.items():
        assert not all(torch.equal(value, second[name][key]) for key, value in state.items()), name


def test_each_member_sees_all_images_in_an_order_of_its_own(tiny_flags):
    images, labels = load_rows(tiny_flags)
    batches = {"pixel_values": images, "labels": labels}
    dataset = mock.Mock(__len__=lambda self: 30)
    dataset.__getitems__ = lambda rows: {name: values[rows] for name, values in batches.items()}
    members = load_script("train_baselines").MemberImages(dataset, num_members=3, seed=0)
    assert len(members) == 30
    batch = members.__getitems__(list(range(29, -1, -1)))
    assert batch["pixel_values"].shape == (3, 30, 1, 8, 8)
    orders = []
    for member in range(3):
        rows = [int((images == image).all(dim=(1, 2, 3)).nonzero()) for image in batch["pixel_values"][member]]
        assert sorted(rows) == list(range(30))
        assert torch.equal(batch["labels"][member], labels[rows])
        orders.append(tuple(rows))
    assert len(set(orders)) == 3


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
    with pytest.raises(ValueError, match="`--num_validation_images` expects less than the 30 images"):
        train({**tiny_flags, "output_dir": tmp_path, "num_validation_images": 30})


def test_second_run_in_the_same_folder_is_refused(tiny_flags, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(OSError, match="is being written by another run. Wait until it"):
        train({**tiny_flags, "output_dir": tmp_path / "out"})
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
