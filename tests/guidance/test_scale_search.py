# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import pytest
import torch

from diffscm_diffusers.guidance import GuidanceScaleSearch
from diffscm_diffusers.metrics.functional import counterfactual_latent_divergence
from diffscm_diffusers.models.anticausal_classifier_2d import AntiCausalClassifier2DOutput
from diffscm_diffusers.pipelines.pipeline_diffscm_counterfactual import DiffSCMCounterfactualPipelineOutput
from tests.pipelines.dummies import get_dummy_image, get_dummy_pipe, record_evaluations


def flat(*values):
    """Images of one value each."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)


@pytest.fixture
def pipe():
    return get_dummy_pipe()


@pytest.fixture
def brightening_pipe(pipe, monkeypatch):
    """A pipeline whose counterfactuals are brighter than their factuals by a hundredth of the scale."""
    calls = []

    def predict(noise, targets, guidance_scale, **kwargs):
        calls.append(guidance_scale)
        images = noise + guidance_scale[:, None, None, None] / 100
        # The predictor sees the target from a scale of `seen_from` on.
        log_probs = torch.where(guidance_scale >= pipe.seen_from, -0.0005, -0.5)
        return DiffSCMCounterfactualPipelineOutput(images=images, exogenous_noise=noise, log_probs=log_probs)

    pipe.seen_from = 0.0
    pipe.calls = calls
    monkeypatch.setattr(pipe, "predict", predict)
    monkeypatch.setattr(pipe, "abduct", lambda image, *args, **kwargs: image)
    logits = torch.tensor([[1.0, 0.0, 0.0]])
    monkeypatch.setattr(
        pipe.classifier,
        "forward",
        lambda sample, timestep: AntiCausalClassifier2DOutput(logits=logits.expand(len(sample), 3)),
    )
    return pipe


# Class 0 is up to 0.1 away from an image of value 0.2, class 1 at least 0.2.
REFERENCE = flat(0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6), torch.tensor([0] * 5 + [1] * 3)


def test_latents_are_encoded_in_full_precision(pipe):
    """Under autocast as well: the factual's latent is its own among the references'."""
    linear = torch.nn.Linear(64, 3)
    types = []

    def encode(image):
        mean = linear(image.flatten(1))
        types.append(mean.dtype)
        return mean, torch.ones_like(mean)

    classes = torch.tensor([0, 0, 1, 1, 2, 2])
    search = GuidanceScaleSearch(pipe, get_dummy_image(6), classes, encode, num_candidates=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        search(get_dummy_image(), 1, num_inference_steps=2)
    assert set(types) == {torch.float32}


class TestSearch:
    def test_finds_where_cld_is_lowest(self, brightening_pipe):
        output = GuidanceScaleSearch(brightening_pipe, *REFERENCE)(flat(0.2), 1, output_type="pt")
        # Between the classes: all of class 0 is nearer, all of class 1 is farther.
        assert output.cld.item() == pytest.approx(math.log(2))
        assert 10 < output.guidance_scale.item() < 20
        torch.testing.assert_close(output.images, flat(0.2) + output.guidance_scale / 100)

    def test_every_image_has_its_own_scale(self, brightening_pipe):
        """From 0.1 both classes are 0.1 farther away than from 0.2."""
        output = GuidanceScaleSearch(brightening_pipe, *REFERENCE)(flat(0.2, 0.1), 1, output_type="pt")
        assert output.cld.tolist() == pytest.approx([math.log(2)] * 2)
        assert 10 < output.guidance_scale[0] < 20 < output.guidance_scale[1] < 30

    def test_halves_the_range_of_the_logarithm(self, brightening_pipe):
        search = GuidanceScaleSearch(brightening_pipe, *REFERENCE, scale_range=(1.0, 16.0), num_candidates=3)
        search(flat(0.2), 1)
        # Wanted is more than 10: of 4 to 16 the middle is 8, of 8 to 16 it is 11.3.
        assert torch.cat(brightening_pipe.calls).tolist() == pytest.approx([4, 8, 128**0.5])

    def test_a_target_not_seen_is_too_low_a_scale(self, brightening_pipe):
        brightening_pipe.seen_from = 25.0
        output = GuidanceScaleSearch(brightening_pipe, *REFERENCE)(flat(0.2), 1, output_type="pt")
        assert output.guidance_scale.item() >= 25  # though CLD is lower below
        assert output.log_probs.item() == pytest.approx(-0.0005)

    def test_how_surely_the_target_is_to_be_seen(self, brightening_pipe):
        brightening_pipe.seen_from = 25.0
        search = GuidanceScaleSearch(brightening_pipe, *REFERENCE, target_probability=0.6)
        assert 10 < search(flat(0.2), 1).guidance_scale.item() < 20  # a probability of exp(-0.5) = 0.61 will do

    def test_divergences_are_those_of_the_encoder(self, brightening_pipe):
        """An encoder under which the brightness wanted is another one."""

        def encode(image):
            value = image.mean(dim=(2, 3)).square()
            return value, torch.full_like(value, 1e-4)

        output = GuidanceScaleSearch(brightening_pipe, *REFERENCE, encode=encode)(flat(0.2), 1, output_type="pt")
        latents = encode(output.images), encode(flat(0.2))
        cld = counterfactual_latent_divergence(
            *latents[0], *latents[1], torch.tensor([0]), torch.tensor([1]), *encode(REFERENCE[0]), REFERENCE[1]
        )
        torch.testing.assert_close(output.cld, cld)


class TestWithThePipeline:
    def get_search(self, pipe):
        reference = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        return GuidanceScaleSearch(pipe, reference, torch.arange(9) % 3, scale_range=(1.0, 100.0), num_candidates=3)

    def test_images_are_those_of_their_scales(self, pipe):
        image = get_dummy_image(3)
        output = self.get_search(pipe)(image, [0, 1, 2], num_inference_steps=4, output_type="pt")
        again = pipe(image, [0, 1, 2], output.guidance_scale, num_inference_steps=4, output_type="pt")
        torch.testing.assert_close(output.images, again.images)
        torch.testing.assert_close(output.log_probs, again.log_probs)

    def test_noise_is_abducted_once_for_all_targets_and_candidates(self, pipe):
        search, evaluations = self.get_search(pipe), record_evaluations(pipe.unet)
        output = search(get_dummy_image(), ["zero", "one", "two"], num_inference_steps=4)
        assert len(output.images) == len(output.guidance_scale) == 3
        assert evaluations == [1] * 4 + [3] * 4 * 3

    def test_each_candidate_climbs_its_own_moves_under_the_factual_class(self, pipe):
        pipe.register_to_config(default_marginal_abduction=False)
        image, targets = get_dummy_image(), [0, 1, 2]
        output = self.get_search(pipe)(image, targets, num_inference_steps=4, output_type="pt")
        for target, scale, expected in zip(targets, output.guidance_scale.tolist(), output.images, strict=True):
            again = pipe(image, target, scale, num_inference_steps=4, output_type="pt")
            torch.testing.assert_close(again.images[0], expected, atol=1e-3, rtol=0)  # scales are high

    def test_batches_do_not_matter(self, pipe):
        search, image = self.get_search(pipe), get_dummy_image(3)
        together = search(image, 1, num_inference_steps=4, output_type="pt")
        apart = search(image, 1, num_inference_steps=4, batch_size=1, output_type="pt")
        torch.testing.assert_close(apart.images, together.images, atol=1e-3, rtol=0)  # scales are high
        torch.testing.assert_close(apart.guidance_scale, together.guidance_scale)


class TestBadInput:
    @pytest.mark.parametrize(
        "name, kwargs",
        (
            ("reference_images", {"reference_images": torch.rand(4, 1, 4, 4)}),
            ("reference_images", {"reference_images": torch.rand(0, 1, 8, 8)}),
            ("reference_images", {"reference_images": torch.rand(4, 1, 8, 8) + 0.5}),
            ("reference_images", {"reference_images": torch.full((4, 1, 8, 8), float("nan"))}),
            ("reference_images", {"reference_images": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)}),
            ("reference_class", {"reference_class": torch.tensor([0, 1])}),
            ("two images", {"reference_class": torch.tensor([0, 0, 0, 1])}),
            ("scale_range", {"scale_range": (0.0, 1.0)}),
            ("scale_range", {"scale_range": (2.0, 1.0)}),
            ("scale_range", {"scale_range": (1.0,)}),
            ("num_candidates", {"num_candidates": 0}),
            ("num_candidates", {"num_candidates": 2.0}),
            ("target_probability", {"target_probability": 1.0}),
            ("target_probability", {"target_probability": "a"}),
            ("scale_range", {"scale_range": 5}),
            ("scale_range", {"scale_range": ("a", "b")}),
            ("reference_images", {"reference_images": None}),
            ("reference_class", {"reference_class": [0, 0, 1, 1]}),
            ("encode", {"encode": 5}),
        ),
    )
    def test_constructor(self, pipe, name, kwargs):
        references = {"reference_images": torch.rand(4, 1, 8, 8), "reference_class": torch.tensor([0, 0, 1, 1])}
        with pytest.raises((ValueError, TypeError), match=name):
            GuidanceScaleSearch(pipe, **{**references, **kwargs})

    def test_latents_that_turn_nan(self, pipe):
        """They would have the best CLD of all: no divergence is above or below them."""
        encoded = []

        def encode(image):
            encoded.append(image)
            mean, variance = image.flatten(1), torch.ones(len(image), 64)
            return (mean if len(encoded) == 1 else mean * float("nan")), variance

        search = GuidanceScaleSearch(pipe, torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), encode)
        with pytest.raises(ValueError, match="`encode_mean` expects finite values"):
            search(get_dummy_image(), 1, num_inference_steps=4)

    def test_a_class_without_references(self, pipe):
        search = GuidanceScaleSearch(pipe, torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]))
        evaluations = record_evaluations(pipe.unet)
        with pytest.raises(ValueError, match="`factual_class` expects classes with images in the reference set"):
            search(get_dummy_image(), 2, num_inference_steps=4)
        assert evaluations == []

    def test_numbers_that_do_not_match(self, pipe):
        search = GuidanceScaleSearch(pipe, torch.rand(6, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2, 2]))
        with pytest.raises(ValueError, match="`intervention`"):
            search(get_dummy_image(3), [0, 1])
