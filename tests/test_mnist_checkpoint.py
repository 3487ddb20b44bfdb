# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The shipped MNIST checkpoint, on the shipped factual digits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers import DiffSCMCounterfactualPipeline


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pipe():
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(ROOT / "checkpoints" / "diffscm-mnist")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def read_digit(digit: int) -> Image.Image:
    return Image.open(ROOT / "examples" / "digits" / f"{digit}.png")


def test_reconstructs_digits(pipe):
    factuals = [read_digit(digit) for digit in (2, 7)]
    reconstructions = pipe(factuals, guidance_scale=0, num_inference_steps=20).images
    for factual, reconstruction in zip(factuals, reconstructions, strict=True):
        assert np.abs(np.asarray(factual, float) - np.asarray(reconstruction, float)).mean() / 255 < 0.05


def test_predictor_reads_digits_and_forgets_them_with_noise(pipe):
    factuals = pipe.prepare_image([read_digit(digit) for digit in range(10)])
    labels = torch.arange(10)
    with torch.no_grad():
        clean = pipe.classifier(factuals, 0).logits
        noise = torch.randn(factuals.shape, generator=torch.Generator().manual_seed(0))
        blurred = pipe.classifier(noise, 999).logits
    assert (clean.argmax(dim=1) == labels).float().mean() >= 0.9
    assert blurred.softmax(dim=1).max() < 0.5


def test_counterfactual_shows_its_target(pipe):
    output = pipe(read_digit(7), [2, 9], num_inference_steps=20)
    assert (output.log_probs.exp() > 0.5).all()


@pytest.mark.slow
def test_demo_draws_its_picture(tmp_path):
    picture = tmp_path / "picture.png"
    subprocess.run(
        [
            sys.executable,
            ROOT / "examples" / "mnist_counterfactuals.py",
            *("--num_inference_steps", "2"),
            *("--output", picture),
        ],
        check=True,
    )
    assert Image.open(picture).width > 1000
