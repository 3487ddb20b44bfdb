# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

from itertools import product

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler

from .dummies import ENDS_IN_NOISE, EVALUATE_AT, PREDICTION_TYPES, SPACINGS, pair


class TestRoundTrip:
    """Arbitrary outputs, another one each step, used upwards by the inverse and downwards by stock DDIM."""

    def round_trip(self, num_inference_steps, evaluate_at, prediction_type, **config):
        ddim, inverse = pair(num_inference_steps, evaluate_at, prediction_type=prediction_type, **config)
        generator = torch.Generator().manual_seed(0)
        image, *outputs = torch.randn(num_inference_steps + 1, 1, 1, 2, 2, dtype=torch.float64, generator=generator)

        samples = [image]
        for output, t in zip(outputs, inverse.timesteps, strict=True):
            samples.append(inverse.step(output, t, samples[-1]).prev_sample)
        assert torch.isfinite(samples[-1]).all() and samples[-1].dtype == torch.float64

        returned = [samples[-1]]
        for output, t in zip(reversed(outputs), ddim.timesteps, strict=True):
            returned.append(ddim.step(output, t, returned[-1]).prev_sample)

        if prediction_type == "sample" and inverse.source_alphas_cumprod[0] == 1:
            # DDIM's last move returns the predicted image, and forgets where it came from.
            samples[0] = outputs[0]
        samples, returned = torch.stack(samples[::-1]), torch.stack(returned)
        scale = samples.abs().amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1)
        assert ((returned - samples).abs() / scale).max() < 1e-9

    @pytest.mark.parametrize("num_inference_steps", (1, 7, 30, 150))
    @pytest.mark.parametrize("timestep_spacing", SPACINGS)
    def test_closes_with_every_spacing(self, timestep_spacing, num_inference_steps):
        self.round_trip(num_inference_steps, "destination", "epsilon", timestep_spacing=timestep_spacing)

    @pytest.mark.parametrize("timestep_spacing", ("leading", "quadratic"))
    def test_closes_with_an_offset(self, timestep_spacing):
        self.round_trip(7, "destination", "epsilon", timestep_spacing=timestep_spacing, steps_offset=1)

    @pytest.mark.parametrize(
        ("prediction_type", "evaluate_at"),
        # A velocity of the source is another one at the destination, so it is not among these.
        [case for case in product(PREDICTION_TYPES, EVALUATE_AT) if case != ("v_prediction", "source")],
    )
    @pytest.mark.parametrize("set_alpha_to_one", (True, False))
    def test_closes_with_every_prediction_type(self, set_alpha_to_one, prediction_type, evaluate_at):
        """The lowest move is another one from the clean image, where there is no noise to read."""
        self.round_trip(10, evaluate_at, prediction_type, set_alpha_to_one=set_alpha_to_one)

    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_keeps_image_and_noise_that_the_network_knows(self, prediction_type):
        """A network that knows both gives them at each level, so that few moves end where many would."""
        image, noise = torch.randn(2, 1, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        _, inverse = pair(4, "source", prediction_type=prediction_type, set_alpha_to_one=False)
        levels = [*inverse.source_alphas_cumprod, inverse.destination_alphas_cumprod[-1]]
        levels = [(level.double() ** 0.5, (1 - level.double()) ** 0.5) for level in levels]
        sample = levels[0][0] * image + levels[0][1] * noise
        for t, (alpha, sigma), (next_alpha, next_sigma) in zip(
            inverse.timesteps, levels[:-1], levels[1:], strict=True
        ):
            output = {"epsilon": noise, "sample": image, "v_prediction": alpha * noise - sigma * image}
            move = inverse.step(output[prediction_type], t, sample)
            sample = move.prev_sample
            torch.testing.assert_close(sample, next_alpha * image + next_sigma * noise, rtol=0, atol=1e-6)
            torch.testing.assert_close(move.pred_original_sample, image, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("prediction_type", ("sample", "v_prediction"))
    @pytest.mark.parametrize("timestep_spacing", ENDS_IN_NOISE)
    def test_closes_up_to_pure_noise(self, timestep_spacing, prediction_type):
        config = {"timestep_spacing": timestep_spacing, "rescale_betas_zero_snr": True}
        self.round_trip(7, "destination", prediction_type, **config)

    def test_closes_in_one_move_to_pure_noise(self):
        """From the clean image only `"v_prediction"` cannot, see TestErrors."""
        config = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
        self.round_trip(1, "destination", "sample", **config)
        self.round_trip(1, "destination", "v_prediction", set_alpha_to_one=False, **config)

    @pytest.mark.parametrize("timestep_spacing", SPACINGS)
    def test_closes_at_every_timestep(self, timestep_spacing):
        config = {"num_train_timesteps": 100, "beta_start": 0.001, "beta_end": 0.2}
        self.round_trip(100, "destination", "epsilon", timestep_spacing=timestep_spacing, **config)

    @pytest.mark.parametrize(
        "config",
        (
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
            {"beta_schedule": "squaredcos_cap_v2"},
            {"trained_betas": np.linspace(0.001, 0.05, 200), "num_train_timesteps": 200},
        ),
    )
    def test_closes_on_every_beta_schedule(self, config):
        self.round_trip(20, "source", "epsilon", **config)


class TestSchedule:
    @pytest.mark.parametrize("num_inference_steps", (1, 7, 30, 600))
    @pytest.mark.parametrize("timestep_spacing", SPACINGS)
    def test_moves_are_those_of_ddim(self, num_inference_steps, timestep_spacing):
        self.compare_moves(num_inference_steps, timestep_spacing)

    @pytest.mark.parametrize("config", ({"steps_offset": 1}, {"set_alpha_to_one": False}))
    @pytest.mark.parametrize("timestep_spacing", ("leading", "quadratic"))
    def test_moves_are_those_of_ddim_with_other_ends(self, timestep_spacing, config):
        self.compare_moves(7, timestep_spacing, **config)

    def compare_moves(self, num_inference_steps, timestep_spacing, **config):
        ddim, inverse = pair(num_inference_steps, timestep_spacing=timestep_spacing, **config)
        assert torch.equal(inverse.alphas_cumprod, ddim.alphas_cumprod)
        assert inverse.timesteps.dtype == torch.int64 and torch.equal(inverse.timesteps, ddim.timesteps.flip(0))
        # With an epsilon of zeros, DDIM multiplies by the square root of the two levels' ratio.
        one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        taken = [ddim.step(zero, t, one).prev_sample for t in inverse.timesteps]
        expected = (inverse.source_alphas_cumprod / inverse.destination_alphas_cumprod).double().sqrt()
        torch.testing.assert_close(torch.stack(taken), expected, rtol=1e-6, atol=0)

    def test_timesteps_at_the_source_are_those_of_the_levels_started_from(self):
        _, inverse = pair(5, "source")
        assert inverse.timesteps.tolist() == [0, 0, 200, 400, 600]
        _, inverse = pair(5, "source", timestep_spacing="trailing")
        assert inverse.timesteps.tolist() == [0, 199, 399, 599, 799]
        _, inverse = pair(5, "source", steps_offset=1)
        assert inverse.timesteps.tolist() == [0, 1, 201, 401, 601]
        _, inverse = pair(5, "source", timestep_spacing="quadratic")
        assert inverse.timesteps.tolist() == [0, 0, 50, 200, 450]

    @pytest.mark.parametrize("num_train_timesteps", (1, 2, 97))
    def test_quadratic_timesteps_are_those_of_the_scheduler(self, num_train_timesteps):
        config = {"num_train_timesteps": num_train_timesteps, "timestep_spacing": "quadratic"}
        ddim, inverse = DiffSCMDDIMScheduler(**config), DiffSCMDDIMInverseScheduler(**config)
        for num_inference_steps in range(1, num_train_timesteps + 1):
            ddim.set_timesteps(num_inference_steps)
            inverse.set_timesteps(num_inference_steps)
            assert torch.equal(inverse.timesteps, ddim.timesteps.flip(0))
            assert inverse.levels_are_consecutive

    @pytest.mark.parametrize(
        "timestep_spacing, num_inference_steps, consecutive",
        (
            ("leading", 1, True),
            ("leading", 30, True),
            ("leading", 50, True),
            ("trailing", 50, True),
            ("trailing", 30, False),
            ("linspace", 50, False),
            ("linspace", 1000, True),
            ("quadratic", 1, True),
            ("quadratic", 30, True),
        ),
    )
    def test_levels_are_consecutive(self, timestep_spacing, num_inference_steps, consecutive):
        _, inverse = pair(num_inference_steps, timestep_spacing=timestep_spacing)
        assert inverse.levels_are_consecutive is consecutive

    def test_a_move_can_be_made_again(self):
        _, inverse = pair(5, "source")
        sample, output = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
        first = inverse.step(output, 0, sample).prev_sample
        second = inverse.step(output, 0, sample).prev_sample
        assert inverse.step_index == 2
        assert not torch.equal(first, second)
        inverse.set_begin_index(1)
        assert torch.equal(inverse.step(output, 0, sample).prev_sample, second)
        inverse.set_timesteps(5)
        assert torch.equal(inverse.step(output, 0, sample).prev_sample, first)

    def test_a_later_timestep_starts_at_its_move(self):
        _, inverse = pair(5)
        inverse.step(torch.zeros(1, 1, 2, 2), torch.tensor(400), torch.zeros(1, 1, 2, 2))
        assert inverse.step_index == 3

    @pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float32))
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_dtype_of_the_sample_is_kept(self, prediction_type, dtype):
        _, inverse = pair(10, prediction_type=prediction_type)
        output = inverse.step(torch.zeros(1, 1, 2, 2), 0, torch.ones(1, 1, 2, 2, dtype=dtype))
        assert output.prev_sample.dtype == output.pred_original_sample.dtype == dtype

    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_pred_original_sample_is_that_of_ddim(self, prediction_type):
        ddim, inverse = pair(10, prediction_type=prediction_type)
        sample, output = torch.randn(2, 1, 1, 2, 2, dtype=torch.float64, generator=torch.manual_seed(0))
        inverse.set_begin_index(4)
        prev_sample, pred_original_sample = inverse.step(output, 400, sample, return_dict=False)
        expected = ddim.step(output, 400, prev_sample).pred_original_sample
        torch.testing.assert_close(pred_original_sample, expected, rtol=0, atol=1e-9)

    def test_add_noise_is_that_of_ddim(self):
        ddim, inverse = pair(10)
        args = torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 2.0), torch.tensor([0, 500, 999])
        assert torch.equal(inverse.add_noise(*args), ddim.add_noise(*args))


