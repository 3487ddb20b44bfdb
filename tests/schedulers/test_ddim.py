# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Quadratically spaced timesteps. That their moves close with their reverse is in `test_ddim_inverse.py`."""

import inspect

import pytest
import torch
from diffusers import DDIMScheduler

from diffscm_diffusers import DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler
from diffscm_diffusers.schedulers import scheduling_belm, scheduling_ddim, scheduling_ddim_inverse


SHAPE = (2, 1, 4, 4)
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
CLIPPING = ({"clip_sample": False}, {"clip_sample": True}, {"thresholding": True, "sample_max_value": 1.5})


def quadratic(num_inference_steps, **config):
    scheduler = DiffSCMDDIMScheduler(**{"timestep_spacing": "quadratic", "clip_sample": False, **config})
    scheduler.set_timesteps(num_inference_steps)
    return scheduler


def random(seed=0, dtype=torch.float64, shape=SHAPE):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestTimesteps:
    def test_of_ten_steps(self):
        assert quadratic(10).timesteps.tolist() == [900, 711, 544, 400, 278, 178, 100, 44, 11, 0]
        assert quadratic(10, steps_offset=1).timesteps.tolist()[-3:] == [45, 12, 1]

    @pytest.mark.parametrize("num_train_timesteps", (1, 2, 97, 1000))
    def test_of_any_number_of_steps(self, num_train_timesteps):
        scheduler = DiffSCMDDIMScheduler(num_train_timesteps=num_train_timesteps, timestep_spacing="quadratic")
        leading = DDIMScheduler(num_train_timesteps=num_train_timesteps)
        for num_inference_steps in range(1, num_train_timesteps + 1):
            scheduler.set_timesteps(num_inference_steps)
            upwards = scheduler.timesteps.flip(0)
            last = num_train_timesteps - num_train_timesteps // num_inference_steps
            exact = last * (torch.arange(num_inference_steps) / max(num_inference_steps - 1, 1)).double() ** 2
            index = torch.arange(num_inference_steps)
            assert upwards[0] == 0 and upwards.dtype == torch.int64 and upwards.diff().ge(1).all()
            # Rounding alone, but for the lowest ones, which are as close together as they can be.
            assert ((upwards - exact).abs().le(0.51) | upwards.eq(index) | upwards.diff(prepend=index[:1]).eq(1)).all()
            assert num_inference_steps == 1 or upwards[-1] == last
        leading.set_timesteps(num_train_timesteps)
        assert torch.equal(scheduler.timesteps, leading.timesteps)


class TestStep:
    @pytest.mark.parametrize("clipping", CLIPPING)
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    @pytest.mark.parametrize("eta, use_clipped_model_output", ((0.0, False), (0.0, True), (0.7, False), (1.0, True)))
    def test_is_ddim_where_every_timestep_has_a_move(self, prediction_type, clipping, eta, use_clipped_model_output):
        config = {"num_train_timesteps": 20, "beta_end": 0.3, "prediction_type": prediction_type, **clipping}
        scheduler, ddim = quadratic(20, **config), DDIMScheduler(**config)
        ddim.set_timesteps(20)
        sample = expected = random()
        generators = [torch.Generator().manual_seed(1) for _ in range(2)]
        for seed, t in enumerate(ddim.timesteps):
            output = random(2 + seed)
            moves = [
                s.step(output, t, x, eta, use_clipped_model_output, generator)
                for s, x, generator in zip((scheduler, ddim), (sample, expected), generators, strict=True)
            ]
            for name in ("prev_sample", "pred_original_sample"):
                torch.testing.assert_close(*(getattr(move, name) for move in moves))
            sample, expected = (move.prev_sample for move in moves)

    @pytest.mark.parametrize("timestep_spacing", ("leading", "trailing", "linspace"))
    @pytest.mark.parametrize("clipping", CLIPPING)
    def test_is_ddim_with_ddims_spacings(self, timestep_spacing, clipping):
        config = {"timestep_spacing": timestep_spacing, "prediction_type": "v_prediction", **clipping}
        scheduler, ddim = quadratic(7, **config), DDIMScheduler(**config)
        ddim.set_timesteps(7)
        assert torch.equal(scheduler.timesteps, ddim.timesteps)
        for t in ddim.timesteps:
            arguments = (random(), t, random(1), 0.3, True, None, random(2))
            for ours, theirs in zip(scheduler.step(*arguments, False), ddim.step(*arguments, False), strict=True):
                assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("set_alpha_to_one", (True, False))
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_the_true_noise_leads_to_the_next_level(self, prediction_type, set_alpha_to_one):
        scheduler = quadratic(10, prediction_type=prediction_type, set_alpha_to_one=set_alpha_to_one)
        image, noise = random(1), random(2)
        levels = [*scheduler.alphas_cumprod[scheduler.timesteps].double(), scheduler.final_alpha_cumprod.double()]
        for t, level, next_level in zip(scheduler.timesteps, levels, levels[1:], strict=False):
            alpha, sigma = level**0.5, (1 - level) ** 0.5
            output = {"epsilon": noise, "sample": image, "v_prediction": alpha * noise - sigma * image}
            move = scheduler.step(output[prediction_type], t.item(), alpha * image + sigma * noise)
            expected = next_level**0.5 * image + (1 - next_level) ** 0.5 * noise
            torch.testing.assert_close(move.prev_sample, expected, rtol=0, atol=2e-6)
            torch.testing.assert_close(move.pred_original_sample, image, rtol=0, atol=2e-5)

    @pytest.mark.parametrize("eta", (0.5, 1.0))
    def test_variance_of_the_fresh_noise(self, eta):
        """That of q(x_s | x_t, x_0) at eta 1; what is fresh is taken off the old noise, so that the level is kept."""
        scheduler = quadratic(10)
        sample, noise, fresh = random(), random(1), random(2)
        for t, s in zip(scheduler.timesteps[:-1], scheduler.timesteps[1:], strict=True):
            a, b = scheduler.alphas_cumprod[t].double(), scheduler.alphas_cumprod[s].double()
            variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
            still, moved = (
                scheduler.step(noise, t, sample, eta=eta, variance_noise=variance_noise).prev_sample
                for variance_noise in (torch.zeros(SHAPE), fresh)
            )
            torch.testing.assert_close(moved - still, variance**0.5 * fresh, rtol=1e-4, atol=0)
            expected = (b / a) ** 0.5 * (sample - (1 - a) ** 0.5 * noise) + (1 - b - variance) ** 0.5 * noise
            torch.testing.assert_close(still, expected, rtol=0, atol=1e-4)

    def test_noise_is_drawn_from_the_generator(self):
        scheduler = quadratic(10)
        one, two, other = (
            scheduler.step(
                random(), 400, random(1), eta=1.0, generator=torch.Generator().manual_seed(seed)
            ).prev_sample
            for seed in (0, 0, 1)
        )
        assert torch.equal(one, two) and not torch.equal(one, other)

    @pytest.mark.parametrize("dtype", (torch.float16, torch.float32))
    def test_dtype_of_the_sample_is_kept(self, dtype):
        prev_sample, original = quadratic(10).step(
            random(dtype=dtype), 400, random(1, dtype=dtype), eta=0.5, return_dict=False
        )
        assert prev_sample.dtype == original.dtype == dtype


