# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from .dummies import ALPHAS_CUMPROD, MixtureUNet, get_mixture_pipe


class TestExactness:
    """
    The pipeline against the probability flow of a mixture of two Gaussians, solved in its own coordinates,
    `d(x / alpha) / d(sigma / alpha) = eps`, by an adaptive integrator.
    """

    factual = torch.tensor([[-0.5, -0.3], [-0.2, -0.25]])[None, None]  # of class 0, in [-1, 1]
    highest = 1 / ALPHAS_CUMPROD[-1].double().item() - 1  # (sigma / alpha)^2 at the last timestep

    def flow(self, start, levels, means=MixtureUNet.means, target=None, guidance_scale=0.0):
        means = np.array(means)

        def epsilon(level, x):
            variance = MixtureUNet.STD**2 + level**2
            log_densities = np.array([-((x - mean) ** 2).sum() / (2 * variance) for mean in means])
            weights = np.exp(log_densities - np.logaddexp.reduce(log_densities))
            score = (weights @ means - x) / variance
            if target is not None:
                score = score + guidance_scale * (means[target] - weights @ means) / variance
            return -level * score

        return solve_ivp(epsilon, levels, start, method="DOP853", rtol=1e-8, atol=1e-10).y[:, -1]

    def exogenous_noise(self, means=MixtureUNet.means):
        noise = self.flow(self.factual.double().flatten().numpy(), (0, self.highest**0.5), means)
        return torch.tensor(noise / (1 + self.highest) ** 0.5).view(1, 1, 2, 2).float()

    def counterfactual(self, target, guidance_scale):
        noise = self.exogenous_noise().double().flatten().numpy() * (1 + self.highest) ** 0.5
        image = self.flow(noise, (self.highest**0.5, 0), target=target, guidance_scale=guidance_scale)
        return torch.tensor(image / 2 + 0.5).view(1, 1, 2, 2).float()

    @staticmethod
    def assert_converges(errors, last):
        """`errors`, at twice the number of steps each, shrink at first order at least; the last is below `last`."""
        assert errors[-1] < last, errors
        assert all(coarse > 1.6 * fine for coarse, fine in zip(errors, errors[1:], strict=False)), errors

    @pytest.mark.parametrize("evaluate_at", ("destination", "source"))
    @pytest.mark.parametrize("prediction_type", ("epsilon", "sample", "v_prediction"))
    def test_abduction_of_one_gaussian(self, prediction_type, evaluate_at):
        pipe = get_mixture_pipe(prediction_type, means=(0.3,), evaluate_at=evaluate_at)
        alpha_prod = 1 / (1 + self.highest)
        variance = alpha_prod * MixtureUNet.STD**2 + 1 - alpha_prod
        expected = alpha_prod**0.5 * 0.3 + variance**0.5 * (self.factual - 0.3) / MixtureUNet.STD
        torch.testing.assert_close(self.exogenous_noise(means=(0.3,)), expected, rtol=0, atol=1e-5)

        errors = [
            (pipe.abduct(self.factual / 2 + 0.5, num_inference_steps=steps) - expected).abs().max().item()
            for steps in (125, 250, 500)
        ]
        self.assert_converges(errors, last=0.15)

    def test_abduction_of_the_mixture(self):
        expected, pipe = self.exogenous_noise(), get_mixture_pipe()
        errors = [
            (pipe.abduct(self.factual / 2 + 0.5, num_inference_steps=steps) - expected).abs().max().item()
            for steps in (50, 100, 200)
        ]
        self.assert_converges(errors, last=0.15)

    @pytest.mark.parametrize("guidance_scale, target", ((0.0, 1), (1.0, 1), (3.0, 1), (1.0, 0)))
    def test_prediction(self, guidance_scale, target):
        noise, expected, pipe = self.exogenous_noise(), self.counterfactual(target, guidance_scale), get_mixture_pipe()
        if guidance_scale == 0:
            torch.testing.assert_close(expected, self.factual / 2 + 0.5, rtol=0, atol=1e-6)
        if guidance_scale == 1:
            # The mixture's score and the gradient make the class's own score, whose flow is known.
            mean, alpha = MixtureUNet.means[target], (1 + self.highest) ** -0.5
            scale = MixtureUNet.STD / (alpha**2 * MixtureUNet.STD**2 + 1 - alpha**2) ** 0.5
            analytic = mean + scale * (noise - alpha * mean)
            torch.testing.assert_close(expected, analytic / 2 + 0.5, rtol=0, atol=1e-6)

        errors = []
        for steps in (50, 100, 200):
            image = pipe.predict(noise, target, guidance_scale, num_inference_steps=steps, output_type="pt").images
            errors.append((image - expected).abs().max().item())
        self.assert_converges(errors, last=0.02)

    def test_counterfactual(self):
        expected, pipe = self.counterfactual(1, 1.0), get_mixture_pipe()
        errors = []
        for steps in (50, 100, 200):
            output = pipe(self.factual / 2 + 0.5, 1, 1.0, num_inference_steps=steps, output_type="pt")
            errors.append((output.images - expected).abs().max().item())
        self.assert_converges(errors, last=0.02)
        assert output.log_probs.exp() > 0.99

    @pytest.mark.parametrize("prediction_type", ("sample", "v_prediction"))
    def test_prediction_types_agree(self, prediction_type):
        noise = self.exogenous_noise()
        kwargs = {"guidance_scale": 2.0, "num_inference_steps": 20, "output_type": "pt"}
        expected = get_mixture_pipe().predict(noise, [0, 1], **kwargs).images
        images = get_mixture_pipe(prediction_type).predict(noise, [0, 1], **kwargs).images
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
