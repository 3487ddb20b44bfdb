# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler

from .dummies import pair


class TestSolve:
    """The implicit move: the sample that DDIM comes from by the network's answer at that very sample."""

    def gaussian_network(self, alphas_cumprod, std):
        """The exact denoiser of images that are N(0, std^2)."""

        def network(sample, timestep):
            alpha_prod = alphas_cumprod[timestep].double()
            return (1 - alpha_prod) ** 0.5 * sample / (alpha_prod * std**2 + 1 - alpha_prod)

        return network

    @pytest.mark.parametrize("prediction_type", ("epsilon", "v_prediction"))
    @pytest.mark.parametrize("num_inference_steps", (4, 10, 50))
    def test_is_what_ddim_comes_from(self, num_inference_steps, prediction_type):
        ddim, inverse = pair(num_inference_steps, prediction_type=prediction_type)
        network = self.gaussian_network(ddim.alphas_cumprod, std=0.1)
        sample = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for inverse_timestep, timestep in zip(inverse.timesteps, ddim.timesteps.flip(0), strict=True):
            solution = inverse.solve(network, inverse_timestep, sample, tolerance=1e-12)
            down = ddim.step(network(solution.prev_sample, timestep), timestep, solution.prev_sample).prev_sample
            torch.testing.assert_close(down, sample, rtol=1e-9, atol=1e-9)
            sample = solution.prev_sample

    def test_matches_the_closed_form(self):
        # One move, from the clean image to the level of timestep 500: x = sigma * e(x) + alpha * image with the linear
        # e(x) = c * x is solved by x = alpha * image / (1 - (sigma - alpha * sigma_0 / alpha_0) * c), sigma_0 = 0.
        ddim, inverse = pair(1, steps_offset=500)
        alpha_prod = ddim.alphas_cumprod[500].double()
        image = torch.tensor([[[[0.3, -0.7]]]], dtype=torch.float64)
        slope = (1 - alpha_prod) ** 0.5 / (alpha_prod * 0.25 + 1 - alpha_prod)
        expected = alpha_prod**0.5 * image / (1 - (1 - alpha_prod) ** 0.5 * slope)

        solution = inverse.solve(self.gaussian_network(ddim.alphas_cumprod, 0.5), 500, image, tolerance=1e-10)
        torch.testing.assert_close(solution.prev_sample, expected, rtol=1e-6, atol=1e-6)
        assert solution.residual.item() <= 1e-10

    def test_is_never_worse_than_the_explicit_move(self):
        def wild_network(sample, timestep):
            return torch.sin(40 * sample)

        _, inverse = pair(2)
        sample = torch.randn(64, 1, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        inverse.set_begin_index(1)
        explicit = inverse.step(wild_network(sample, 500), 500, sample).prev_sample
        inverse.set_begin_index(1)
        start = (inverse.step(wild_network(explicit, 500), 500, sample).prev_sample - explicit).abs().flatten()
        inverse.set_begin_index(1)
        solution = inverse.solve(wild_network, 500, sample, max_iterations=5)

        assert (solution.residual > 1e-5).any() and (solution.residual <= start.float() * (1 + 1e-6)).all()

    def test_images_leave_the_batch_when_they_have_converged(self):
        batches = []

        def network(sample, timestep):
            batches.append(len(sample))
            return 0.5 * sample.sign() * sample.abs().clamp(max=1) ** 0.5

        _, inverse = pair(10)
        inverse.set_begin_index(5)
        sample = torch.tensor([0.0, 0.2, 5.0], dtype=torch.float64).view(3, 1, 1, 1)
        solution = inverse.solve(network, inverse.timesteps[5], sample)
        assert batches[0] == 3 and batches == sorted(batches, reverse=True) and batches[-1] < 3
        assert solution.num_evaluations.sum() == sum(batches)

    @pytest.mark.parametrize(
        "arguments, error, message",
        [
            ({"tolerance": 0}, ValueError, "`tolerance`"),
            ({"tolerance": float("inf")}, ValueError, "`tolerance`"),
            ({"max_iterations": 0}, ValueError, "`max_iterations`"),
            ({"max_iterations": 2.0}, TypeError, "`max_iterations`"),
        ],
    )
    def test_bad_input(self, arguments, error, message):
        _, inverse = pair(10)
        with pytest.raises(error, match=message):
            inverse.solve(torch.zeros_like, 0, torch.zeros(1, 1, 1, 1), **arguments)

    def test_before_set_timesteps(self):
        with pytest.raises(ValueError, match="set_timesteps"):
            DiffSCMDDIMInverseScheduler().solve(torch.zeros_like, 0, torch.zeros(1, 1, 1, 1))

    def test_clipping(self):
        inverse = DiffSCMDDIMInverseScheduler(clip_abduction=True)
        inverse.set_timesteps(10)
        with pytest.raises(ValueError, match="clip_abduction"):
            inverse.solve(torch.zeros_like, 0, torch.zeros(1, 1, 1, 1))
