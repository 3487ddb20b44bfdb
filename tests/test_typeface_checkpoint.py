# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The shipped checkpoint of printed digits, on samples whose true counterfactuals are known."""

from pathlib import Path

import pytest
import torch

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.worlds import TypefaceWorld


CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "diffscm-typeface"


@pytest.fixture(scope="module")
def pipe():
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def factual():
    return TypefaceWorld().sample(30, torch.Generator().manual_seed(12))


def test_counterfactuals_are_near_the_truth(pipe, factual):
    digit = factual.variables["digit"]
    intervention = (digit + 3) % 10
    counterfactual = pipe(factual.images, intervention, digit, output_type="pt").images
    truth = TypefaceWorld().counterfactual(factual, {"digit": intervention}).images
    assert (counterfactual - truth).abs().mean() < 0.03
    assert (factual.images - truth).abs().mean() > 0.06


def test_null_intervention_gives_the_factual_back(pipe, factual):
    digit = factual.variables["digit"]
    images = pipe(factual.images, digit, digit, output_type="pt").images
    assert (images - factual.images).abs().mean() < 0.008


def test_reads_the_digits_of_factuals(pipe, factual):
    output = pipe(factual.images, 0, num_inference_steps=2, output_type="pt")
    assert (output.factual_class == factual.variables["digit"]).float().mean() > 0.95
