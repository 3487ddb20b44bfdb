# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import logging

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.utils import logging as diffusers_logging

from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler


SPACINGS = ("leading", "trailing", "linspace", "quadratic")
ENDS_IN_NOISE = ("trailing", "linspace")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
EVALUATE_AT = ("source", "destination")


def pair(num_inference_steps, evaluate_at="destination", **config):
    """A DDIM scheduler, stock where it can be, and the inverse made from its config, with their timesteps set."""
    ddim_class = DiffSCMDDIMScheduler if config.get("timestep_spacing") == "quadratic" else DDIMScheduler
    ddim = ddim_class(**{"clip_sample": False, **config})
    inverse = DiffSCMDDIMInverseScheduler.from_config(ddim.config, evaluate_at=evaluate_at)
    ddim.set_timesteps(num_inference_steps)
    inverse.set_timesteps(num_inference_steps)
    return ddim, inverse


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

    @pytest.mark.parametrize("evaluate_at", EVALUATE_AT)
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    @pytest.mark.parametrize("set_alpha_to_one", (True, False))
    @pytest.mark.parametrize("num_inference_steps", (1, 7, 10, 30, 47, 150))
    @pytest.mark.parametrize("timestep_spacing", SPACINGS)
    def test_closes(self, timestep_spacing, num_inference_steps, set_alpha_to_one, prediction_type, evaluate_at):
        for rescale_betas_zero_snr in (False, True):
            for steps_offset in (0, 1) if timestep_spacing in ("leading", "quadratic") else (0,):
                if rescale_betas_zero_snr and prediction_type == "epsilon" and timestep_spacing in ENDS_IN_NOISE:
                    continue  # refused, see TestErrors
                if (rescale_betas_zero_snr, timestep_spacing, num_inference_steps) == (True, "trailing", 1):
                    if set_alpha_to_one and prediction_type == "v_prediction":
                        continue  # refused, see TestErrors
                self.round_trip(
                    num_inference_steps,
                    evaluate_at,
                    timestep_spacing=timestep_spacing,
                    set_alpha_to_one=set_alpha_to_one,
                    prediction_type=prediction_type,
                    steps_offset=steps_offset,
                    rescale_betas_zero_snr=rescale_betas_zero_snr,
                )

    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    @pytest.mark.parametrize("timestep_spacing", SPACINGS)
    def test_closes_at_every_timestep(self, timestep_spacing, prediction_type):
        self.round_trip(1000, "destination", timestep_spacing=timestep_spacing, prediction_type=prediction_type)

    @pytest.mark.parametrize(
        "config",
        (
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
            {"beta_schedule": "squaredcos_cap_v2"},
            {"trained_betas": np.linspace(0.001, 0.05, 200), "num_train_timesteps": 200},
        ),
    )
    @pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
    def test_closes_on_every_beta_schedule(self, prediction_type, config):
        self.round_trip(20, "source", prediction_type=prediction_type, **config)


class TestSchedule:
    @pytest.mark.parametrize("set_alpha_to_one", (True, False))
    @pytest.mark.parametrize("steps_offset", (0, 1))
    @pytest.mark.parametrize("timestep_spacing", SPACINGS)
    @pytest.mark.parametrize("num_inference_steps", (1, 7, 30, 50, 600))
    def test_moves_are_those_of_ddim(self, num_inference_steps, timestep_spacing, steps_offset, set_alpha_to_one):
        if timestep_spacing == "quadratic" and num_inference_steps == 600:
            steps_offset = 0  # 1 leads past the last timestep there
        ddim, inverse = pair(
            num_inference_steps,
            timestep_spacing=timestep_spacing,
            steps_offset=steps_offset,
            set_alpha_to_one=set_alpha_to_one,
        )
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

    @pytest.mark.parametrize("num_train_timesteps", (1, 2, 50, 97, 1000))
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


@pytest.fixture
def diffusers_log(caplog):
    diffusers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        yield caplog
    diffusers_logging.disable_propagation()


class TestConfig:
    @pytest.mark.parametrize(
        "source", (DDIMScheduler(clip_sample_range=3.0), DDIMScheduler(thresholding=True), DDPMScheduler())
    )
    @pytest.mark.parametrize("saved", (False, True))
    def test_from_config_is_quiet(self, source, saved, tmp_path, diffusers_log, recwarn):
        config = source.config
        if saved:
            source.save_pretrained(tmp_path)
            config = type(source).load_config(tmp_path)
        inverse = DiffSCMDDIMInverseScheduler.from_config(config, evaluate_at="source")
        assert inverse.config.evaluate_at == "source"
        assert not diffusers_log.records and not recwarn.list

    def test_back_to_ddim(self, diffusers_log, recwarn):
        ddim = DDIMScheduler(
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
            timestep_spacing="trailing",
            sample_max_value=2.0,
        )
        inverse = DiffSCMDDIMInverseScheduler.from_config(ddim.config)
        back = DDIMScheduler.from_config(inverse.config)
        public = {k: v for k, v in ddim.config.items() if not k.startswith("_")}
        assert public == {k: v for k, v in back.config.items() if k in public}
        assert not diffusers_log.records and not recwarn.list

    def test_save_and_load(self, tmp_path, diffusers_log, recwarn):
        inverse = DiffSCMDDIMInverseScheduler.from_config(
            DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True).config,
            evaluate_at="source",
            clip_abduction=True,
        )
        inverse.save_pretrained(tmp_path)
        loaded = DiffSCMDDIMInverseScheduler.from_pretrained(tmp_path)
        public = {k: v for k, v in inverse.config.items() if not k.startswith("_")}
        assert public == {k: v for k, v in loaded.config.items() if not k.startswith("_")}
        assert torch.equal(loaded.alphas_cumprod, inverse.alphas_cumprod)
        assert not diffusers_log.records and not recwarn.list

    def test_save_and_load_trained_betas(self, tmp_path):
        inverse = DiffSCMDDIMInverseScheduler(trained_betas=np.linspace(0.01, 0.1, 20), num_train_timesteps=20)
        inverse.save_pretrained(tmp_path)
        loaded = DiffSCMDDIMInverseScheduler.from_pretrained(tmp_path)
        assert torch.equal(loaded.alphas_cumprod, inverse.alphas_cumprod)


