# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from diffscm_diffusers.worlds import TypefaceWorld
from diffscm_diffusers.worlds.typeface import _glyphs


VARIANTS = {
    "grey": {},
    "64": {"image_size": 64},
    "colour": {"color": True},
    "confounded": {"color": True, "confounding": 0.9},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def confounded(strength: float):
    # Variables alone: rendering is what takes the time.
    world = TypefaceWorld(color=True, confounding=strength)
    world._render = lambda variables, noise: torch.zeros(len(noise["ink"]), 3, 1, 1)
    return world, world.sample(20000, seeded(0))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_intervening_with_the_factual_value_gives_the_factual(options):
    world = TypefaceWorld(**options)
    sample = world.sample(20, seeded(0))

    for name, value in sample.variables.items():
        counterfactual = world.counterfactual(sample, do={name: value})
        assert torch.equal(counterfactual.images, sample.images), name
    assert torch.equal(world.counterfactual(sample, do={}).images, sample.images)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_images_have_the_stated_form(options):
    world = TypefaceWorld(**options)
    images = world.sample(40, seeded(0)).images

    size = options.get("image_size", 28)
    assert images.shape == (40, 3 if "color" in options else 1, size, size)
    assert images.dtype == torch.float32
    assert images.min() == 0 and images.max() <= 1
    torch.testing.assert_close(images * 255, (images * 255).round(), atol=1e-4, rtol=0)
    json.dumps(world.graph)


def test_same_seed_gives_the_same_samples():
    world = TypefaceWorld()
    first, again, other = (world.sample(16, seeded(seed)) for seed in (3, 3, 4))

    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_counterfactual_changes_the_digit_and_keeps_the_style():
    world = TypefaceWorld()
    sample = world.sample(50, seeded(0))
    target = (sample.variables["digit"] + 1) % 10
    counterfactual = world.counterfactual(sample, do={"digit": target})

    assert counterfactual.exogenous_noise is sample.exogenous_noise
    assert torch.equal(counterfactual.variables["digit"], target)
    assert (counterfactual.images != sample.images).flatten(1).any(1).all()
    # The same digit for everyone shows the style alone.
    eights = world.counterfactual(sample, do={"digit": 8}).images
    assert torch.equal(world.counterfactual(counterfactual, do={"digit": torch.full((50,), 8)}).images, eights)
    assert torch.equal(world.counterfactual(counterfactual, do=dict(sample.variables)).images, sample.images)


def test_style_is_drawn_where_it_says():
    """Offset, ink and size, read off the pixels."""
    world = TypefaceWorld()
    sample = world.sample(300, seeded(0))
    # The zero's box is centred, and its ends lie opposite each other, so its centre of mass is near the offset.
    images = world.counterfactual(sample, do={"digit": 0}).images[:, 0]
    noise = sample.exogenous_noise
    points = torch.arange(28) - 13.5
    mass = images.sum((1, 2))

    for name, axis in (("offset_x", 1), ("offset_y", 2)):
        centre = (images.sum(axis) * points).sum(1) / mass
        assert (centre - noise[name]).abs().max() < 0.15
    assert (images.amax((1, 2)) <= noise["ink"] + 0.002).all()
    bold = noise["typeface"] == 1
    area = mass[bold] / noise["ink"][bold] / noise["size"][bold] ** 2
    assert area.std() / area.mean() < 0.01


def test_rotation_and_shear_turn_and_lean_as_stated():
    world = TypefaceWorld()
    sample = world.sample(400, seeded(0))
    noise = {**sample.exogenous_noise}
    # One glyph for all, so that the covariance of its ink changes as the affine map says.
    noise["typeface"] = torch.zeros_like(noise["typeface"])
    image = world._render({"digit": torch.full((400,), 7)}, noise)[:, 0]
    upright = {**noise, "rotation": torch.zeros(400), "shear": torch.zeros(400)}
    reference = world._render({"digit": torch.full((400,), 7)}, upright)[:, 0]

    points = torch.arange(28) - 13.5
    y, x = -points[:, None].expand(28, 28), points[None].expand(28, 28)

    def covariance(images):
        weight = images / images.sum((1, 2), keepdim=True)
        centred = torch.stack([x, y])[None] - (weight[:, None] * torch.stack([x, y])).sum((2, 3))[:, :, None, None]
        return torch.einsum("nhw,nihw,njhw->nij", weight, centred, centred)

    cos, sin, shear = noise["rotation"].cos(), noise["rotation"].sin(), noise["shear"]
    rotate = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    lean = torch.stack([torch.ones(400), shear, torch.zeros(400), torch.ones(400)], 1).view(-1, 2, 2)
    # Not exact: a pixel's own spread neither turns nor leans.
    expected = rotate @ lean @ covariance(reference) @ lean.mT @ rotate.mT
    inside = (image[:, [0, -1]].sum((1, 2)) + image[:, :, [0, -1]].sum((1, 2))) == 0
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(covariance(image)[inside], expected[inside], atol=0.4, rtol=0)


def test_digit_and_style_are_independent_and_uniform():
    world = TypefaceWorld()
    world._render = lambda variables, noise: torch.zeros(len(noise["ink"]), 1, 1, 1)
    sample = world.sample(20000, seeded(0))
    digit, noise = sample.variables["digit"], sample.exogenous_noise

    assert (digit.bincount(minlength=10) / 20000 - 0.1).abs().max() < 0.01
    assert (noise["typeface"].bincount(minlength=12) / 20000 - 1 / 12).abs().max() < 0.01
    for name, node in world.graph["exogenous_noise"].items():
        if name == "typeface":
            continue
        low, high = node["range"]
        assert noise[name].min() >= low and noise[name].max() <= high
        assert abs(noise[name].mean() - (low + high) / 2) < 0.02 * (high - low)
        assert abs(noise[name].std() - (high - low) / math.sqrt(12)) < 0.01 * (high - low)
        assert abs(torch.corrcoef(torch.stack([digit.float(), noise[name]]))[0, 1]) < 0.03


def test_digit_causes_the_hue_in_colour():
    world = TypefaceWorld(color=True)
    sample = world.sample(200, seeded(0))
    hue, digit = sample.variables["hue"], sample.variables["digit"]

    assert torch.equal((hue * 10).floor().long(), digit)
    moved = world.counterfactual(sample, do={"digit": (digit + 3) % 10})
    shift = moved.variables["hue"] - hue
    torch.testing.assert_close(shift, ((digit + 3) % 10 - digit) / 10)
    # The cause of an intervened variable keeps its value.
    red = world.counterfactual(sample, do={"hue": 0.0})
    assert torch.equal(red.variables["digit"], digit)
    assert red.images[:, 0].sum() > 0 and red.images[:, 1:].sum() == 0


@pytest.mark.parametrize("hue, rgb", [(0, (1, 0, 0)), (1 / 6, (1, 1, 0)), (1 / 3, (0, 1, 0)), (2 / 3, (0, 0, 1))])
def test_hue_is_the_usual_colour_circle(hue, rgb):
    world = TypefaceWorld(color=True)
    sample = world.sample(8, seeded(0))
    ink = sample.images.amax((1, 2, 3))
    images = world.counterfactual(sample, do={"hue": hue}).images

    expected = torch.tensor(rgb, dtype=torch.float32) * ink[:, None]
    torch.testing.assert_close(images.amax((2, 3)), expected, atol=0.08, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.95])
