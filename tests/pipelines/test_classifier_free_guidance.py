# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
A denoiser that knows the classes guides itself. For the mixture of two Gaussians it is the same mechanism as the exact
predictor's guidance, at any scale, and at scale 1 the counterfactual is known.
"""

import pytest
import torch

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMCounterfactualPipeline

from .dummies import ConditionalMixtureUNet, get_mixture_image, get_mixture_pipe, record_evaluations
from .test_abduction_under_cause import get_shift


@pytest.fixture
def factual():
    return 0.2 + 0.4 * get_mixture_image(3)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("settings", [{}, {"guidance_interval": (200, 700)}])
def test_is_the_mechanism_of_the_exact_predictor(factual, prediction_type, settings):
    by_class, by_predictor = (
        get_mixture_pipe(prediction_type, **kind)(
            factual, 1, [0.5, 1.0, 3.0], 10, factual_class=0, output_type="pt", **settings
        )
        for kind in ({"unet_class": ConditionalMixtureUNet}, {})
    )
    torch.testing.assert_close(by_class.images, by_predictor.images, atol=1e-4, rtol=0)
    torch.testing.assert_close(by_class.log_probs, by_predictor.log_probs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("num_inference_steps", [4, 20])
def test_implicit_abduction_gives_the_analytic_counterfactual(factual, num_inference_steps):
    pipe = get_mixture_pipe(unet_class=ConditionalMixtureUNet)
    output = pipe(factual, 1, 1.0, num_inference_steps, factual_class=0, abduction="implicit", output_type="pt")
    torch.testing.assert_close(output.images, factual + get_shift(num_inference_steps), atol=1e-5, rtol=0)


@pytest.mark.parametrize("guidance_scale", [1.0, [0.5, 1.0, 3.0]])
def test_null_intervention_gives_the_factual_back(factual, guidance_scale):
    pipe = get_mixture_pipe(unet_class=ConditionalMixtureUNet)
    belm = DiffSCMCounterfactualPipeline(
        pipe.unet, pipe.classifier, DiffSCMBELMScheduler.from_config(pipe.scheduler.config)
    )
    for exact, settings in ((pipe, {"abduction": "implicit"}), (belm, {})):
        exact.set_progress_bar_config(disable=True)
        output = exact(factual, 0, guidance_scale, 10, factual_class=0, output_type="pt", **settings)
        torch.testing.assert_close(output.images, factual, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("guidance_scale", "batch"), [(1.0, 3), (2.0, 6), ([1.0, 2.0, 1.0], 6), (0.0, 3)])
def test_each_move_is_one_pass(factual, guidance_scale, batch):
    pipe = get_mixture_pipe(unet_class=ConditionalMixtureUNet)
    evaluations, gradients = record_evaluations(pipe.unet), []
    pipe.classifier.log_prob_gradient = lambda *args: gradients.append(args)
    pipe(factual, 1, guidance_scale, 4, factual_class=0, output_type="pt")
    assert evaluations == [batch] * 8 and gradients == []


def test_the_unconditional_mechanism(factual):
    without, unconditional = (
        get_mixture_pipe(**kind)(factual, guidance_scale=0, num_inference_steps=5, output_type="pt").images
        for kind in ({"unet_class": ConditionalMixtureUNet}, {})
    )
    torch.testing.assert_close(without, unconditional, atol=1e-6, rtol=0)


def test_a_denoiser_of_another_number_of_classes():
    pipe = get_mixture_pipe(unet_class=ConditionalMixtureUNet)
    unet = ConditionalMixtureUNet.from_config(pipe.unet.config, num_class_embeds=2)
    with pytest.raises(ValueError, match="`unet` expects .* a `num_class_embeds` of 3, .* got one with .* 2"):
        DiffSCMCounterfactualPipeline(unet, pipe.classifier, pipe.scheduler)
