# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The shipped metric models of MNIST, on the shipped factual digits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers.metrics import MetricModels


ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "checkpoints" / "diffscm-mnist-metrics"


@pytest.fixture(scope="module")
def models():
    return MetricModels.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def digits():
    paths = [ROOT / "examples" / "digits" / f"{digit}.png" for digit in range(10)]
    return torch.stack([torch.from_numpy(np.array(Image.open(path)))[None] / 255 for path in paths])


def mean_squared_errors(model, images):
    return (model(images) - images).square().mean(dim=(1, 2, 3))


def test_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 8e6


def test_oracle_reads_the_digits(models, digits):
    assert models.oracle(digits).argmax(dim=1).tolist() == list(range(10))
    assert models.oracle.id2label == {digit: str(digit) for digit in range(10)}


def test_vae_reconstructs_the_digits_from_20_numbers(models, digits):
    mean, variance = models.vae.encode(digits)
    assert mean.shape == variance.shape == (10, 20)
    assert mean_squared_errors(models.vae, digits).mean() < 0.02


def test_autoencoders_reconstruct_the_digits(models, digits):
    assert mean_squared_errors(models.autoencoder, digits).mean() < 0.005
    own, others = [], []
    for digit, autoencoder in enumerate(models.class_autoencoders):
        errors = mean_squared_errors(autoencoder, digits)
        own.append(errors[digit])
        others.append(errors.mean())
    assert torch.stack(own).mean() < 0.9 * torch.stack(others).mean()
