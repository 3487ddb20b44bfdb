# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The shipped causal graph of handwritten digits, against the truth of its world."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.worlds import MorphoMNISTWorld


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pipe():
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(ROOT / "checkpoints" / "diffscm-morphomnist-graph")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def world():
    images = np.stack([np.asarray(Image.open(ROOT / "examples" / "digits" / f"{digit}.png")) for digit in range(10)])
    return MorphoMNISTWorld(images, np.arange(10))


def test_counterfactuals_are_near_the_truth(pipe, world):
    factual = world.sample(16, torch.Generator().manual_seed(5))
    do = {"thickness": torch.linspace(1.5, 4, 16)}
    truth = world.counterfactual(factual, do)
    output = pipe(factual.images, attributes=factual.variables, do=do, output_type="pt")
    assert (output.images - truth.images).abs().mean() < 0.5 * (factual.images - truth.images).abs().mean()
    intensity = output.counterfactual_attributes["intensity"]
    assert (intensity - truth.variables["intensity"]).abs().mean() < 2