def test_confounder_has_the_stated_strength(strength):
    _, sample = confounded(strength)
    digit, hue, confounder = (sample.variables[name] for name in ("digit", "hue", "confounder"))

    assert torch.equal((hue * 10).floor().long(), confounder)
    agree = (digit == confounder).float().mean()
    assert abs(agree - (strength + (1 - strength) / 10)) < 0.01
    for variable in (digit, confounder):
        assert (variable.bincount(minlength=10) / len(variable) - 0.1).abs().max() < 0.01
    joint = F.one_hot(digit * 10 + confounder, 100).float().mean(0).view(10, 10)
    expected = strength * torch.eye(10) / 10 + (1 - strength) / 100
    assert (joint - expected).abs().max() < 0.005


def test_intervention_on_the_digit_leaves_its_confounder_and_the_hue():
    world, sample = confounded(0.9)
    counterfactual = world.counterfactual(sample, do={"digit": 4})
    assert torch.equal(counterfactual.variables["hue"], sample.variables["hue"])
    assert torch.equal(counterfactual.variables["confounder"], sample.variables["confounder"])

    changed = world.counterfactual(sample, do={"confounder": 4})
    assert ((changed.variables["hue"] * 10).floor() == 4).all()
    assert abs((changed.variables["digit"] == 4).float().mean() - 0.91) < 0.01


@pytest.mark.parametrize(
    "do, message",
    [
        ({"number": 3}, r"variables among \['digit'\], got 'number', which is not a variable"),
        ({"rotation": 0.1}, r"got 'rotation', which is exogenous noise"),
        ({"digit": 10}, r"do\['digit'\]` expects values in \[0, 9\], got 10"),
        ({"digit": -1}, r"expects values in \[0, 9\], got -1"),
        ({"digit": 3.0}, r"expects integers, got torch.float32"),
        ({"digit": True}, r"expects numbers, got torch.bool"),
        ({"digit": "3"}, r"expects a number or a tensor, got '3'"),
        ({"digit": torch.zeros(3, dtype=torch.long)}, r"tensor of shape \(4,\), got shape \(3,\)"),
        ({"digit": torch.zeros(4, 1, dtype=torch.long)}, r"tensor of shape \(4,\), got shape \(4, 1\)"),
    ],
)
def test_bad_interventions_are_refused(do, message):
    world = TypefaceWorld()
    with pytest.raises(ValueError, match=message):
        world.counterfactual(world.sample(4), do=do)


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1, [0.5, 0.5, 0.5, float("inf")]])
def test_hues_off_the_circle_are_refused(value):
    world = TypefaceWorld(color=True)
    with pytest.raises(ValueError, match=r"`do\['hue'\]` expects values in \[0.0, 1.0\], got"):
        world.counterfactual(world.sample(4), do={"hue": value})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 32}, "`image_size` expects 28 or 64, got 32"),
        ({"color": True, "confounding": 1.0}, r"`confounding` expects a number in \[0, 1\), got 1.0"),
        ({"color": True, "confounding": float("nan")}, r"`confounding` expects a number in \[0, 1\), got nan"),
        ({"confounding": 0.5}, "`confounding` expects `color=True`"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TypefaceWorld(**options)


@pytest.mark.parametrize("num_samples", [0, -1, 2.0, True])
def test_bad_numbers_of_samples_are_refused(num_samples):
    with pytest.raises(ValueError, match="`num_samples` expects an `int` of at least 1, got"):
        TypefaceWorld().sample(num_samples)


def test_noise_is_drawn_on_the_cpu():
    class CudaGenerator(torch.Generator):
        device = torch.device("cuda")

    with pytest.raises(ValueError, match="`generator` expects a generator on the CPU, got one on cuda"):
        TypefaceWorld().sample(1, CudaGenerator())


def test_fonts_are_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.font_manager", None)
    _glyphs.cache_clear()
    with pytest.raises(ImportError, match="`TypefaceWorld` needs the fonts of matplotlib: `pip install matplotlib`"):
        TypefaceWorld().sample(1, seeded(0))
