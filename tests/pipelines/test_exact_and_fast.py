# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Exact abduction, guidance in an interval, and presets."""

import pytest
import torch

from diffscm_diffusers import (
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMInverseScheduler,
    DiffSCMDDIMScheduler,
)

from .test_diffscm_counterfactual import (
    GUIDED,
    get_dummy_components,
    get_dummy_image,
    get_dummy_pipe,
    get_mixture_pipe,
    record_evaluations,
)


def get_mixture_image(batch=1):
    return torch.rand(batch, 1, 2, 2, generator=torch.Generator().manual_seed(0))


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
            ({"abduction": "exact"}, "`abduction` takes"),
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
        with pytest.raises(ValueError, match="`inverse_scheduler` must .*`timestep_spacing` is 'leading' there"):
            other(get_dummy_image(), "one", **GUIDED)

    def test_draws_fresh_noise_if_asked(self, pipe):
        pipe = self.get_pipe(pipe)
        images = [
            pipe(get_dummy_image(), "one", **GUIDED, eta=eta, generator=torch.Generator().manual_seed(0)).images
            for eta in (0, 0.5, 0.5)
        ]
        assert torch.equal(images[1], images[2]) and not torch.equal(images[0], images[1])


class TestAlgebraicAbduction:
    """A scheduler that is inverted by construction."""

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
        with pytest.raises(ValueError, match="takes at least 2"):
            self.get_pipe(pipe).abduct(get_dummy_image(), num_inference_steps=10, strength=0.1)

    def test_has_no_approximations_to_choose(self, pipe):
        with pytest.raises(ValueError, match="inverted by construction"):
            self.get_pipe(pipe).abduct(get_dummy_image(), num_inference_steps=10, abduction="source")

    def test_draws_no_noise(self, pipe):
        with pytest.raises(ValueError, match="`eta` must be 0"):
            self.get_pipe(pipe)(get_dummy_image(), "one", eta=0.5, num_inference_steps=4)


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
        with pytest.raises(ValueError, match="`guidance_interval` .* holds none of the prediction's timesteps"):
            pipe(get_dummy_image(), "one", **GUIDED, **settings)
        assert evaluations == []
        pipe(get_dummy_image(), **{**GUIDED, "guidance_scale": 0}, **settings)

    @pytest.mark.parametrize("interval", [(500, 250), (-1, 10), (0, 1000), (10,), 500])
    def test_bad_input(self, pipe, interval):
        with pytest.raises(ValueError, match="`guidance_interval` takes"):
            pipe(get_dummy_image(), "one", **GUIDED, guidance_interval=interval)


class TestGuidance:
    def test_parameters_are_out_of_autograd_only_while_it_runs(self, pipe):
        pipe.classifier.pool.requires_grad_(False)
        before = [parameter.requires_grad for parameter in pipe.classifier.parameters()]
        during = []
        pipe.classifier.register_forward_pre_hook(
            lambda module, _: during.append(any(parameter.requires_grad for parameter in module.parameters()))
        )
        pipe(get_dummy_image(), "one", **GUIDED)
        assert during and not any(during)
        assert [parameter.requires_grad for parameter in pipe.classifier.parameters()] == before

        def interrupt(pipe, step, timestep, callback_kwargs):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pipe(get_dummy_image(), "one", **GUIDED, callback_on_step_end=interrupt)
        assert [parameter.requires_grad for parameter in pipe.classifier.parameters()] == before


def test_networks_are_compiled_once_for_all_timesteps(pipe):
    graphs = {"unet": 0, "classifier": 0}

    def count(name):
        def backend(graph, inputs):
            graphs[name] += 1
            return graph

        return backend

    torch._dynamo.reset()
    expected = pipe(get_dummy_image(), "one", **GUIDED).images
    for name in graphs:
        getattr(pipe, name).compile(backend=count(name))
    torch.testing.assert_close(pipe(get_dummy_image(), "one", **GUIDED).images, expected)
    compiled = dict(graphs)
    pipe(get_dummy_image(), "two", **{**GUIDED, "num_inference_steps": 7})
    array = get_dummy_image()[0].movedim(0, -1).numpy()
    pipe(array, "two", **GUIDED)
    assert graphs == compiled and all(graphs.values())


class TestPresets:
    PRESETS = {"fast": {"num_inference_steps": 2, "guidance_scale": 30.0, "abduction": "source"}}

    def get_pipe(self):
        pipe = DiffSCMCounterfactualPipeline(**get_dummy_components(), presets=self.PRESETS)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def test_stands_in_for_what_is_not_given(self):
        pipe = self.get_pipe()
        image = get_dummy_image()
        by_name = pipe(image, "one", preset="fast", output_type="pt").images
        by_hand = pipe(image, "one", **self.PRESETS["fast"], output_type="pt").images
        assert torch.equal(by_name, by_hand)
        overridden = pipe(image, "one", preset="fast", num_inference_steps=3, output_type="pt").images
        by_hand = pipe(image, "one", **{**self.PRESETS["fast"], "num_inference_steps": 3}, output_type="pt").images
        assert torch.equal(overridden, by_hand) and not torch.equal(overridden, by_name)

    def test_abduct_and_predict_take_it_too(self):
        pipe = self.get_pipe()
        noise = pipe.abduct(get_dummy_image(), preset="fast")
        images = pipe.predict(noise, "one", preset="fast", output_type="pt").images
        assert torch.equal(images, pipe(get_dummy_image(), "one", preset="fast", output_type="pt").images)

    def test_is_saved_with_the_checkpoint(self, tmp_path):
        self.get_pipe().save_pretrained(tmp_path)
        assert DiffSCMCounterfactualPipeline.from_pretrained(tmp_path).config.presets == self.PRESETS

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="`preset` takes one of .'fast'.*got 'slow'"):
            self.get_pipe()(get_dummy_image(), "one", preset="slow")

    def test_unknown_argument(self):
        with pytest.raises(ValueError, match="`presets` takes dictionaries with values of"):
            DiffSCMCounterfactualPipeline(**get_dummy_components(), presets={"fast": {"steps": 2}})
