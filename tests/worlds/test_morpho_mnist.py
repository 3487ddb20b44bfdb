# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import colorsys
import doctest
import importlib
import json
import os

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from scipy import stats

from diffscm_diffusers.worlds import (
    MorphoMNISTWorld,
    measure_hue,
    measure_intensity,
    measure_slant,
    measure_thickness,
)


VARIANTS = {"grey": {}, "slant": {"slant": True}, "colour": {"color": True}, "both": {"slant": True, "color": True}}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(distance: np.ndarray) -> np.ndarray:
    """A shape, by each pixel's distance to its edge, positive inside. The edge is one pixel wide."""
    return np.round(255 * np.clip(distance + 0.5, 0, 1)).astype(np.uint8)


def coordinates() -> tuple[np.ndarray, np.ndarray]:
    return np.arange(28)[:, None] - 13.5, np.arange(28) - 13.5


def ring(thickness: float, radius: float = 7) -> np.ndarray:
    y, x = coordinates()
    return draw(thickness / 2 - abs(np.hypot(x, y) - radius))


def bar(thickness: float, length: float = 18, slant: float = 0) -> np.ndarray:
    """A bar that leans to the right by `slant` degrees."""
    y, x = coordinates()
    along = x * np.sin(np.radians(slant)) - y * np.cos(np.radians(slant))
    across = x * np.cos(np.radians(slant)) + y * np.sin(np.radians(slant))
    return draw(np.minimum(thickness / 2 - abs(across), length / 2 - abs(along)))


BASE_DIGITS = np.stack([ring(2), ring(3, radius=6), bar(2), bar(3, slant=20)])
LABELS = np.array([0, 6, 1, 7])


def make_world(**options) -> MorphoMNISTWorld:
    return MorphoMNISTWorld(BASE_DIGITS, LABELS, **options)


def to_images(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))[:, None] / 255


def draw_variables(**options):
    # Variables alone: rendering is what takes the time.
    world = make_world(**options)
    world._render = lambda variables, noise: torch.zeros(len(noise["base_digit"]), 1, 1, 1)
    return world.sample(20000, seeded(0))


@pytest.mark.parametrize("thickness", [1.5, 2, 3, 4])
def test_thickness_of_a_ring(thickness):
    assert measure_thickness(to_images(ring(thickness))).item() == pytest.approx(thickness, abs=0.1)


def test_thickness_of_an_image_does_not_depend_on_the_images_beside_it():
    images = torch.rand(3, 1, 28, 28, generator=seeded(0))  # of many strokes, with ties between pixels
    alone = torch.cat([measure_thickness(image[None]) for image in images])
    assert torch.equal(measure_thickness(images), alone)
    assert torch.equal(measure_thickness(images.flip(0)), alone.flip(0))


def test_intensity_is_the_median_of_the_bright_pixels():
    image = np.zeros((28, 28), np.uint8)
    image[5, :5] = [99, 100, 150, 180, 200]
    assert measure_intensity(to_images(image)).item() == pytest.approx(165)


@pytest.mark.parametrize("slant", [-30, 0, 15])
def test_slant_of_a_sheared_bar(slant):
    y, x = coordinates()
    image = draw(np.minimum(1.5 - abs(x + np.tan(np.radians(slant)) * y), 9 - abs(y)))
    assert measure_slant(to_images(image)).item() == pytest.approx(slant, abs=0.5)


@pytest.mark.parametrize("hue", [0.05, 0.4, 0.95])
def test_hue_of_a_coloured_image(hue):
    image = torch.from_numpy(ring(3) / 255).float() * torch.tensor(colorsys.hsv_to_rgb(hue, 1, 0.8))[:, None, None]
    assert measure_hue(image[None]).item() == pytest.approx(hue, abs=1e-5)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_intervening_with_the_factual_values_gives_the_factual(options):
    world = make_world(**options)
    sample = world.sample(6, seeded(0))

    assert torch.equal(world.counterfactual(sample, do={}).images, sample.images)
    for name in set(sample.variables) - {"digit"}:
        counterfactual = world.counterfactual(sample, do={name: sample.variables[name]})
        assert torch.equal(counterfactual.images, sample.images), name


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_images_have_the_stated_form(options):
    world = make_world(**options)
    images = world.sample(6, seeded(0)).images

    assert images.shape == (6, 3 if "color" in options else 1, 28, 28)
    assert images.dtype == torch.float32
    assert images.min() == 0 and images.max() <= 1
    torch.testing.assert_close(images * 255, (images * 255).round(), atol=1e-4, rtol=0)
    json.dumps(world.graph)


