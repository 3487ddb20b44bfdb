# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from diffscm_diffusers import DiffSCMBELMScheduler


SHAPE = (2, 1, 4, 4)


def walk(scheduler, network, state, num_inference_steps):
    """Runs all moves that are left to make from a single sample or a state of two."""
    scheduler.set_timesteps(num_inference_steps)
    for timestep in scheduler.timesteps[0 if state.ndim == 4 else 1 :]:
        model_input = scheduler.scale_model_input(state, timestep)
        state = scheduler.step(network(model_input, timestep), timestep, state).prev_sample
    return state


def pair(**config):
    scheduler = DiffSCMBELMScheduler(**config)
    return scheduler, DiffSCMBELMScheduler.from_config(scheduler.config, reverse=True)


def arbitrary_network(sample, timestep):
    """Anything but a denoiser: noise of its own for each timestep, and a little of a shuffled sample."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(int(timestep)), dtype=sample.dtype)
    return noise + 0.1 * torch.sin(sample.flip(-1))


class TestRoundTrip:
    @pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
    @pytest.mark.parametrize("num_inference_steps, num_train_timesteps", [(2, 1000), (7, 1000), (30, 1000), (50, 50)])
    def test_closes_whatever_the_network_does(self, num_inference_steps, num_train_timesteps, prediction_type):
        scheduler, inverse = pair(prediction_type=prediction_type, num_train_timesteps=num_train_timesteps)
        image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        state = walk(inverse, arbitrary_network, image, num_inference_steps)
        reconstruction = scheduler.scale_model_input(
            walk(scheduler, arbitrary_network, state.flip(1), num_inference_steps)
        )

        assert (reconstruction - image).abs().max() < 1e-9

    def test_both_directions_meet_the_same_samples(self):
        scheduler, inverse = pair()
        inverse.set_timesteps(10)
        image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        upwards, state = [image], image
        for timestep in inverse.timesteps:
            output = arbitrary_network(inverse.scale_model_input(state), timestep)
            state = inverse.step(output, timestep, state).prev_sample
            upwards.append(inverse.scale_model_input(state))

        scheduler.set_timesteps(10)
        state = state.flip(1)
        for timestep, expected in zip(scheduler.timesteps[1:], upwards[-3::-1], strict=False):
            state = scheduler.step(
                arbitrary_network(scheduler.scale_model_input(state), timestep), timestep, state
            ).prev_sample
            torch.testing.assert_close(scheduler.scale_model_input(state), expected)


class GaussianNetwork:
    """The exact denoiser of images that are N(MEAN, STD^2), and the analytic map of its flow."""

    MEAN, STD = 0.3, 0.2
    alphas_cumprod = DDIMScheduler().alphas_cumprod.double()

    def __call__(self, sample, timestep):
        alpha_prod = self.alphas_cumprod[timestep]
        variance = alpha_prod * self.STD**2 + 1 - alpha_prod
        return (1 - alpha_prod) ** 0.5 * (sample - alpha_prod**0.5 * self.MEAN) / variance

    def image(self, noise):
        alpha_prod = self.alphas_cumprod[-1]
        deviation = (noise - alpha_prod**0.5 * self.MEAN) / (alpha_prod * self.STD**2 + 1 - alpha_prod) ** 0.5
        return self.MEAN + self.STD * deviation


class TestAccuracy:
    def test_converges_to_the_analytic_map_at_second_order(self):
        network = GaussianNetwork()
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        errors = []
        for num_inference_steps in (125, 250, 500):
            scheduler = DiffSCMBELMScheduler()
            image = scheduler.scale_model_input(walk(scheduler, network, noise, num_inference_steps))
            errors.append((image - network.image(noise)).abs().max().item())

        # Between its levels the last move is at timestep T / N - 1: what doubles the steps halves that as well.
        orders = -np.diff(np.log2(errors))
        assert (orders > 1.5).all(), errors

    def test_beats_ddim_at_equal_steps(self):
        network = GaussianNetwork()
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        scheduler = DiffSCMBELMScheduler()
        belm = scheduler.scale_model_input(walk(scheduler, network, noise, 50))
        ddim = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
        ddim.set_timesteps(50)
        sample = noise
        for timestep in ddim.timesteps:
            sample = ddim.step(network(sample, timestep), timestep, sample).prev_sample

        assert (belm - network.image(noise)).abs().max() < 0.5 * (sample - network.image(noise)).abs().max()

    def test_levels_run_from_the_clean_image_to_the_last_timestep(self):
        scheduler, inverse = pair()
        scheduler.set_timesteps(10)
        inverse.set_timesteps(10)
        assert scheduler.timesteps.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
        assert inverse.timesteps.tolist() == [0, 99, 199, 299, 399, 499, 599, 699, 799, 899]
        assert scheduler.levels == inverse.levels[::-1]
        assert inverse.levels[0] == 1


class TestInterface:
    def test_saves_and_loads(self, tmp_path):
        DiffSCMBELMScheduler(reverse=True, prediction_type="v_prediction").save_pretrained(tmp_path)
        loaded = DiffSCMBELMScheduler.from_pretrained(tmp_path)
        assert loaded.config.reverse and loaded.config.prediction_type == "v_prediction"

    def test_takes_the_betas_of_a_ddim(self):
        ddim = DDIMScheduler(beta_schedule="scaled_linear", num_train_timesteps=500)
        scheduler = DiffSCMBELMScheduler.from_config(ddim.config)
        assert torch.equal(scheduler.alphas_cumprod, ddim.alphas_cumprod)

    @pytest.mark.parametrize("steps, error", [(1, ValueError), (1001, ValueError), (2.5, TypeError)])
    def test_number_of_steps(self, steps, error):
        with pytest.raises(error, match="num_inference_steps"):
            DiffSCMBELMScheduler().set_timesteps(steps)

    def test_step_before_set_timesteps(self):
        with pytest.raises(ValueError, match="set_timesteps"):
            DiffSCMBELMScheduler().step(torch.zeros(SHAPE), 0, torch.zeros(SHAPE))

    def test_two_samples_cannot_make_the_first_move(self):
        scheduler = DiffSCMBELMScheduler()
        scheduler.set_timesteps(10)
        with pytest.raises(ValueError, match="`timestep` expects 999 with a single sample"):
            scheduler.step(torch.zeros(SHAPE), 999, torch.zeros(2, 2, 1, 4, 4))

    def test_learned_sigma_must_be_split_off(self):
        scheduler = DiffSCMBELMScheduler()
        scheduler.set_timesteps(10)
        with pytest.raises(ValueError, match="`model_output` expects the current sample's shape"):
            scheduler.step(torch.zeros(2, 2, 4, 4), 999, torch.zeros(SHAPE))

    @pytest.mark.parametrize("shape", [(2, 1, 1, 4, 4), (2, 3, 1, 4, 4), (1, 4, 4)])
    def test_states_of_other_than_two_samples(self, shape):
        scheduler = DiffSCMBELMScheduler()
        scheduler.set_timesteps(10)
        with pytest.raises(ValueError, match=r"`sample` expects the shape .*, 2, num_channels, .* got \("):
            scheduler.step(torch.zeros(SHAPE), 899, torch.zeros(shape))

    def test_zero_terminal_snr(self):
        ddim = DDIMScheduler(rescale_betas_zero_snr=True)
        with pytest.raises(ValueError, match="`rescale_betas_zero_snr` expects `False`, got True.*pure noise"):
            DiffSCMBELMScheduler.from_config(ddim.config)

    def test_loads_what_was_saved_before(self, tmp_path):
        config = {"_class_name": "DiffSCMBELMScheduler", "_diffusers_version": "0.42.1", "reverse": True}
        (tmp_path / "scheduler_config.json").write_text(json.dumps({**config, "beta_schedule": "scaled_linear"}))
        loaded = DiffSCMBELMScheduler.from_pretrained(tmp_path)
        assert loaded.config.reverse and not loaded.config.rescale_betas_zero_snr

    @pytest.mark.parametrize(
        ("config", "error", "message"),
        [
            ({"beta_schedule": "cosine"}, ValueError, "`beta_schedule` expects one of \\['linear'.*'cosine'"),
            ({"num_train_timesteps": 0}, ValueError, "`num_train_timesteps` expects at least 2.* got 0"),
            ({"num_train_timesteps": 10.0}, TypeError, "`num_train_timesteps` expects a whole number, got 10.0"),
            ({"beta_start": -0.1}, ValueError, "`beta_start` expects a number in \\(0, 1\\), got -0.1"),
            ({"beta_start": 0.0}, ValueError, "`beta_start`"),
            ({"beta_start": "0.1"}, ValueError, "`beta_start`.*'0.1'"),
            ({"beta_end": 1.0}, ValueError, "`beta_end`"),
            ({"beta_end": float("nan"), "beta_schedule": "scaled_linear"}, ValueError, "`beta_end`.* nan"),
            (
                {"beta_start": 0.5, "beta_end": 0.5},
                ValueError,
                "`beta_start` and `beta_end` expects a last level with .* pure noise",
            ),
            ({"trained_betas": [0.1, 0.2]}, ValueError, r"`trained_betas` .* 1000, numbers, got the shape \(2,\)"),
            ({"trained_betas": [0.5] * 1000}, ValueError, "`trained_betas` expects .* got pure noise"),
            ({"trained_betas": [0.5, 1.0]}, ValueError, "`trained_betas` expects .* got pure noise"),
            ({"trained_betas": [0.0, 0.5]}, ValueError, "`trained_betas` expects .* from 0 to 0.5"),
            ({"trained_betas": [0.5, float("nan")]}, ValueError, "`trained_betas` expects .* nan"),
        ],
    )
    def test_bad_configuration(self, config, error, message):
        if len(config.get("trained_betas", [])) == 2 and "shape" not in message:
            config = {**config, "num_train_timesteps": 2}
        with pytest.raises(error, match=message):
            DiffSCMBELMScheduler(**config)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"num_train_timesteps": 500}, "whose `num_train_timesteps` is 1000, got 500"),
            ({"prediction_type": "sample"}, "whose `prediction_type` is 'epsilon', got 'sample'"),
            ({"beta_end": 0.03}, "`inverse_scheduler` expects `scheduler`'s betas, got others"),
        ],
    )
    def test_moves_of_another_schedule_are_not_the_inverse(self, changes, message):
        scheduler, inverse = pair()
        scheduler.check_inverse(inverse)
        with pytest.raises(ValueError, match=message):
            scheduler.check_inverse(DiffSCMBELMScheduler.from_config(inverse.config, **changes))

    def test_betas_of_its_own(self):
        """Where an argument is not used, it may be anything."""
        expected = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
        scheduler = DiffSCMBELMScheduler(beta_schedule="squaredcos_cap_v2", beta_start=0.0)
        assert torch.equal(scheduler.alphas_cumprod, expected)
        scheduler = DiffSCMBELMScheduler(2, beta_schedule="trained", trained_betas=np.array([0.25, 0.5]))
        assert scheduler.alphas_cumprod.tolist() == [0.75, 0.375]
