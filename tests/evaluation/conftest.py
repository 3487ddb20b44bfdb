# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import PIL.Image
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMScheduler, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.metrics.networks import ImageAutoencoder, ImageClassifier, LatentVAE


CLASSES = ["dark", "grey", "light"]
ID2LABEL = dict(enumerate(CLASSES))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """Keeps accelerate off other devices, where sums may be taken in another order each time."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def fresh_accelerator():
    """Lets a script choose a precision: a process has one for good otherwise."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Greyscale 8x8 noise of three brightnesses: 6 images of each to compare with and 4 factuals."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for low, label in enumerate(CLASSES):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(80 * low, 80 * low + 90, (8, 8), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """An untrained `DiffSCMCounterfactualPipeline`."""
    torch.manual_seed(0)
    shared = {
        "sample_size": 8,
        "in_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "norm_num_groups": 4,
    }
    pipe = DiffSCMCounterfactualPipeline(
        UNet2DModel(out_channels=1, up_block_types=("UpBlock2D", "UpBlock2D"), add_attention=False, **shared),
        AntiCausalClassifier2DModel(num_classes=3, id2label=ID2LABEL, add_attention=False, **shared),
        DDIMScheduler(num_train_timesteps=20),
        default_guidance_scale=1.5,
        default_num_inference_steps=2,
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def metric_models(tmp_path_factory):
    """Untrained metric models."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("metrics")
    LatentVAE(8, latent_dim=3, block_out_channels=(4,), hidden_features=8).save_pretrained(folder / "vae")
    ImageAutoencoder(8, encoder_layers=(2, "pool", 1), decoder_layers=("up", 2)).save_pretrained(
        folder / "autoencoder"
    )
    for c in range(3):
        autoencoder = ImageAutoencoder(8, encoder_layers=(2, "pool", 1), decoder_layers=("up", 2))
        autoencoder.save_pretrained(folder / "class_autoencoders" / str(c))
    oracle = ImageClassifier(8, num_classes=3, id2label=ID2LABEL, block_out_channels=(4, 4), hidden_features=8)
    oracle.save_pretrained(folder / "oracle")
    return folder


@pytest.fixture
def flags(image_folder, cache_dir, checkpoint, metric_models):
    """What both scripts need."""
    return {
        "train_data_dir": image_folder,
        "cache_dir": cache_dir,
        "pretrained_model_name_or_path": checkpoint,
        "metric_models": metric_models,
        "batch_size": 4,
    }