def test_same_seed_gives_the_same_samples():
    world = make_world()
    first, again, other = (world.sample(6, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_sample_does_not_depend_on_the_samples_beside_it():
    world = make_world(slant=True)
    sample = world.sample(6, seeded(0))
    noise = {name: value[3:4] for name, value in sample.exogenous_noise.items()}
    variables = {name: value[3:4] for name, value in sample.variables.items()}
    assert torch.equal(world._render(variables, noise), sample.images[3:4])


def test_marginals_and_correlation():
    sample = draw_variables(slant=True, color=True)
    variables = {name: value.double().numpy() for name, value in sample.variables.items()}

    assert stats.kstest(variables["thickness"] - 0.5, stats.gamma(10, scale=1 / 5).cdf).pvalue > 0.01
    logits = np.log((variables["intensity"] - 64) / (255 - variables["intensity"]))
    assert stats.kstest((logits - 2 * variables["thickness"] + 5) / 0.5, "norm").pvalue > 0.01
    assert np.corrcoef(variables["thickness"], variables["intensity"])[0, 1] == pytest.approx(0.91, abs=0.01)
    assert stats.kstest((variables["slant"] + 27 - 6 * variables["digit"]) / 3, "norm").pvalue > 0.01
    assert stats.kstest((variables["hue"] - 0.05 - variables["digit"] / 10) / 0.05, "norm").pvalue > 0.01
    labels = LABELS[sample.exogenous_noise["base_digit"].numpy()]
    assert np.array_equal(variables["digit"], labels)
    assert stats.chisquare(np.bincount(sample.exogenous_noise["base_digit"])).pvalue > 0.01


def test_thickness_is_a_cause_of_intensity_and_not_the_other_way_round():
    world = make_world()
    sample = world.sample(4, seeded(0))

    thicker = world.counterfactual(sample, do={"thickness": 3.5})
    logits = 2 * 3.5 - 5 + 0.5 * sample.exogenous_noise["intensity_noise"]
    torch.testing.assert_close(thicker.variables["intensity"], 64 + 191 * logits.sigmoid())
    brighter = world.counterfactual(sample, do={"intensity": 200})
    assert torch.equal(brighter.variables["thickness"], sample.variables["thickness"])
    both = world.counterfactual(sample, do={"thickness": 3.5, "intensity": 200})
    torch.testing.assert_close(both.variables["intensity"], torch.full((4,), 200.0))


@pytest.mark.parametrize("thickness", [1.5, 2.5, 4])
def test_counterfactual_of_a_ring_is_a_thicker_or_thinner_ring(thickness):
    world = MorphoMNISTWorld(ring(2.5)[None], np.array([0]))
    sample = world.sample(1, seeded(0))
    image = world.counterfactual(sample, do={"thickness": thickness, "intensity": 180}).images

    def error(thickness):
        # Up to the brightness, which other tests are about.
        expected = to_images(ring(thickness))
        expected = expected * (image * expected).sum() / expected.square().sum()
        return (image - expected).abs().mean()

    assert error(thickness) < 0.005
    assert error(thickness - 0.5) > 0.01 and error(thickness + 0.5) > 0.01


def test_counterfactual_is_made_from_the_base_digit():
    """Erosion removes strokes from the factual, and a thicker counterfactual has them again."""
    base_digit = np.maximum(bar(6), ring(2, radius=9))
    world = MorphoMNISTWorld(base_digit[None], np.array([0]))
    sample = world.sample(1, seeded(0))
    thin = world.counterfactual(sample, do={"thickness": 0.6, "intensity": 200})
    assert thin.images[0, 0, 13, 4:7].max() < 0.1  # the ring is gone
    thick = world.counterfactual(thin, do={"thickness": sample.variables["thickness"]})
    assert torch.equal(thick.images, sample.images)
    assert thick.images[0, 0, 13, 4:7].max() > 0.3


def test_attributes_measured_in_the_images_agree_with_the_variables():
    world = MorphoMNISTWorld(np.stack([ring(2), ring(3)]), np.array([2, 5]), slant=True, color=True)
    sample = world.sample(8, seeded(1))

    for name, measure, tolerance in (
        ("thickness", measure_thickness, 0.3),
        ("intensity", measure_intensity, 1.0),
        ("slant", measure_slant, 2.0),
        ("hue", measure_hue, 0.01),
    ):
        torch.testing.assert_close(measure(sample.images), sample.variables[name], atol=tolerance, rtol=0)


def test_slant_and_hue_are_set_without_touching_the_rest():
    world = make_world(slant=True, color=True)
    sample = world.sample(4, seeded(0))
    slanted = world.counterfactual(sample, do={"slant": 20.0})
    recoloured = world.counterfactual(sample, do={"hue": 0.4})
    torch.testing.assert_close(measure_slant(slanted.images), torch.full((4,), 20.0), atol=2, rtol=0)
    torch.testing.assert_close(recoloured.images.amax(1), sample.images.amax(1), atol=0.5 / 255, rtol=0)
    torch.testing.assert_close(measure_hue(recoloured.images), torch.full((4,), 0.4), atol=0.01, rtol=0)
    for name in ("digit", "thickness", "intensity"):
        assert torch.equal(slanted.variables[name], sample.variables[name])


@pytest.mark.parametrize(
    "do, message",
    [
        ({"digit": 3}, r"among \['thickness', 'intensity'\], got 'digit': no one knows"),
        ({"base_digit": 3}, "'base_digit', which is exogenous noise"),
        ({"slant": 3.0}, "'slant', which is not a variable"),
        ({"thickness": 0.4}, r"values in \[0.5, 8.0\], got 0.4"),
        ({"intensity": 256}, r"values in \[64.0, 255.0\], got 256"),
        ({"thickness": torch.ones(3)}, r"shape \(4,\), got shape \(3,\)"),
    ],
)
def test_wrong_interventions_are_refused(do, message):
    world = make_world()
    with pytest.raises(ValueError, match=message):
        world.counterfactual(world.sample(4, seeded(0)), do=do)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"images": BASE_DIGITS / 255}, TypeError, "`images` expects `uint8`, got float64"),
        ({"images": BASE_DIGITS[:, :20]}, ValueError, r"28, 28\), got \(4, 20, 28\)"),
        ({"images": BASE_DIGITS[:0], "labels": LABELS[:0]}, ValueError, r"got \(0, 28, 28\)"),
        ({"images": BASE_DIGITS * np.uint8([1, 1, 0, 1])[:, None, None]}, ValueError, "one grey level in image 2"),
        ({"labels": LABELS / 2}, TypeError, "`labels` expects integers, got float64"),
        ({"labels": LABELS[:3]}, ValueError, r"each of the 4 images, got \(3,\)"),
        ({"labels": LABELS + 3}, ValueError, "from 0 to 9, got 10"),
    ],
)
def test_wrong_base_digits_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        MorphoMNISTWorld(**{"images": BASE_DIGITS, "labels": LABELS, **change})


