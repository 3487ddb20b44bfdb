# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline

from .dummies import (
    ALPHAS_CUMPROD,
    GUIDED,
    get_dummy_components,
    get_dummy_image,
    get_mixture_pipe,
    record_evaluations,
)


def move(sample, epsilon, source, destination):
    """One DDIM move between two values of `alphas_cumprod`."""
    original = (sample - (1 - source) ** 0.5 * epsilon) / source**0.5
    return destination**0.5 * original + (1 - destination) ** 0.5 * epsilon


class TestAlgorithm1:
    @pytest.mark.parametrize("strength, num_moves", ((1.0, 10), (0.5, 5), (0.1, 1)))
    @torch.no_grad()
    def test_is_algorithm_1(self, pipe, strength, num_moves):
        unet, classifier = pipe.unet, pipe.classifier
        image, target, guidance_scale = get_dummy_image(), torch.tensor([2]), 5.0
        timesteps = list(range(0, 1000, 100))[:num_moves]
        levels = [torch.tensor(1.0), *ALPHAS_CUMPROD[timesteps]]

        sample = 2 * image - 1
        for i, t in enumerate(timesteps):
            sample = move(sample, unet(sample, t).sample, levels[i], levels[i + 1])
        exogenous_noise = sample
        for i, t in reversed(list(enumerate(timesteps))):
            with torch.enable_grad():
                x = sample.clone().requires_grad_()
                log_prob = torch.log_softmax(classifier(x, t).logits, dim=1)[0, target]
                (gradient,) = torch.autograd.grad(log_prob, x)
            epsilon = unet(sample, t).sample - guidance_scale * (1 - ALPHAS_CUMPROD[t]) ** 0.5 * gradient
            sample = move(sample, epsilon, levels[i + 1], levels[i])
        sample = sample.clamp(-1, 1)
        log_prob = torch.log_softmax(classifier(sample, 0).logits, dim=1)[:, 2]

        evaluations = record_evaluations(unet), record_evaluations(classifier)
        output = pipe(image, 2, guidance_scale, num_inference_steps=10, strength=strength, output_type="pt")
        assert [len(e) for e in evaluations] == [2 * num_moves, num_moves + 1]
        torch.testing.assert_close(output.exogenous_noise, exogenous_noise, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(output.images, sample / 2 + 0.5, rtol=0, atol=1e-4)
        torch.testing.assert_close(output.log_probs, log_prob, rtol=1e-4, atol=1e-4)

    def test_scale_zero_reconstructs(self):
        pipe, images = get_mixture_pipe(), torch.tensor([0.3, 0.5, 0.7])[:, None, None, None].expand(3, 1, 2, 2)
        reconstructions = pipe(images, guidance_scale=0, num_inference_steps=500, output_type="pt").images
        assert (reconstructions - images).abs().max() < 0.01

    def test_is_abduction_then_prediction(self, pipe):
        image = get_dummy_image(2)
        kwargs = {"num_inference_steps": 4, "strength": 0.75}
        output = pipe(image, [0, 1], guidance_scale=30.0, output_type="pt", **kwargs)
        exogenous_noise = pipe.abduct(image, **kwargs)
        images, noise, log_probs = pipe.predict(
            exogenous_noise, [0, 1], guidance_scale=30.0, output_type="pt", return_dict=False, **kwargs
        )
        assert torch.equal(exogenous_noise, output.exogenous_noise) and torch.equal(noise, exogenous_noise)
        assert torch.equal(images, output.images) and torch.equal(log_probs, output.log_probs)

    def test_defaults_of_the_checkpoint(self):
        components = get_dummy_components()
        pipe = DiffSCMCounterfactualPipeline(**components, default_guidance_scale=30.0, default_num_inference_steps=4)
        pipe.set_progress_bar_config(disable=True)
        assert torch.equal(
            pipe(get_dummy_image(), 1, output_type="pt").images, pipe(get_dummy_image(), 1, **GUIDED).images
        )
