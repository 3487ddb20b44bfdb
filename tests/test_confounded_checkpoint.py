# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The shipped model of digits in colour, trained where digit and hue go together, where they do not."""

from pathlib import Path

import torch

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.worlds import TypefaceWorld


CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "diffscm-typeface-confounded"


def test_another_digit_keeps_its_hue():
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(CHECKPOINT)
    pipe.set_progress_bar_config(disable=True)
    world = TypefaceWorld(color=True, confounding=0.0)
    factual = world.sample(16, torch.Generator().manual_seed(5))
    attributes = {name: factual.variables[name] for name in ("digit", "hue")}
    digit = (attributes["digit"] + 1 + torch.arange(16) % 9) % 10
    truth = world.counterfactual(factual, {"digit": digit}).images
    images = pipe(factual.images, attributes, {"digit": digit}, output_type="pt").images
    assert (images - truth).abs().mean() < 0.6 * (factual.images - truth).abs().mean()

    # By the confounder, the hue of another digit is another one, by 0.25 turns on average.
    red, green, blue = images.sum(dim=(2, 3)).unbind(dim=1)
    hue = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi)
    assert ((hue - attributes["hue"] + 0.5) % 1 - 0.5).abs().mean() < 0.025
