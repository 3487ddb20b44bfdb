# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Abduction guided by the factual's class. For the mixture of two Gaussians at scale 1, the guided moves are those of the
class' own Gaussian, so the counterfactual is known: the factual, shifted by the difference of the means.
"""

import itertools

import pytest
import torch

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMCounterfactualPipeline

from .dummies import ALPHAS_CUMPROD, MixtureUNet, get_dummy_image, get_dummy_pipe, get_mixture_image, get_mixture_pipe


# Of images in [0, 1], half of that of images in [-1, 1].
SHIFT = (MixtureUNet.means[1] - MixtureUNet.means[0]) / 2


def get_shift(num_inference_steps: int) -> float:
    """
    The shift in DDIM's moves, each of which multiplies the distance from the class' mean by a number: it is a little
    less than `SHIFT`, as the highest level still holds a trace of the mean, which the noise is taken to contain.
    """
    timesteps = torch.arange(1000, 0, -1000 // num_inference_steps).sub(1).clamp(min=0)[:num_inference_steps]
    alphas_cumprod = [*ALPHAS_CUMPROD[timesteps].double().tolist(), 1.0]
    contraction = 1.0
    for upper, lower in itertools.pairwise(alphas_cumprod):
        variance = upper * MixtureUNet.STD**2 + 1 - upper
        ratio = (lower / upper) ** 0.5
        contraction *= ratio + ((1 - lower) ** 0.5 - (1 - upper) ** 0.5 * ratio) * (1 - upper) ** 0.5 / variance
    return SHIFT * (1 - alphas_cumprod[0] ** 0.5 * contraction)


@pytest.fixture
def factual():
    return 0.2 + 0.4 * get_mixture_image(3)


def get_belm_pipe():
    pipe = get_mixture_pipe()
    pipe = DiffSCMCounterfactualPipeline(
        pipe.unet, pipe.classifier, DiffSCMBELMScheduler.from_config(pipe.scheduler.config)
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def predict(pipe, factual, intervention, factual_class, num_inference_steps=10, guidance_scale=1.0, **kwargs):
    return pipe(
        factual,
        intervention,
        guidance_scale,
        num_inference_steps,
        factual_class=factual_class,
        output_type="pt",
        **kwargs,
    ).images


class TestClosedForm:
    @pytest.mark.parametrize("num_inference_steps", [4, 20])
    def test_implicit_abduction_gives_the_analytic_counterfactual(self, factual, num_inference_steps):
        counterfactual = predict(get_mixture_pipe(), factual, 1, 0, num_inference_steps, abduction="implicit")
        torch.testing.assert_close(counterfactual, factual + get_shift(num_inference_steps), atol=1e-5, rtol=0)

    def test_belm_converges_to_the_same_counterfactual(self, factual):
        counterfactual = predict(get_belm_pipe(), factual, 1, 0, 100)
        torch.testing.assert_close(counterfactual, factual + get_shift(100), atol=5e-4, rtol=0)

    @pytest.mark.parametrize("abduction", ["source", "destination"])
    def test_explicit_abduction_converges_at_first_order(self, factual, abduction):
        error_50, error_100 = (
            (predict(get_mixture_pipe(), factual, 1, 0, steps, abduction=abduction) - factual - get_shift(steps))
            .abs()
            .mean()
            for steps in (50, 100)
        )
        assert 1.7 < error_50 / error_100 < 2.3

    def test_every_factual_has_its_own_class(self, factual):
        classes = torch.tensor([0, 1, 0])
        factual = factual + SHIFT * classes[:, None, None, None]
        counterfactual = predict(get_mixture_pipe(), factual, 1 - classes, classes, abduction="implicit", batch_size=2)
        shift = get_shift(10) * (1 - 2 * classes)[:, None, None, None]
        torch.testing.assert_close(counterfactual, factual + shift, atol=1e-4, rtol=0)


class TestNullIntervention:
    @pytest.mark.parametrize("guidance_scale", [1.0, [0.5, 1.0, 3.0]])
    def test_gives_the_factual_back_at_any_scale(self, factual, guidance_scale):
        for pipe, abduction in ((get_mixture_pipe(), "implicit"), (get_belm_pipe(), None)):
            image = predict(pipe, factual, 0, 0, 10, guidance_scale, abduction=abduction)
            torch.testing.assert_close(image, factual, atol=1e-4, rtol=0)

    def test_does_not_without_the_cause(self, factual):
        image = predict(get_mixture_pipe(), factual, 0, None, 20, 3.0, abduction="implicit")
        assert (image - factual).abs().mean() > 0.01

    def test_holds_in_an_interval_of_guidance(self, factual):
        interval = (200, 700)
        image = predict(get_mixture_pipe(), factual, 0, 0, 20, 3.0, abduction="implicit", guidance_interval=interval)
        torch.testing.assert_close(image, factual, atol=1e-4, rtol=0)


def test_abduct_and_predict_are_the_call(factual):
    pipe = get_mixture_pipe()
    noise = pipe.abduct(factual, 10, factual_class=0, guidance_scale=1.0)
    images = pipe.predict(noise, 1, 1.0, 10, output_type="pt").images
    torch.testing.assert_close(images, predict(pipe, factual, 1, 0), atol=0, rtol=0)


def test_one_abduction_serves_several_interventions(factual):
    pipe = get_mixture_pipe()
    images = predict(pipe, factual[:1], [0, 1], 0, abduction="implicit")
    torch.testing.assert_close(images, torch.cat([factual[:1], factual[:1] + get_shift(10)]), atol=1e-4, rtol=0)


class TestFactualClassThatIsNotGiven:
    def test_is_read(self, factual):
        pipe = get_mixture_pipe()
        pipe.register_to_config(default_marginal_abduction=False)
        images = torch.cat([factual, factual + SHIFT])
        output = pipe(images, 1, 1.0, 10, batch_size=4, output_type="pt")
        assert output.abduction.factual_class.tolist() == [0, 0, 0, 1, 1, 1]
        given = predict(pipe, images, 1, [0, 0, 0, 1, 1, 1], batch_size=4)
        torch.testing.assert_close(output.images, given, atol=0, rtol=0)
        abducted = pipe.abduct(images, 10, return_dict=True)
        assert abducted.factual_class.tolist() == [0, 0, 0, 1, 1, 1]

    def test_marginal_abduction_has_none(self, factual):
        pipe = get_mixture_pipe()
        by_default = pipe(factual, 1, 1.0, 10, output_type="pt")
        pipe.register_to_config(default_marginal_abduction=False)
        by_argument = pipe(factual, 1, 1.0, 10, marginal_abduction=True, output_type="pt")
        assert by_default.abduction.factual_class is by_argument.abduction.factual_class is None
        torch.testing.assert_close(by_default.images, by_argument.images, atol=0, rtol=0)
        under_cause = pipe(factual, 1, 1.0, 10, marginal_abduction=False, output_type="pt")
        assert (under_cause.images - by_default.images).abs().max() > 0.01

    def test_a_given_one_goes_before_the_default(self, factual):
        output = get_mixture_pipe()(factual, 1, 1.0, 10, factual_class=0, output_type="pt")
        assert output.abduction.factual_class.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("settings", [{"marginal_abduction": "no"}, {"marginal_abduction": True}])
    def test_bad_input(self, factual, settings):
        with pytest.raises(ValueError, match="`marginal_abduction`"):
            get_mixture_pipe()(factual, 1, 1.0, 10, factual_class=0, **settings)


class TestDraws:
    def test_null_intervention_loses_nothing(self, factual):
        output = get_mixture_pipe()(
            factual, [0, 0, 0], 1.0, 20, factual_class=0, abduction="implicit", num_draws=2, output_type="pt"
        )
        torch.testing.assert_close(output.images, factual.expand(2, -1, -1, -1, -1), atol=1e-4, rtol=0)
        assert output.exogenous_noise.shape == (2, 3, 1, 2, 2) and output.log_probs.shape == (2, 3)
        assert (output.exogenous_noise[0] - output.exogenous_noise[1]).abs().max() > 1e-3
        mean, std = output.mean_and_std()
        torch.testing.assert_close(mean, factual, atol=1e-4, rtol=0)
        assert std.shape == factual.shape

    def test_counterfactuals_are_the_analytic_ones(self, factual):
        # Each draw of the noise is moved as the factual is; what the last move leaves out is added to it again.
        images = predict(get_mixture_pipe(), factual, 1, 0, 20, abduction="implicit", num_draws=3, batch_size=2)
        torch.testing.assert_close(images, (factual + get_shift(20)).expand(3, -1, -1, -1, -1), atol=1e-3, rtol=0)

    def test_one_factual_under_several_interventions(self, factual):
        arguments = {"num_draws": 2, "generator": torch.Generator().manual_seed(0)}
        pipe = get_mixture_pipe()
        images = predict(pipe, factual[:1], [0, 1], 0, **arguments)
        assert images.shape == (2, 2, 1, 2, 2)
        pictures = pipe(factual[:1], [0, 1], 1.0, 4, num_draws=3).images
        assert [len(draw) for draw in pictures] == [2, 2, 2]

    @pytest.mark.parametrize("num_draws", [0, 1.5, True])
    def test_bad_input(self, factual, num_draws):
        with pytest.raises(ValueError, match="`num_draws` expects a whole number of at least 1"):
            get_mixture_pipe()(factual, 1, 1.0, 10, num_draws=num_draws)

    def test_one_step_leaves_none_after_the_draw(self, factual):
        with pytest.raises(ValueError, match="`num_inference_steps` expects at least 2 where .* `num_draws`, got 1"):
            get_mixture_pipe()(factual, 1, 1.0, 1, factual_class=0, num_draws=2)


@pytest.mark.parametrize(
    ("factual_class", "error", "message"),
    [
        (7, ValueError, "`factual_class` expects class indices from 0 to 2, got 7"),
        ("seven", ValueError, "`factual_class` expects the name of a class .*got 'seven'"),
        ([0, 1], ValueError, "`factual_class` expects one class for all images, or one per image, got 2 for 3"),
        (0.5, TypeError, "`factual_class` expects a class index"),
    ],
)
def test_bad_input(factual_class, error, message):
    pipe = get_dummy_pipe()
    with pytest.raises(error, match=message):
        pipe(get_dummy_image(3), "one", factual_class=factual_class)
    with pytest.raises(error, match=message):
        pipe.abduct(get_dummy_image(3), factual_class=factual_class)
