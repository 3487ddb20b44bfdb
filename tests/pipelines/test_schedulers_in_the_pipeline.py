# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMCounterfactualPipeline, DiffSCMDDIMScheduler

from .dummies import GUIDED, get_dummy_image, get_mixture_image, get_mixture_pipe, record_evaluations


class TestQuadraticTimesteps:
    """Timesteps whose noise levels lie close enough for implicit abduction at few steps."""

    def get_pipe(self, pipe):
        scheduler = DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="quadratic")
        pipe = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, scheduler)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @pytest.mark.parametrize("num_inference_steps", [6, 10, 20])
    def test_recovers_the_image_at_few_steps(self, num_inference_steps):
        pipe, image = self.get_pipe(get_mixture_pipe()), get_mixture_image()
        output = pipe(
            image, guidance_scale=0, num_inference_steps=num_inference_steps, output_type="pt", abduction="implicit"
        )
        assert (output.images - image).abs().max() < 1e-4
        assert output.abduction.residual.max() <= 1e-6

    def test_network_is_told_the_timesteps_of_its_samples(self):
        pipe, told = self.get_pipe(get_mixture_pipe()), []
        pipe.unet.register_forward_pre_hook(lambda module, inputs: told.append(int(inputs[1])))
        pipe(get_mixture_image(), guidance_scale=0, num_inference_steps=5, output_type="pt")
        assert told == [0, 50, 200, 450, 800, 800, 450, 200, 50, 0]

    def test_saves_and_loads(self, pipe, tmp_path):
        pipe = self.get_pipe(pipe)
        pipe.save_pretrained(tmp_path)
        loaded = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
        assert type(loaded.scheduler) is DiffSCMDDIMScheduler
        expected = pipe(get_dummy_image(), "one", **GUIDED).images
        assert torch.equal(loaded(get_dummy_image(), "one", **GUIDED).images, expected)

    @pytest.mark.parametrize("clipping", [{"clip_sample": True}, {"thresholding": True}])
    def test_clipping_is_turned_off_and_the_class_kept(self, pipe, clipping):
        scheduler = DiffSCMDDIMScheduler(timestep_spacing="quadratic", **clipping)
        converted = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, scheduler).scheduler
        assert type(converted) is DiffSCMDDIMScheduler and converted.config.timestep_spacing == "quadratic"
        assert not converted.config.clip_sample and not converted.config.thresholding

    def test_inverse_of_other_timesteps(self, pipe):
        other = self.get_pipe(pipe)
        other.inverse_scheduler = pipe.inverse_scheduler
        with pytest.raises(
            ValueError, match="`inverse_scheduler` expects .*`timestep_spacing` is 'quadratic', got 'leading'"
        ):
            other(get_dummy_image(), "one", **GUIDED)

    def test_draws_fresh_noise_if_asked(self, pipe):
        pipe = self.get_pipe(pipe)
        images = [
            pipe(get_dummy_image(), "one", **GUIDED, eta=eta, generator=torch.Generator().manual_seed(0)).images
            for eta in (0, 0.5, 0.5)
        ]
        assert torch.equal(images[1], images[2]) and not torch.equal(images[0], images[1])


class TestAlgebraicAbduction:
    """A scheduler that is `abduction` expects one of \\(None,\\) with this inverse scheduler, got 'source'."""

    def get_pipe(self, pipe):
        pipe = DiffSCMCounterfactualPipeline(
            pipe.unet, pipe.classifier, DiffSCMBELMScheduler.from_config(pipe.scheduler.config)
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @pytest.mark.parametrize("num_inference_steps", [2, 10, 50])
    def test_recovers_the_image(self, pipe, num_inference_steps):
        pipe = self.get_pipe(pipe)
        image = get_dummy_image(3)
        output = pipe(image, guidance_scale=0, num_inference_steps=num_inference_steps, output_type="pt", batch_size=2)
        assert (output.images - image).abs().max() < 1e-4
        assert output.exogenous_noise.shape == (3, 2, 1, 8, 8)
        assert output.abduction.num_evaluations.tolist() == 3 * [num_inference_steps]

    def test_one_image_and_many_interventions(self, pipe):
        pipe = self.get_pipe(pipe)
        evaluations = record_evaluations(pipe.unet)
        output = pipe(get_dummy_image(), ["zero", "two"], **GUIDED)
        assert output.images.shape == (2, 1, 8, 8) and (output.images[0] - output.images[1]).abs().max() > 1e-3
        assert evaluations == [1, 1, 1, 1, 2, 2, 2]

    def test_part_of_the_way(self, pipe):
        pipe = self.get_pipe(pipe)
        image = get_dummy_image()
        output = pipe(image, guidance_scale=0, num_inference_steps=10, strength=0.5, output_type="pt")
        assert (output.images - image).abs().max() < 1e-4

    def test_samples_from_drawn_noise(self, pipe):
        output = self.get_pipe(pipe).sample("one", 2, torch.Generator().manual_seed(0), **GUIDED)
        assert output.images.shape == (2, 1, 8, 8) and output.images.isfinite().all()

    def test_saves_and_loads(self, pipe, tmp_path):
        pipe = self.get_pipe(pipe)
        pipe.save_pretrained(tmp_path)
        loaded = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
        assert loaded.inverse_scheduler.config.reverse and not loaded.scheduler.config.reverse
        expected = pipe(get_dummy_image(), "one", **GUIDED).images
        torch.testing.assert_close(loaded(get_dummy_image(), "one", **GUIDED).images, expected)

    def test_one_move_is_too_few(self, pipe):
        with pytest.raises(ValueError, match="`num_moves` expects 2, .* to 10, got 1"):
            self.get_pipe(pipe).abduct(get_dummy_image(), num_inference_steps=10, strength=0.1)

    def test_has_no_approximations_to_choose(self, pipe):
        with pytest.raises(
            ValueError, match="`abduction` expects one of \\(None,\\) with this inverse scheduler, got 'source'"
        ):
            self.get_pipe(pipe).abduct(get_dummy_image(), num_inference_steps=10, abduction="source")

    def test_draws_no_noise(self, pipe):
        with pytest.raises(ValueError, match="`eta` expects 0 with DiffSCMBELMScheduler, got 0.5"):
            self.get_pipe(pipe)(get_dummy_image(), "one", eta=0.5, num_inference_steps=4)
