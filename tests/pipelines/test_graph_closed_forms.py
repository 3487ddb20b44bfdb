# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The pipeline of several causes in a world that is linear and Gaussian, where all counterfactuals are known."""

import math

import pytest
import torch

from diffscm_diffusers import DiffSCMBELMScheduler

from .graph_dummies import STD, get_gaussian_factuals, get_gaussian_graph_pipe, move


pytestmark = pytest.mark.filterwarnings("ignore:.*less probable")

WAYS = ("conditional", "joint")
STEPS = {"num_inference_steps": 50}


@pytest.mark.parametrize("way", WAYS)
class TestCounterfactual:
    def test_of_a_root_moves_by_what_it_shows(self, way):
        factuals, attributes = get_gaussian_factuals()
        output = get_gaussian_graph_pipe(way)(factuals, attributes, {"thickness": 6.5}, output_type="pt", **STEPS)
        expected = move(factuals, (6.5 - attributes["thickness"]) / 5)
        torch.testing.assert_close(output.images, expected, atol=0.03, rtol=0)
        torch.testing.assert_close(output.counterfactual_attributes["tint"], attributes["tint"], atol=0, rtol=0)

    def test_moves_descendants_too_unless_they_are_held(self, way):
        pipe = get_gaussian_graph_pipe(way, edges=[("thickness", "tint")])
        factuals, attributes = get_gaussian_factuals()
        change = 6.5 - attributes["thickness"]
        total = pipe(factuals, attributes, {"thickness": 6.5}, output_type="pt", **STEPS)
        expected_tint = attributes["tint"] + 0.1 * change
        torch.testing.assert_close(total.counterfactual_attributes["tint"], expected_tint, atol=1e-6, rtol=0)
        torch.testing.assert_close(total.images, move(factuals, change / 5, 0.1 * change), atol=0.03, rtol=0)

        direct = pipe(factuals, attributes, {"thickness": 6.5}, hold="tint", output_type="pt", **STEPS)
        torch.testing.assert_close(direct.counterfactual_attributes["tint"], attributes["tint"], atol=0, rtol=0)
        torch.testing.assert_close(direct.images, move(factuals, change / 5), atol=0.03, rtol=0)

    def test_converges_at_first_order(self, way):
        factuals, attributes = get_gaussian_factuals()
        expected = move(factuals, 0.0, 0.5 - attributes["tint"])
        pipe = get_gaussian_graph_pipe(way)
        error_12, error_25 = (
            (pipe(factuals, attributes, {"tint": 0.5}, num_inference_steps=n, output_type="pt").images - expected)
            .abs()
            .mean()
            for n in (12, 25)
        )
        assert 1.5 < error_12 / error_25 < 2.5


class TestConfounding:
    def test_the_naive_predictor_drags_what_goes_with_the_cause(self):
        """It counts the evidence of thickness in the tint twice, so that do(thickness) changes the tint."""
        factuals, attributes = get_gaussian_factuals()
        pixels = {}
        for way in ("conditional", "joint", "naive"):
            pipe = get_gaussian_graph_pipe(way)
            # Beside the null intervention, which holds the error of 50 steps.
            noise = pipe.abduct(factuals, attributes, **STEPS)
            images, null = (pipe.predict(noise, do, output_type="pt").images for do in ({"thickness": 7.0}, {}))
            # The third pixel shows the tint alone, which do(thickness) does not change.
            pixels[way] = (images - null)[:, 0, 1, 0].abs().mean()
        assert pixels["conditional"] < 0.005 and pixels["joint"] < 0.005
        assert pixels["naive"] > 0.03


class TestExactness:
    def test_null_intervention_is_exact_where_abduction_is(self):
        factuals, attributes = get_gaussian_factuals()
        for way in WAYS:
            pipe = get_gaussian_graph_pipe(way)
            explicit, implicit = (
                pipe(
                    factuals, attributes, num_inference_steps=10, abduction=abduction, tolerance=1e-7, output_type="pt"
                ).images
                for abduction in ("source", "implicit")
            )
            assert (explicit - factuals).abs().mean() > 1e-3
            torch.testing.assert_close(implicit, factuals, atol=2e-5, rtol=0)
            pair = get_gaussian_graph_pipe(way, scheduler=DiffSCMBELMScheduler())
            same = {"thickness": attributes["thickness"]}
            images = pair(factuals, attributes, same, num_inference_steps=10, output_type="pt").images
            torch.testing.assert_close(images, factuals, atol=2e-5, rtol=0)

    def test_there_and_back(self):
        factuals, attributes = get_gaussian_factuals()
        pipe = get_gaussian_graph_pipe(edges=[("thickness", "tint")])
        options = {"num_inference_steps": 20, "abduction": "implicit", "tolerance": 1e-7, "output_type": "pt"}
        there = pipe(factuals, attributes, {"thickness": 6.0}, **options)
        back = pipe(there.images, there.counterfactual_attributes, {"thickness": attributes["thickness"]}, **options)
        torch.testing.assert_close(back.images, factuals, atol=1e-4, rtol=0)
        torch.testing.assert_close(back.counterfactual_attributes["tint"], attributes["tint"], atol=1e-5, rtol=0)

    def test_null_intervention_of_draws_loses_nothing(self):
        factuals, attributes = get_gaussian_factuals()
        pipe = get_gaussian_graph_pipe()
        options = {"abduction": "implicit", "tolerance": 1e-7, "num_draws": 3, "output_type": "pt"}
        output = pipe(factuals, attributes, num_inference_steps=10, **options)
        assert output.exogenous_noise.std(dim=0).min() > 1e-4
        torch.testing.assert_close(output.images, factuals.expand(3, -1, -1, -1, -1), atol=2e-5, rtol=0)