class TestErrors:
    @pytest.mark.parametrize("name", ("beta_schedule", "prediction_type", "timestep_spacing", "evaluate_at"))
    def test_unknown_option(self, name):
        with pytest.raises(ValueError, match=f"`{name}` must be one of .*, but is 'sideways'"):
            DiffSCMDDIMInverseScheduler(**{name: "sideways"})

    @pytest.mark.parametrize("num_inference_steps", (10.0, "10", None, True))
    def test_number_of_steps_is_no_integer(self, num_inference_steps):
        with pytest.raises(TypeError, match=f"`num_inference_steps` .* `{type(num_inference_steps).__name__}`"):
            DiffSCMDDIMInverseScheduler().set_timesteps(num_inference_steps)

    @pytest.mark.parametrize("num_inference_steps", (0, -3, 1001))
    def test_number_of_steps_out_of_range(self, num_inference_steps):
        with pytest.raises(ValueError, match=f"`num_inference_steps` must be between 1 .* is {num_inference_steps}"):
            DiffSCMDDIMInverseScheduler().set_timesteps(num_inference_steps)

    @pytest.mark.parametrize(
        "num_inference_steps, config, timesteps",
        (
            (1000, {"steps_offset": 1}, "from 1 to 1000"),
            (10, {"steps_offset": -1}, "from -1 to 899"),
            # DDIMScheduler rounds this one to 62 steps.
            (61, {"timestep_spacing": "trailing"}, "from -1 to 999"),
            (10, {"timestep_spacing": "quadratic", "steps_offset": 100}, "from 100 to 1000"),
        ),
    )
    def test_timesteps_out_of_range(self, num_inference_steps, config, timesteps):
        with pytest.raises(ValueError, match=f"`num_inference_steps`={num_inference_steps} .* {timesteps}"):
            DiffSCMDDIMInverseScheduler(**config).set_timesteps(num_inference_steps)

    @pytest.mark.parametrize("timestep_spacing", ("trailing", "linspace"))
    def test_epsilon_from_pure_noise(self, timestep_spacing):
        inverse = DiffSCMDDIMInverseScheduler(rescale_betas_zero_snr=True, timestep_spacing=timestep_spacing)
        with pytest.raises(ValueError, match="`prediction_type` must be 'sample' or 'v_prediction'"):
            inverse.set_timesteps(10)

    def test_one_step_of_v_prediction_from_pure_noise(self):
        inverse = DiffSCMDDIMInverseScheduler(
            rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
        )
        with pytest.raises(ValueError, match="`num_inference_steps`=1 .* cannot be reversed"):
            inverse.set_timesteps(1)

    def test_before_set_timesteps(self):
        sample = torch.zeros(1, 1, 2, 2)
        with pytest.raises(ValueError, match="`set_timesteps` must be called before `step`"):
            DiffSCMDDIMInverseScheduler().step(sample, 0, sample)
        with pytest.raises(ValueError, match="`set_timesteps` must be called before `levels_are_consecutive`"):
            print(DiffSCMDDIMInverseScheduler().levels_are_consecutive)

    def test_past_the_end(self):
        _, inverse = pair(2)
        sample = torch.zeros(1, 1, 2, 2)
        for t in inverse.timesteps:
            inverse.step(sample, t, sample)
        with pytest.raises(ValueError, match="All 2 moves have been made"):
            inverse.step(sample, 500, sample)

    def test_timestep_unknown_or_out_of_turn(self):
        _, inverse = pair(4)
        sample = torch.zeros(1, 1, 2, 2)
        with pytest.raises(ValueError, match=r"`timestep` must be one of .* but is 3"):
            inverse.step(sample, torch.tensor(3), sample)
        inverse.step(sample, 0, sample)
        with pytest.raises(ValueError, match="`timestep` must be 250 at step 1, but is 500"):
            inverse.step(sample, 500, sample)

    def test_shapes_differ(self):
        _, inverse = pair(4)
        sample = torch.zeros(2, 1, 4, 4)
        with pytest.raises(ValueError, match=r"`model_output` must have .* \(2, 1, 4, 4\), but has \(1, 1, 4, 4\)\.$"):
            inverse.step(sample[:1], 0, sample)
        with pytest.raises(ValueError, match=r"but has \(2, 2, 4, 4\)\. Split off a learned sigma"):
            inverse.step(torch.zeros(2, 2, 4, 4), 0, sample)


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