class TestConfig:
    def test_from_a_ddim_and_saved(self, tmp_path):
        ddim = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, prediction_type="v_prediction")
        scheduler = DiffSCMDDIMScheduler.from_config(ddim.config, timestep_spacing="quadratic")
        scheduler.save_pretrained(tmp_path)
        loaded = DiffSCMDDIMScheduler.from_pretrained(tmp_path)
        assert loaded.config.timestep_spacing == "quadratic" and loaded.config.prediction_type == "v_prediction"
        assert torch.equal(loaded.alphas_cumprod, ddim.alphas_cumprod)


class TestErrors:
    @pytest.mark.parametrize("scheduler_class", [DiffSCMDDIMScheduler, DiffSCMDDIMInverseScheduler])
    def test_moves_that_do_not_meet(self, scheduler_class):
        scheduler = scheduler_class(timestep_spacing="trailing")
        scheduler.set_timesteps(30)
        with pytest.raises(ValueError, match="`num_inference_steps` 30 with `timestep_spacing` 'trailing' makes"):
            scheduler.start(random())

    def test_unknown_spacing(self):
        with pytest.raises(ValueError, match="`timestep_spacing` expects one of .*'quadratic'.*, got 'cubic'"):
            quadratic(10, timestep_spacing="cubic")

    @pytest.mark.parametrize(
        "steps, error", ((0, ValueError), (1001, ValueError), (2.5, TypeError), (True, TypeError))
    )
    def test_number_of_steps(self, steps, error):
        with pytest.raises(error, match="`num_inference_steps` expects"):
            quadratic(steps)

    def test_timesteps_out_of_range(self):
        with pytest.raises(ValueError, match="`steps_offset` expects .* from 0 to 999, got -1"):
            quadratic(10, steps_offset=-1)
        with pytest.raises(ValueError, match="`steps_offset`=100 .* from 100 to 1000, .* from 0 to 999"):
            quadratic(10, steps_offset=100)

    def test_before_set_timesteps(self):
        with pytest.raises(ValueError, match="`step` expects timesteps, got none: call `set_timesteps`"):
            DiffSCMDDIMScheduler(timestep_spacing="quadratic").step(random(), 0, random())

    def test_timestep_of_no_move(self):
        with pytest.raises(ValueError, match="`timestep` expects one of .*, got 500"):
            quadratic(10).step(random(), torch.tensor(500), random())

    def test_noise_both_drawn_and_given(self):
        with pytest.raises(ValueError, match="`variance_noise` expects `None` beside a `generator`"):
            quadratic(10).step(random(), 400, random(), eta=1.0, generator=torch.Generator(), variance_noise=random())

    def test_unknown_prediction_type(self):
        with pytest.raises(ValueError, match="`prediction_type` expects one of .*, got 'noise'"):
            quadratic(10, prediction_type="noise").step(random(), 400, random())


def test_checks_of_the_noise_schedule_are_the_same_in_every_file():
    """Each file is copied into checkpoints by itself."""
    sources = [
        inspect.getsource(module.check_noise_schedule)
        for module in (scheduling_ddim, scheduling_ddim_inverse, scheduling_belm)
    ]
    assert sources[0] == sources[1] == sources[2]
