# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from diffscm_diffusers import DiffSCMDDIMInverseScheduler

from .dummies import get_dummy_image, get_dummy_pipe, get_mixture_image, get_mixture_pipe


class TestImplicitAbduction:
    """The noise that DDIM's own way down comes from, found by iteration."""

    def test_recovers_the_image_at_few_steps(self):
        pipe = get_mixture_pipe()
        image = get_mixture_image()
        explicit = pipe(image, guidance_scale=0, num_inference_steps=20, output_type="pt")
        implicit = pipe(image, guidance_scale=0, num_inference_steps=20, output_type="pt", abduction="implicit")

        assert (explicit.images - image).abs().mean() > 1e-2
        assert (implicit.images - image).abs().max() < 1e-4
        assert implicit.abduction.residual.max() <= 1e-6
        assert implicit.abduction.num_evaluations.item() > 20 == explicit.abduction.num_evaluations.item()

    def test_costs_about_one_evaluation_a_step_where_steps_are_small(self):
        output = get_mixture_pipe().abduct(
            get_mixture_image(), num_inference_steps=500, abduction="implicit", tolerance=1e-5, return_dict=True
        )
        assert output.num_evaluations.item() < 1.5 * 500

    def test_an_image_does_not_depend_on_its_batch(self):
        pipe = get_mixture_pipe()
        images = torch.cat([get_mixture_image(), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)])
        together = pipe.abduct(images, num_inference_steps=10, abduction="implicit", return_dict=True)
        alone = [pipe.abduct(i[None], num_inference_steps=10, abduction="implicit", return_dict=True) for i in images]

        assert len(set(together.num_evaluations.tolist())) > 1  # they did leave the batch at different times
        assert together.num_evaluations.tolist() == [a.num_evaluations.item() for a in alone]
        torch.testing.assert_close(together.exogenous_noise, torch.cat([a.exogenous_noise for a in alone]))

    def test_warns_of_images_that_do_not_converge(self):
        with pytest.warns(UserWarning, match="1 of 1 image"):
            output = get_mixture_pipe().abduct(
                get_mixture_image(),
                num_inference_steps=10,
                abduction="implicit",
                tolerance=1e-12,
                max_iterations=2,
                return_dict=True,
            )
        assert output.residual.item() > 1e-12

    def test_explicit_abduction_can_be_chosen_per_call(self):
        pipe = get_mixture_pipe()
        source, destination = (
            pipe.abduct(get_mixture_image(), num_inference_steps=20, abduction=abduction)
            for abduction in ("source", "destination")
        )
        assert (source - destination).abs().max() > 1e-2
        torch.testing.assert_close(pipe.abduct(get_mixture_image(), num_inference_steps=20), destination)

    @pytest.mark.parametrize(
        "arguments, message",
        [
            ({"abduction": "exact"}, "`abduction` expects one of .*'source', 'destination', 'implicit'"),
            ({"abduction": "implicit", "tolerance": 0}, "`tolerance`"),
            ({"abduction": "implicit", "tolerance": float("nan")}, "`tolerance`"),
            ({"abduction": "implicit", "max_iterations": 0}, "`max_iterations`"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            get_mixture_pipe().abduct(get_mixture_image(), num_inference_steps=10, **arguments)

    def test_clipping_cannot_be_exact(self):
        pipe = get_mixture_pipe()
        pipe.inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(pipe.scheduler.config, clip_abduction=True)
        with pytest.raises(ValueError, match="clip_abduction"):
            pipe.abduct(get_mixture_image(), num_inference_steps=10, abduction="implicit")

    def test_ddim_forgets_the_sample_before_a_predicted_image(self):
        pipe = get_dummy_pipe(prediction_type="sample")
        with pytest.raises(ValueError, match="set_alpha_to_one"):
            pipe.abduct(get_dummy_image(), num_inference_steps=10, abduction="implicit")