@pytest.mark.parametrize("measure", [measure_thickness, measure_intensity, measure_slant, measure_hue])
def test_wrong_images_are_not_measured(measure):
    images = to_images(*BASE_DIGITS)
    for wrong, error, message in (
        (images.numpy(), TypeError, "got ndarray"),
        ((images * 255).byte(), TypeError, "got torch.uint8"),
        (images[0], ValueError, r"got \(1, 28, 28\)"),
        (images * 255, ValueError, "got 0 to 255"),
        (images * torch.nan, ValueError, "got nan to nan"),
        (images * 0, ValueError, "one grey level in image 0"),
    ):
        with pytest.raises(error, match=message):
            measure(wrong)
    with pytest.raises(ValueError, match="three channels"):
        measure_hue(images)


def make_dataset(images: list[PIL.Image.Image]) -> Dataset:
    features = Features({"digits": Image(), "number": ClassLabel(num_classes=10)})
    return Dataset.from_dict({"digits": images, "number": LABELS[: len(images)]}, features)


def test_base_digits_from_a_dataset():
    dataset = make_dataset([PIL.Image.fromarray(image) for image in BASE_DIGITS])
    world = MorphoMNISTWorld.from_dataset(dataset, image_column="digits", label_column="number", slant=True)
    expected = make_world(slant=True).sample(4, seeded(0))
    sample = world.sample(4, seeded(0))
    assert torch.equal(sample.images, expected.images)
    assert torch.equal(sample.variables["digit"], expected.variables["digit"])


def test_wrong_datasets_are_refused():
    colour = make_dataset([PIL.Image.fromarray(BASE_DIGITS[0]), PIL.Image.new("RGB", (28, 28))])
    with pytest.raises(ValueError, match=r"`image_column` expects a column among \['digits', 'number'\], got 'image'"):
        MorphoMNISTWorld.from_dataset(colour)
    with pytest.raises(ValueError, match="got 'RGB' of 28x28 in row 1"):
        MorphoMNISTWorld.from_dataset(colour, "digits", "number")
    features = Features({"image": Image(), "label": ClassLabel(names=["3", "three"])})
    named = Dataset.from_dict({"image": [PIL.Image.fromarray(BASE_DIGITS[0])], "label": [0]}, features)
    with pytest.raises(
        ValueError, match=r"`label_column` expects classes with the names of digits, .*\['3', 'three'\]"
    ):
        MorphoMNISTWorld.from_dataset(named)


def test_examples_run():
    module = importlib.import_module("diffscm_diffusers.worlds.morpho_mnist")
    failed, attempted = doctest.testmod(module)
    assert failed == 0 and attempted > 0


@pytest.mark.skipif("DIFFSCM_MNIST" not in os.environ, reason="DIFFSCM_MNIST does not name MNIST's data set")
def test_real_digits():
    dataset = load_dataset(os.environ["DIFFSCM_MNIST"], split="test")
    sample = MorphoMNISTWorld.from_dataset(dataset).sample(500, seeded(0))
    thickness_error = measure_thickness(sample.images) - sample.variables["thickness"]
    assert thickness_error.abs().mean() < 0.15
    assert 0 < thickness_error.mean() < 0.12
    assert (measure_intensity(sample.images) - sample.variables["intensity"]).abs().mean() < 0.5
