# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from .dummies import GUIDED, get_dummy_image, get_mixture_image, get_mixture_pipe, record_evaluations


class TestBatches:
    def test_one_image_many_targets_is_abducted_once(self, pipe):
        evaluations = record_evaluations(pipe.unet)
        output = pipe(get_dummy_image(), ["zero", 1, "two"], **GUIDED)
        assert evaluations == [1] * 4 + [3] * 4
        assert output.images.shape == (3, 1, 8, 8) and output.exogenous_noise.shape == (1, 1, 8, 8)
        assert output.log_probs.shape == (3,)
        for target in range(3):
            single = pipe(get_dummy_image(), target, **GUIDED)
            torch.testing.assert_close(single.images[0], output.images[target], rtol=0, atol=1e-4)
            torch.testing.assert_close(single.log_probs[0], output.log_probs[target], rtol=1e-4, atol=1e-4)
        assert (output.images[0] - output.images[1]).abs().max() > 0.01

    @pytest.mark.parametrize("intervention", ([2], [0, 2, 1]))
    def test_many_images(self, pipe, intervention):
        images = get_dummy_image(3)
        output = pipe(images, intervention, **GUIDED)
        assert output.images.shape == output.exogenous_noise.shape == (3, 1, 8, 8)
        targets = intervention * 3 if len(intervention) == 1 else intervention
        for i, target in enumerate(targets):
            single = pipe(images[i], target, **GUIDED)
            torch.testing.assert_close(single.images[0], output.images[i], rtol=0, atol=1e-4)
            torch.testing.assert_close(single.exogenous_noise[0], output.exogenous_noise[i], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(single.log_probs[0], output.log_probs[i], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("batch_size", (1, 2, 5))
    def test_chunks_change_nothing(self, pipe, batch_size):
        images = get_dummy_image(3)
        whole = pipe(images, [0, 2, 1], **GUIDED)
        evaluations = record_evaluations(pipe.unet)
        chunked = pipe(images, [0, 2, 1], batch_size=batch_size, **GUIDED)
        assert max(evaluations) == min(batch_size, 3) and sum(evaluations) == 2 * 4 * 3
        for name in ("images", "exogenous_noise", "log_probs"):
            torch.testing.assert_close(chunked[name], whole[name], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("guidance_scale", ([0.0, 20.0, 40.0], torch.tensor([0.0, 20.0, 40.0])))
    @pytest.mark.parametrize("batch_size", (None, 2))
    def test_a_scale_for_each_image(self, pipe, guidance_scale, batch_size):
        images, settings = get_dummy_image(3), {"num_inference_steps": 4, "output_type": "pt"}
        together = pipe(images, [0, 2, 1], guidance_scale, batch_size=batch_size, **settings)
        for i, (intervention, scale) in enumerate(zip([0, 2, 1], [0.0, 20.0, 40.0], strict=True)):
            alone = pipe(images[i : i + 1], intervention, scale, **settings)
            torch.testing.assert_close(together.images[i : i + 1], alone.images, rtol=1e-4, atol=1e-4)

    def test_an_image_does_not_depend_on_its_batch(self):
        pipe = get_mixture_pipe()
        images = torch.cat([get_mixture_image(), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)])
        together = pipe.abduct(images, num_inference_steps=10, abduction="implicit", return_dict=True)
        alone = [pipe.abduct(i[None], num_inference_steps=10, abduction="implicit", return_dict=True) for i in images]

        assert len(set(together.num_evaluations.tolist())) > 1  # they did leave the batch at different times
        assert together.num_evaluations.tolist() == [a.num_evaluations.item() for a in alone]
        torch.testing.assert_close(together.exogenous_noise, torch.cat([a.exogenous_noise for a in alone]))
