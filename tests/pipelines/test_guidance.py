# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import numpy as np
import pytest
import torch

from .dummies import GUIDED, get_dummy_image, get_dummy_pipe, record_evaluations


class TestScale:
    def test_scale_zero_never_runs_the_classifier(self, pipe):
        evaluations = record_evaluations(pipe.classifier)
        for intervention in (None, 1):
            output = pipe(get_dummy_image(), intervention, **{**GUIDED, "guidance_scale": 0})
            assert output.log_probs is None and evaluations == []

    @pytest.mark.parametrize(
        "intervention", (1, "one", [1], ["one"], (1,), np.int64(1), np.array([1]), torch.tensor(1), torch.tensor([1]))
    )
    def test_kinds_of_intervention(self, pipe, intervention):
        guidance, num_images = pipe.prepare_guidance(intervention, 1.0, None, num_factuals=1)
        assert guidance.target.tolist() == [1] and num_images == 1

    def test_eta_draws_from_the_generator(self, pipe):
        def draw(seed, **kwargs):
            generator = torch.Generator().manual_seed(seed)
            return pipe(get_dummy_image(), 1, generator=generator, **GUIDED, **kwargs).images

        assert torch.equal(draw(0, eta=1.0), draw(0, eta=1.0))
        assert not torch.allclose(draw(0, eta=1.0), draw(1, eta=1.0))
        assert torch.equal(draw(0), draw(1))

    @pytest.mark.parametrize("scale", (np.float32(30), np.int64(30), np.array([30.0])))
    def test_scales_of_numpy(self, pipe, scale):
        expected = pipe(get_dummy_image(), 1, **GUIDED).images
        images = pipe(get_dummy_image(), 1, **{**GUIDED, "guidance_scale": scale}).images
        torch.testing.assert_close(images, expected)

    def test_pure_noise_is_left_unguided(self):
        pipe = get_dummy_pipe(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
        images = pipe(get_dummy_image(), [0, 1], **GUIDED).images
        assert images.isfinite().all() and not torch.allclose(*images)


class TestGuidanceInterval:
    def test_the_predictor_runs_inside_only(self, pipe):
        evaluations = record_evaluations(pipe.classifier)
        output = pipe(get_dummy_image(), "one", **GUIDED, guidance_interval=(250, 500))
        assert len(evaluations) == 3  # at 250 and 500, and for the final log-probability
        assert (output.images - pipe(get_dummy_image(), "one", **GUIDED).images).abs().max() > 1e-4

    def test_all_timesteps_are_the_default(self, pipe):
        everywhere = pipe(get_dummy_image(), "one", **GUIDED, guidance_interval=(0, 999)).images
        assert torch.equal(everywhere, pipe(get_dummy_image(), "one", **GUIDED).images)

    @pytest.mark.parametrize("settings", [{"guidance_interval": (251, 499)}, {"strength": 0.5}])
    def test_without_a_step_in_it(self, pipe, settings):
        """Else a reconstruction would be taken for a counterfactual."""
        settings = {"guidance_interval": (500, 999), **settings}
        evaluations = record_evaluations(pipe.unet)
        with pytest.raises(ValueError, match="`guidance_interval` expects some of the prediction's timesteps"):
            pipe(get_dummy_image(), "one", **GUIDED, **settings)
        assert evaluations == []
        pipe(get_dummy_image(), **{**GUIDED, "guidance_scale": 0}, **settings)

    @pytest.mark.parametrize("interval", [(500, 250), (-1, 10), (0, 1000), (10,), 500])
    def test_bad_input(self, pipe, interval):
        with pytest.raises(
            ValueError, match="`guidance_interval` expects two timesteps from 0 to 999, the lower first"
        ):
            pipe(get_dummy_image(), "one", **GUIDED, guidance_interval=interval)


class TestGuidance:
    def test_parameters_are_out_of_autograd_only_while_it_runs(self, pipe):
        pipe.classifier.pool.requires_grad_(False)
        before = [parameter.requires_grad for parameter in pipe.classifier.parameters()]
        during = []
        pipe.classifier.register_forward_pre_hook(
            lambda module, _: (
                during.append(any(parameter.requires_grad for parameter in module.parameters()))
                if torch.is_grad_enabled()
                else None
            )
        )
        pipe(get_dummy_image(), "one", **GUIDED)
        assert during and not any(during)
        assert [parameter.requires_grad for parameter in pipe.classifier.parameters()] == before

        def interrupt(pipe, step, timestep, callback_kwargs):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipe(get_dummy_image(), "one", **GUIDED, callback_on_step_end=interrupt)
        assert [parameter.requires_grad for parameter in pipe.classifier.parameters()] == before
