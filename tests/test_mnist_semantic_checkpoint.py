# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The shipped MNIST checkpoint with a code, on the shipped factual digits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.worlds.morpho_mnist import measure_thickness


ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "checkpoints" / "diffscm-mnist-semantic"
DIGITS = torch.arange(10)


@pytest.fixture(scope="module")
def pipe():
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def factuals():
    images = [np.asarray(Image.open(ROOT / "examples" / "digits" / f"{digit}.png")) for digit in range(10)]
    return torch.from_numpy(np.stack(images))[:, None].float() / 255


@torch.no_grad()
def test_counterfactuals_show_their_targets(pipe, factuals):
    oracle = MetricModels.from_pretrained(ROOT / "checkpoints" / "diffscm-mnist-metrics").oracle
    output = pipe(factuals, (DIGITS + 3) % 10, output_type="pt")
    assert torch.equal(output.factual_class, DIGITS)
    assert (oracle(output.images).argmax(dim=1) == (DIGITS + 3) % 10).sum() >= 9


def test_null_intervention_gives_the_factual_back(pipe, factuals):
    images = pipe(factuals, DIGITS, DIGITS, output_type="pt").images
    assert (images - factuals).abs().mean() < 0.002


def test_thickness_of_the_strokes_is_kept(pipe, factuals):
    eights = pipe(factuals, 8, DIGITS, output_type="pt").images
    thickness = torch.stack([measure_thickness(factuals), measure_thickness(eights)])
    assert torch.corrcoef(thickness)[0, 1] > 0.7