class TestExogenousNoise:
    @pytest.mark.parametrize("way", WAYS)
    def test_has_the_law_of_the_model_and_says_nothing_of_the_causes(self, way):
        factuals, attributes = get_gaussian_factuals(256)
        pipe = get_gaussian_graph_pipe(way)
        noise = pipe.abduct(factuals, attributes, num_inference_steps=50, num_draws=1).exogenous_noise.flatten(1)
        assert abs(noise.mean().item()) < 0.06 and abs(noise.std().item() - 1) < 0.12
        causes = torch.stack([attributes["thickness"], attributes["tint"]])
        correlation = torch.corrcoef(torch.cat([noise.T, causes]))[:4, 4:]
        assert correlation.abs().max() < 0.2
        marginal = pipe.abduct(factuals, attributes, guidance_scale=0.0, num_inference_steps=50)
        correlation = torch.corrcoef(torch.cat([marginal.exogenous_noise.flatten(1).T, causes]))[:4, 4:]
        assert correlation.abs().max() > 0.4

    @pytest.mark.parametrize("dequantize", [False, True])
    def test_dequantization_makes_up_for_pixels_that_never_vary(self, dequantize):
        attributes, factual = {"thickness": 5.0, "tint": 0.0}, torch.full((64, 1, 2, 2), 0.5)
        pipe = get_gaussian_graph_pipe()
        pipe.register_to_config(dequantize=dequantize)
        options = {"abduction": "implicit", "tolerance": 1e-7, "output_type": "pt", "num_inference_steps": 50}
        output = pipe(factual, attributes, **options)
        assert (output.exogenous_noise.std() > 0.01) == dequantize
        # No chance: the same noise for the same image, and what the last move leaves out is put back.
        assert output.exogenous_noise.std(dim=0).max() < 1e-6
        assert torch.equal(pipe(factual, attributes, **options).images, output.images)
        torch.testing.assert_close(pipe(factual[:1], attributes, **options).images, output.images[:1])
        torch.testing.assert_close(output.images, factual, atol=2e-5, rtol=0)
        assert (output.remainder is not None) == dequantize
        other = pipe(factual[:1] - 1e-4, attributes, **options).exogenous_noise
        assert ((other - output.exogenous_noise[:1]).abs().max() > 0.01) == dequantize

    def test_draws_spread_as_the_decay_of_the_noise_says(self):
        """An image is its mean under the causes plus noise of `STD`: so that of the draws is known."""
        attributes, factual = {"thickness": 5.0, "tint": 0.0}, torch.full((1, 1, 2, 2), 0.5)
        pipe = get_gaussian_graph_pipe(noise_decay=0.2)
        noise = pipe.abduct(
            factual, attributes, num_inference_steps=50, num_draws=400, generator=torch.Generator().manual_seed(0)
        )
        null, near, far = (
            pipe.predict(noise, {"thickness": value}, output_type="pt").images[:, 0] for value in (5.0, 6.0, 8.0)
        )
        spread = null.std(dim=0)
        for images, distance in ((near, 0.2), (far, 0.6)):  # of thickness, in [-1, 1]
            expected = STD / 2 * (1 - math.exp(-2 * 0.2 * distance)) ** 0.5
            torch.testing.assert_close(
                (images.var(dim=0) - spread.square()).sqrt(), torch.full((1, 2, 2), expected), rtol=0.2, atol=0
            )

    def test_draws_make_up_for_pixels_that_never_vary(self):
        # The clean image leaves them at the centre of the noise; a draw does not.
        attributes = {"thickness": 5.0, "tint": 0.0}
        pipe = get_gaussian_graph_pipe()
        clean, drawn = (
            pipe.abduct(torch.full((4, 1, 2, 2), 0.5), attributes, num_inference_steps=50, num_draws=n).exogenous_noise
            for n in (None, 1)
        )
        assert clean.abs().max() < 1e-3
        assert drawn.std() > 10 * clean.std() + 0.01