class TestClipping:
    def first_sample(self, **config):
        inverse = DiffSCMDDIMInverseScheduler.from_config(DDIMScheduler(**config).config)
        inverse.set_timesteps(10)
        inverse.set_begin_index(1)
        return inverse.step(torch.zeros(1, 1, 2, 2), inverse.timesteps[1], torch.full((1, 1, 2, 2), 5.0))

    @pytest.mark.parametrize("config", ({"clip_sample": True}, {"clip_sample": False}, {"thresholding": True}))
    def test_ddim_clipping_is_not_taken_over(self, config):
        assert self.first_sample(**config).pred_original_sample.min() > 5

    def test_clips_only_when_asked_and_stays_at_the_sample(self):
        ddim = DDIMScheduler()
        inverse = DiffSCMDDIMInverseScheduler.from_config(ddim.config, clip_abduction=True, clip_sample_range=2.0)
        ddim.set_timesteps(10)
        inverse.set_timesteps(10)
        inverse.set_begin_index(1)
        sample = torch.full((1, 1, 2, 2), 5.0, dtype=torch.float64)
        output = inverse.step(torch.zeros_like(sample), 100, sample)
        assert (output.pred_original_sample == 2).all()
        # The noise is derived again: both levels lie on the line through the clipped clean sample and that noise.
        source, destination = inverse.source_alphas_cumprod[1].double(), inverse.destination_alphas_cumprod[1].double()
        epsilon = (sample - source.sqrt() * 2) / (1 - source).sqrt()
        expected = destination.sqrt() * 2 + (1 - destination).sqrt() * epsilon
        torch.testing.assert_close(output.prev_sample, expected, rtol=1e-4, atol=0)

    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_clipping_at_the_clean_image_is_finite(self, prediction_type):
        inverse = DiffSCMDDIMInverseScheduler(prediction_type=prediction_type, clip_abduction=True)
        inverse.set_timesteps(10)
        sample = torch.full((1, 1, 2, 2), 5.0)
        output = inverse.step(torch.full_like(sample, 3.0), 0, sample)
        assert torch.isfinite(output.prev_sample).all() and output.pred_original_sample.max() <= 1
