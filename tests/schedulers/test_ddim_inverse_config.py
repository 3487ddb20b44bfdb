# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import logging

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.utils import logging as diffusers_logging

from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler

from .dummies import pair


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
        with pytest.raises(ValueError, match=f"`{name}` expects one of .*, got 'sideways'"):
            DiffSCMDDIMInverseScheduler(**{name: "sideways"})

    @pytest.mark.parametrize("num_inference_steps", (10.0, "10", None, True))
    def test_number_of_steps_is_no_integer(self, num_inference_steps):
        with pytest.raises(TypeError, match=f"`num_inference_steps` expects .* got {num_inference_steps!r}"):
            DiffSCMDDIMInverseScheduler().set_timesteps(num_inference_steps)

    @pytest.mark.parametrize("num_inference_steps", (0, -3, 1001))
    def test_number_of_steps_out_of_range(self, num_inference_steps):
        with pytest.raises(ValueError, match=f"`num_inference_steps` expects 1 to .* got {num_inference_steps}"):
            DiffSCMDDIMInverseScheduler().set_timesteps(num_inference_steps)

    @pytest.mark.parametrize(
        "num_inference_steps, config, timesteps",
        (
            (1000, {"steps_offset": 1}, "from 1 to 1000"),
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
        with pytest.raises(ValueError, match="`prediction_type` expects 'sample' or 'v_prediction'"):
            inverse.set_timesteps(10)

    def test_one_step_of_v_prediction_from_pure_noise(self):
        inverse = DiffSCMDDIMInverseScheduler(
            rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
        )
        with pytest.raises(ValueError, match="`num_inference_steps`=1 .* cannot be reversed"):
            inverse.set_timesteps(1)

    def test_before_set_timesteps(self):
        sample = torch.zeros(1, 1, 2, 2)
        with pytest.raises(ValueError, match="`step` expects timesteps"):
            DiffSCMDDIMInverseScheduler().step(sample, 0, sample)
        with pytest.raises(ValueError, match="`levels_are_consecutive` expects timesteps"):
            print(DiffSCMDDIMInverseScheduler().levels_are_consecutive)

    def test_past_the_end(self):
        _, inverse = pair(2)
        sample = torch.zeros(1, 1, 2, 2)
        for t in inverse.timesteps:
            inverse.step(sample, t, sample)
        with pytest.raises(ValueError, match="`step` expects at most 2 calls"):
            inverse.step(sample, 500, sample)

    def test_timestep_unknown_or_out_of_turn(self):
        _, inverse = pair(4)
        sample = torch.zeros(1, 1, 2, 2)
        with pytest.raises(ValueError, match=r"`timestep` expects one of .* got 3"):
            inverse.step(sample, torch.tensor(3), sample)
        inverse.step(sample, 0, sample)
        with pytest.raises(ValueError, match="`timestep` expects 250 at step 1, got 500"):
            inverse.step(sample, 500, sample)

    def test_shapes_differ(self):
        _, inverse = pair(4)
        sample = torch.zeros(2, 1, 4, 4)
        with pytest.raises(ValueError, match=r"`model_output` expects .* \(2, 1, 4, 4\), got \(1, 1, 4, 4\)\.$"):
            inverse.step(sample[:1], 0, sample)
        with pytest.raises(ValueError, match=r"got \(2, 2, 4, 4\)\. Split off a learned sigma"):
            inverse.step(torch.zeros(2, 2, 4, 4), 0, sample)
