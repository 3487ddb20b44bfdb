# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from .dummies import EVALUATE_AT, PREDICTION_TYPES, pair


class Gaussian:
    """Pixels distributed as N(0.3, 0.5^2), whose noise, clean sample and flow are known in closed form."""

    mean, std = 0.3, 0.5

    def standardized(self, x, alpha_prod):
        std = (alpha_prod * self.std**2 + 1 - alpha_prod).sqrt()
        return (x - alpha_prod.sqrt() * self.mean) / std, std

    def epsilon(self, x, alpha_prod):
        z, std = self.standardized(x, alpha_prod)
        return (1 - alpha_prod).sqrt() * z / std

    def flow(self, x, source, destination):
        """The probability flow ODE's exact map between two levels: it keeps `z`."""
        z, _ = self.standardized(x, source)
        _, std = self.standardized(x, destination)
        return destination.sqrt() * self.mean + std * z


class GaussianMixture:
    """Pixels distributed as 0.35 N(-0.6, 0.2^2) + 0.65 N(0.5, 0.3^2)."""

    weights, means, stds = torch.tensor([[0.35, 0.65], [-0.6, 0.5], [0.2, 0.3]], dtype=torch.float64)

    def standardized(self, x, alpha_prod):
        stds = (alpha_prod * self.stds**2 + 1 - alpha_prod).sqrt()
        return (x.unsqueeze(-1) - alpha_prod.sqrt() * self.means) / stds, stds

    def epsilon(self, x, alpha_prod):
        z, stds = self.standardized(x, alpha_prod)
        responsibilities = torch.softmax(self.weights.log() - stds.log() - z**2 / 2, dim=-1)
        return (1 - alpha_prod).sqrt() * (responsibilities * z / stds).sum(-1)

    def cdf(self, x, alpha_prod):
        return (self.weights * torch.special.ndtr(self.standardized(x, alpha_prod)[0])).sum(-1)

    def flow(self, x, source, destination):
        """In one dimension the probability flow ODE keeps quantiles: F_b(x_b) = F_a(x_a), solved by bisection."""
        quantile = self.cdf(x, source)
        low, high = torch.full_like(x, -10), torch.full_like(x, 10)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle, destination) < quantile
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return middle


class TestConvergence:
    """The exact score of a known distribution in the network's place: both directions approach the analytic map."""

    def network(self, data, x, alpha_prod, prediction_type):
        alpha_prod = alpha_prod.double()
        epsilon = data.epsilon(x, alpha_prod)
        original = (x - (1 - alpha_prod).sqrt() * epsilon) / alpha_prod.sqrt()
        if prediction_type == "epsilon":
            return epsilon
        if prediction_type == "sample":
            return original
        return alpha_prod.sqrt() * epsilon - (1 - alpha_prod).sqrt() * original

    def errors(self, data, num_inference_steps, evaluate_at, **config):
        """Largest errors of abduction, of DDIM from the exact noise, and of the round trip."""
        ddim, inverse = pair(num_inference_steps, evaluate_at, **config)
        assert inverse.levels_are_consecutive
        prediction_type = inverse.config.prediction_type
        image = torch.linspace(-1, 1, 21, dtype=torch.float64)
        noise = data.flow(
            image, inverse.source_alphas_cumprod[0].double(), inverse.destination_alphas_cumprod[-1].double()
        )

        abducted = image
        for t in inverse.timesteps:
            output = self.network(data, abducted, inverse.alphas_cumprod[t], prediction_type)
            abducted = inverse.step(output, t, abducted).prev_sample

        predicted = torch.stack([noise, abducted])
        for t in ddim.timesteps:
            output = self.network(data, predicted, ddim.alphas_cumprod[t], prediction_type)
            predicted = ddim.step(output, t, predicted).prev_sample

        return [
            (found - expected).abs().max().item()
            for found, expected in ((abducted, noise), (predicted[0], image), (predicted[1], image))
        ]

    @pytest.mark.parametrize("timestep_spacing", ("leading", "trailing"))
    @pytest.mark.parametrize("evaluate_at", EVALUATE_AT)
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    @pytest.mark.parametrize("data", (Gaussian(), GaussianMixture()), ids=("gaussian", "mixture"))
    def test_first_order(self, data, prediction_type, evaluate_at, timestep_spacing):
        config = {
            "prediction_type": prediction_type,
            "timestep_spacing": timestep_spacing,
            # From the clean image, the first move of "leading" has the same length at any number of steps.
            "set_alpha_to_one": timestep_spacing == "trailing",
        }
        # A clean sample guessed for the wrong level, divided by a small sigma, takes longer to reach its order.
        steps = (250, 500) if (prediction_type, evaluate_at) == ("sample", "destination") else (125, 250)
        coarse, fine = (self.errors(data, n, evaluate_at, **config) for n in steps)
        assert max(fine) < 0.08
        for error, halved in zip(coarse, fine, strict=True):
            assert 1.85 < error / halved < 2.5

    @pytest.mark.parametrize("evaluate_at", EVALUATE_AT)
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_first_move_from_the_clean_image(self, prediction_type, evaluate_at):
        data, image = Gaussian(), torch.linspace(-1, 1, 21, dtype=torch.float64)
        _, inverse = pair(100, evaluate_at, prediction_type=prediction_type)
        output = self.network(data, image, inverse.alphas_cumprod[0], prediction_type)
        found = inverse.step(output, 0, image).prev_sample
        expected = data.flow(image, torch.tensor(1.0).double(), inverse.alphas_cumprod[0].double())
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-4)  # sigma^2 is 1e-4 there

    def test_clean_sample_predicted_at_the_source_implies_the_noise_there(self):
        """The clean image has no noise of its own: "sample" is then read at timestep 0, and agrees with "epsilon"."""
        data, image = Gaussian(), torch.linspace(-1, 1, 21, dtype=torch.float64)
        found = []
        for prediction_type in ("epsilon", "sample"):
            _, inverse = pair(10, "source", timestep_spacing="trailing", prediction_type=prediction_type)
            output = self.network(data, image, inverse.alphas_cumprod[0], prediction_type)
            found.append(inverse.step(output, 0, image).prev_sample)
        torch.testing.assert_close(*found, rtol=0, atol=1e-3)

    def test_network_is_evaluated_where_the_convention_says(self):
        """One Euler step of x / alpha over sigma / alpha, with the noise at its start or with its end's timestep."""
        data, x = Gaussian(), torch.linspace(-1, 1, 21, dtype=torch.float64)
        results = {}
        for evaluate_at in EVALUATE_AT:
            _, inverse = pair(10, evaluate_at)
            inverse.set_begin_index(5)
            t = inverse.timesteps[5]
            epsilon = data.epsilon(x, inverse.alphas_cumprod[t].double())
            results[evaluate_at] = inverse.step(epsilon, t, x).prev_sample

        a, b = inverse.alphas_cumprod[[400, 500]].double()
        for evaluate_at, level in (("source", a), ("destination", b)):
            slope = data.epsilon(x, level)
            euler = b.sqrt() * (x / a.sqrt() + slope * (((1 - b) / b).sqrt() - ((1 - a) / a).sqrt()))
            torch.testing.assert_close(results[evaluate_at], euler, rtol=0, atol=1e-6)
        assert (results["source"] - results["destination"]).abs().max() > 1e-2
