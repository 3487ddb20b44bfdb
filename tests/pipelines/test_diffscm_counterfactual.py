# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from diffusers.models.unets.unet_2d import UNet2DOutput
from scipy.integrate import solve_ivp

from diffscm_diffusers import (
    AntiCausalClassifier2DModel,
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMInverseScheduler,
)
from diffscm_diffusers.models.anticausal_classifier_2d import AntiCausalClassifier2DOutput


ALPHAS_CUMPROD = DDIMScheduler().alphas_cumprod
PIPELINE_FILE = Path(__file__).resolve().parents[2] / "pipelines" / "pipeline_diffscm_counterfactual.py"


def get_dummy_components(channels=1, out_channels=None, **scheduler_config):
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=out_channels or channels,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
    )
    classifier = AntiCausalClassifier2DModel(
        sample_size=8,
        in_channels=channels,
        num_classes=3,
        id2label={0: "zero", 1: "one", 2: "two"},
        down_block_types=("DownBlock2D", "DownBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(clip_sample=False, **scheduler_config)
    return {"unet": unet.eval(), "classifier": classifier.eval(), "scheduler": scheduler}


def get_dummy_pipe(**kwargs):
    pipe = DiffSCMCounterfactualPipeline(**get_dummy_components(**kwargs))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_dummy_image(batch=1, channels=1):
    return torch.rand(batch, channels, 8, 8, generator=torch.Generator().manual_seed(0))


# A scale at which the untrained classifier moves the images visibly.
GUIDED = {"guidance_scale": 30.0, "num_inference_steps": 4, "output_type": "pt"}


def record_evaluations(module) -> list[int]:
    """A list that gets the batch size of each forward pass of `module`."""
    evaluations = []
    module.register_forward_pre_hook(lambda module, inputs: evaluations.append(len(inputs[0])))
    return evaluations


class MixtureUNet(UNet2DModel):
    """The exact denoiser of images whose class 0 or 1, equally likely, makes them N(mean[class], STD^2)."""

    STD = 0.2
    prediction_type = "epsilon"
    means = (-0.3, 0.3)

    def forward(self, sample, timestep, return_dict=True):
        alpha_prod = ALPHAS_CUMPROD[timestep].double()
        alpha, sigma, x = alpha_prod**0.5, (1 - alpha_prod) ** 0.5, sample.double()
        variance = alpha_prod * self.STD**2 + sigma**2
        deviations = torch.stack([x - alpha * mean for mean in self.means])
        log_densities = -deviations.pow(2).sum(dim=(2, 3, 4), keepdim=True) / (2 * variance)
        epsilon = sigma * (log_densities.softmax(dim=0) * deviations).sum(dim=0) / variance
        original = (x - sigma * epsilon) / alpha
        prediction = {
            "epsilon": epsilon,
            "sample": original,
            "v_prediction": alpha * epsilon - sigma * original,
        }[self.prediction_type]
        return UNet2DOutput(sample=prediction.float())


class MixtureClassifier(AntiCausalClassifier2DModel):
    """The exact `p(y | x_t)` of `MixtureUNet`'s classes."""

    def forward(self, sample, timestep, return_dict=True):
        alpha_prod = ALPHAS_CUMPROD[timestep].item()
        variance = alpha_prod * MixtureUNet.STD**2 + 1 - alpha_prod
        deviations = torch.stack([sample - alpha_prod**0.5 * mean for mean in MixtureUNet.means], dim=1)
        return AntiCausalClassifier2DOutput(logits=-deviations.pow(2).sum(dim=(2, 3, 4)) / (2 * variance))


def get_mixture_pipe(prediction_type="epsilon", means=MixtureUNet.means, evaluate_at="destination"):
    unet = MixtureUNet(
        sample_size=2,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        block_out_channels=(4,),
        norm_num_groups=4,
        add_attention=False,
    )
    unet.prediction_type, unet.means = prediction_type, means
    classifier = MixtureClassifier(
        sample_size=2,
        in_channels=1,
        num_classes=2,
        down_block_types=("DownBlock2D",),
        block_out_channels=(4,),
        norm_num_groups=4,
        add_attention=False,
    )
    # Trailing, so that the highest level is the same for every number of steps that divides 1000.
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing", prediction_type=prediction_type)
    inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(scheduler.config, evaluate_at=evaluate_at)
    pipe = DiffSCMCounterfactualPipeline(unet, classifier, scheduler, inverse_scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class TestExactness:
    """
    The pipeline against the probability flow of a mixture of two Gaussians, solved in its own coordinates,
    `d(x / alpha) / d(sigma / alpha) = eps`, by an adaptive integrator.
    """

    factual = torch.tensor([[-0.5, -0.3], [-0.2, -0.25]])[None, None]  # of class 0, in [-1, 1]
    highest = 1 / ALPHAS_CUMPROD[-1].double().item() - 1  # (sigma / alpha)^2 at the last timestep

    def flow(self, start, levels, means=MixtureUNet.means, target=None, guidance_scale=0.0):
        means = np.array(means)

        def epsilon(level, x):
            variance = MixtureUNet.STD**2 + level**2
            log_densities = np.array([-((x - mean) ** 2).sum() / (2 * variance) for mean in means])
            weights = np.exp(log_densities - np.logaddexp.reduce(log_densities))
            score = (weights @ means - x) / variance
            if target is not None:
                score = score + guidance_scale * (means[target] - weights @ means) / variance
            return -level * score

        return solve_ivp(epsilon, levels, start, method="DOP853", rtol=1e-8, atol=1e-10).y[:, -1]

    def exogenous_noise(self, means=MixtureUNet.means):
        noise = self.flow(self.factual.double().flatten().numpy(), (0, self.highest**0.5), means)
        return torch.tensor(noise / (1 + self.highest) ** 0.5).view(1, 1, 2, 2).float()

    def counterfactual(self, target, guidance_scale):
        noise = self.exogenous_noise().double().flatten().numpy() * (1 + self.highest) ** 0.5
        image = self.flow(noise, (self.highest**0.5, 0), target=target, guidance_scale=guidance_scale)
        return torch.tensor(image / 2 + 0.5).view(1, 1, 2, 2).float()

    @staticmethod
    def assert_converges(errors, last):
        """`errors`, at twice the number of steps each, shrink at first order at least; the last is below `last`."""
        assert errors[-1] < last, errors
        assert all(coarse > 1.6 * fine for coarse, fine in zip(errors, errors[1:], strict=False)), errors

    @pytest.mark.parametrize("evaluate_at", ("destination", "source"))
    @pytest.mark.parametrize("prediction_type", ("epsilon", "sample", "v_prediction"))
    def test_abduction_of_one_gaussian(self, prediction_type, evaluate_at):
        pipe = get_mixture_pipe(prediction_type, means=(0.3,), evaluate_at=evaluate_at)
        alpha_prod = 1 / (1 + self.highest)
        variance = alpha_prod * MixtureUNet.STD**2 + 1 - alpha_prod
        expected = alpha_prod**0.5 * 0.3 + variance**0.5 * (self.factual - 0.3) / MixtureUNet.STD
        torch.testing.assert_close(self.exogenous_noise(means=(0.3,)), expected, rtol=0, atol=1e-5)

        errors = [
            (pipe.abduct(self.factual / 2 + 0.5, num_inference_steps=steps) - expected).abs().max().item()
            for steps in (125, 250, 500)
        ]
        self.assert_converges(errors, last=0.15)

    def test_abduction_of_the_mixture(self):
        expected, pipe = self.exogenous_noise(), get_mixture_pipe()
        errors = [
            (pipe.abduct(self.factual / 2 + 0.5, num_inference_steps=steps) - expected).abs().max().item()
            for steps in (50, 100, 200)
        ]
        self.assert_converges(errors, last=0.15)

    @pytest.mark.parametrize("guidance_scale, target", ((0.0, 1), (1.0, 1), (3.0, 1), (1.0, 0)))
    def test_prediction(self, guidance_scale, target):
        noise, expected, pipe = self.exogenous_noise(), self.counterfactual(target, guidance_scale), get_mixture_pipe()
        if guidance_scale == 0:
            torch.testing.assert_close(expected, self.factual / 2 + 0.5, rtol=0, atol=1e-6)
        if guidance_scale == 1:
            # The mixture's score and the gradient make the class's own score, whose flow is known.
            mean, alpha = MixtureUNet.means[target], (1 + self.highest) ** -0.5
            scale = MixtureUNet.STD / (alpha**2 * MixtureUNet.STD**2 + 1 - alpha**2) ** 0.5
            analytic = mean + scale * (noise - alpha * mean)
            torch.testing.assert_close(expected, analytic / 2 + 0.5, rtol=0, atol=1e-6)

        errors = []
        for steps in (50, 100, 200):
            image = pipe.predict(noise, target, guidance_scale, num_inference_steps=steps, output_type="pt").images
            errors.append((image - expected).abs().max().item())
        self.assert_converges(errors, last=0.02)

    def test_counterfactual(self):
        expected, pipe = self.counterfactual(1, 1.0), get_mixture_pipe()
        errors = []
        for steps in (50, 100, 200):
            output = pipe(self.factual / 2 + 0.5, 1, 1.0, num_inference_steps=steps, output_type="pt")
            errors.append((output.images - expected).abs().max().item())
        self.assert_converges(errors, last=0.02)
        assert output.log_probs.exp() > 0.99

    @pytest.mark.parametrize("prediction_type", ("sample", "v_prediction"))
    def test_prediction_types_agree(self, prediction_type):
        noise = self.exogenous_noise()
        kwargs = {"guidance_scale": 2.0, "num_inference_steps": 20, "output_type": "pt"}
        expected = get_mixture_pipe().predict(noise, [0, 1], **kwargs).images
        images = get_mixture_pipe(prediction_type).predict(noise, [0, 1], **kwargs).images
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)

    def test_pure_noise_is_left_unguided(self):
        pipe = get_dummy_pipe(prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True)
        images = pipe(get_dummy_image(), [0, 1], **GUIDED).images
        assert images.isfinite().all() and not torch.allclose(*images)


def move(sample, epsilon, source, destination):
    """One DDIM move between two values of `alphas_cumprod`."""
    original = (sample - (1 - source) ** 0.5 * epsilon) / source**0.5
    return destination**0.5 * original + (1 - destination) ** 0.5 * epsilon


class TestCounterfactuals:
    @pytest.mark.parametrize("strength, num_moves", ((1.0, 10), (0.5, 5), (0.1, 1)))
    @torch.no_grad()
    def test_is_algorithm_1(self, pipe, strength, num_moves):
        unet, classifier = pipe.unet, pipe.classifier
        image, target, guidance_scale = get_dummy_image(), torch.tensor([2]), 5.0
        timesteps = list(range(0, 1000, 100))[:num_moves]
        levels = [torch.tensor(1.0), *ALPHAS_CUMPROD[timesteps]]

        sample = 2 * image - 1
        for i, t in enumerate(timesteps):
            sample = move(sample, unet(sample, t).sample, levels[i], levels[i + 1])
        exogenous_noise = sample
        for i, t in reversed(list(enumerate(timesteps))):
            with torch.enable_grad():
                x = sample.clone().requires_grad_()
                log_prob = torch.log_softmax(classifier(x, t).logits, dim=1)[0, target]
                (gradient,) = torch.autograd.grad(log_prob, x)
            epsilon = unet(sample, t).sample - guidance_scale * (1 - ALPHAS_CUMPROD[t]) ** 0.5 * gradient
            sample = move(sample, epsilon, levels[i + 1], levels[i])
        sample = sample.clamp(-1, 1)
        log_prob = torch.log_softmax(classifier(sample, 0).logits, dim=1)[:, 2]

        evaluations = record_evaluations(unet), record_evaluations(classifier)
        output = pipe(image, 2, guidance_scale, num_inference_steps=10, strength=strength, output_type="pt")
        assert [len(e) for e in evaluations] == [2 * num_moves, num_moves + 1]
        torch.testing.assert_close(output.exogenous_noise, exogenous_noise, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(output.images, sample / 2 + 0.5, rtol=0, atol=1e-4)
        torch.testing.assert_close(output.log_probs, log_prob, rtol=1e-4, atol=1e-4)

    def test_scale_zero_never_runs_the_classifier(self, pipe):
        evaluations = record_evaluations(pipe.classifier)
        for intervention in (None, 1):
            output = pipe(get_dummy_image(), intervention, **{**GUIDED, "guidance_scale": 0})
            assert output.log_probs is None and evaluations == []

    def test_scale_zero_reconstructs(self):
        pipe, images = get_mixture_pipe(), torch.tensor([0.3, 0.5, 0.7])[:, None, None, None].expand(3, 1, 2, 2)
        reconstructions = pipe(images, guidance_scale=0, num_inference_steps=500, output_type="pt").images
        assert (reconstructions - images).abs().max() < 0.01

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

    @pytest.mark.parametrize(
        "intervention", (1, "one", [1], ["one"], (1,), np.int64(1), np.array([1]), torch.tensor(1), torch.tensor([1]))
    )
    def test_kinds_of_intervention(self, pipe, intervention):
        assert torch.equal(pipe.prepare_intervention(intervention), torch.tensor([1]))

    def test_is_abduction_then_prediction(self, pipe):
        image = get_dummy_image(2)
        kwargs = {"num_inference_steps": 4, "strength": 0.75}
        output = pipe(image, [0, 1], guidance_scale=30.0, output_type="pt", **kwargs)
        exogenous_noise = pipe.abduct(image, **kwargs)
        images, noise, log_probs = pipe.predict(
            exogenous_noise, [0, 1], guidance_scale=30.0, output_type="pt", return_dict=False, **kwargs
        )
        assert torch.equal(exogenous_noise, output.exogenous_noise) and torch.equal(noise, exogenous_noise)
        assert torch.equal(images, output.images) and torch.equal(log_probs, output.log_probs)

    def test_defaults_of_the_checkpoint(self):
        components = get_dummy_components()
        pipe = DiffSCMCounterfactualPipeline(**components, default_guidance_scale=30.0, default_num_inference_steps=4)
        pipe.set_progress_bar_config(disable=True)
        assert torch.equal(
            pipe(get_dummy_image(), 1, output_type="pt").images, pipe(get_dummy_image(), 1, **GUIDED).images
        )

    def test_eta_draws_from_the_generator(self, pipe):
        def draw(seed, **kwargs):
            generator = torch.Generator().manual_seed(seed)
            return pipe(get_dummy_image(), 1, generator=generator, **GUIDED, **kwargs).images

        assert torch.equal(draw(0, eta=1.0), draw(0, eta=1.0))
        assert not torch.allclose(draw(0, eta=1.0), draw(1, eta=1.0))
        assert torch.equal(draw(0), draw(1))

    def test_output_types(self, pipe):
        tensor = pipe(get_dummy_image(2), 1, **GUIDED).images
        array = pipe(get_dummy_image(2), 1, **{**GUIDED, "output_type": "np"}).images
        pictures = pipe(get_dummy_image(2), 1, **{**GUIDED, "output_type": "pil"}).images
        assert tensor.dtype == torch.float32 and tensor.shape == (2, 1, 8, 8)
        assert tensor.min() >= 0 and tensor.max() <= 1
        assert isinstance(array, np.ndarray) and array.shape == (2, 8, 8, 1)
        np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
        assert [picture.mode for picture in pictures] == ["L", "L"]
        np.testing.assert_array_equal(np.asarray(pictures[1]), (array[1, :, :, 0] * 255).round().astype("uint8"))

    def test_colour(self):
        pipe = get_dummy_pipe(channels=3)
        (picture,) = pipe(get_dummy_image(channels=3), 1, guidance_scale=1.0, num_inference_steps=2).images
        assert picture.mode == "RGB" and picture.size == (8, 8)

    def test_networks_are_in_evaluation_mode(self):
        components = get_dummy_components()
        components["unet"] = UNet2DModel.from_config(components["unet"].config, dropout=0.5)
        assert components["unet"].training
        pipe = DiffSCMCounterfactualPipeline(**components)
        assert torch.equal(*(pipe(get_dummy_image(), 1, **GUIDED).images for _ in range(2)))

    def test_a_denoisers_own_betas(self):
        """`DDIMScheduler` has no sigmoid schedule; its betas are taken over."""
        components = get_dummy_components()
        components["scheduler"] = DDPMScheduler(beta_schedule="sigmoid")
        pipe = DiffSCMCounterfactualPipeline(**components)
        assert torch.equal(pipe.scheduler.alphas_cumprod, components["scheduler"].alphas_cumprod)
        assert pipe(get_dummy_image(), 1, **GUIDED).images.isfinite().all()

    def test_without_a_dictionary(self, pipe):
        """As many results whether guided or not, those of `predict`."""
        output = pipe(get_dummy_image(), 1, **GUIDED)
        images, exogenous_noise, log_probs = pipe(get_dummy_image(), 1, **GUIDED, return_dict=False)
        for value, expected in zip((images, exogenous_noise, log_probs), output.to_tuple(), strict=False):
            assert torch.equal(value, expected)
        assert torch.equal(output["abduction"].exogenous_noise, exogenous_noise)
        *_, log_probs = pipe(get_dummy_image(), **{**GUIDED, "guidance_scale": 0}, return_dict=False)
        assert log_probs is None

    @pytest.mark.parametrize("scale", (np.float32(30), np.int64(30), np.array([30.0])))
    def test_scales_of_numpy(self, pipe, scale):
        expected = pipe(get_dummy_image(), 1, **GUIDED).images
        images = pipe(get_dummy_image(), 1, **{**GUIDED, "guidance_scale": scale}).images
        torch.testing.assert_close(images, expected)


class TestSample:
    def test_count_and_order(self, pipe):
        output = pipe.sample(["two", "zero"], num_images=3, generator=torch.Generator().manual_seed(0), **GUIDED)
        noise = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(output.exogenous_noise, noise)
        assert torch.equal(output.images, pipe.predict(noise, [2, 2, 2, 0, 0, 0], **GUIDED).images)

    def test_drawn_noise_is_of_the_highest_level(self, pipe):
        with pytest.raises(ValueError, match="`strength` takes 1 for noise that is drawn, got 0.5"):
            pipe.sample(1, strength=0.5, **GUIDED)

    def test_shared_noise(self, pipe):
        generator = torch.Generator().manual_seed(0)
        output = pipe.sample([0, 1], num_images=2, generator=generator, shared_noise=True, **GUIDED)
        noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(output.exogenous_noise, torch.cat([noise, noise]))
        assert torch.equal(output.images, pipe.predict(torch.cat([noise, noise]), [0, 0, 1, 1], **GUIDED).images)

    def test_generator_also_draws_for_eta(self, pipe):
        draws = [
            pipe.sample(1, 2, generator=torch.Generator().manual_seed(0), eta=1.0, **GUIDED).images for _ in range(2)
        ]
        assert torch.equal(*draws)

    def test_classes_of_a_mixture(self):
        pipe = get_mixture_pipe()
        generator = torch.Generator().manual_seed(0)
        output = pipe.sample([0, 1], 500, generator, guidance_scale=1.0, num_inference_steps=100, output_type="pt")
        for images, mean in zip((output.images * 2 - 1).chunk(2), MixtureUNet.means, strict=True):
            assert abs(images.mean() - mean) < 0.03 and abs(images.std() - MixtureUNet.STD) < 0.03


class TestCallback:
    def test_is_called_each_step_of_the_prediction(self, pipe):
        calls = []

        def callback(pipeline, step, timestep, callback_kwargs):
            calls.append((pipeline, step, timestep, callback_kwargs["sample"].shape))
            return callback_kwargs

        images = pipe(get_dummy_image(), 1, callback_on_step_end=callback, **GUIDED).images
        assert calls == [(pipe, i, 750 - 250 * i, (1, 1, 8, 8)) for i in range(4)]
        assert torch.equal(images, pipe(get_dummy_image(), 1, **GUIDED).images)

    def test_can_change_the_sample(self, pipe):
        def callback(pipeline, step, timestep, callback_kwargs):
            return {"sample": torch.zeros_like(callback_kwargs["sample"])} if step == 3 else {}

        images = pipe(get_dummy_image(), 1, callback_on_step_end=callback, **GUIDED).images
        assert torch.equal(images, torch.full((1, 1, 8, 8), 0.5))

    def test_progress_bar(self, pipe, capsys):
        pipe(get_dummy_image(), 1, **GUIDED)
        assert capsys.readouterr().err == ""
        pipe.set_progress_bar_config(disable=False)
        pipe(get_dummy_image(), 1, **GUIDED)
        progress = capsys.readouterr().err
        assert "Abduction: 100%" in progress and "Prediction: 100%" in progress and "4/4" in progress


class TestImages:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)

    def assert_all_equal(self, pipe, pixels, images):
        """`pixels` is the uint8 batch, channels last, that each of `images` shows."""
        expected = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 127.5 - 1
        for image in images:
            prepared = pipe.prepare_image(image)
            assert prepared.dtype == torch.float32
            torch.testing.assert_close(prepared, expected.float(), rtol=0, atol=1e-6)

    def test_greyscale(self, pipe):
        pixels = self.pixels[..., :1]
        floats, tensor = pixels / 255, torch.from_numpy(pixels).permute(0, 3, 1, 2)
        pictures = [PIL.Image.fromarray(p[..., 0]) for p in pixels]
        self.assert_all_equal(
            pipe,
            pixels,
            [
                pictures,
                pixels,
                pixels[..., 0],
                list(pixels),
                list(pixels[..., 0]),
                floats,
                floats[..., 0].astype(np.float32),
                list(floats[..., 0]),
                tensor,
                tensor.double() / 255,
                list(tensor),
                [tensor],
            ],
        )
        first = [
            pictures[0], pixels[0], pixels[0, ..., 0], floats[0], floats[0, ..., 0], tensor[0], tensor[:1], [tensor[0]]
        ]  # fmt: skip
        self.assert_all_equal(pipe, pixels[:1], first)

    def test_colour(self):
        tensor = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)
        pictures = [PIL.Image.fromarray(p) for p in self.pixels]
        images = [pictures, self.pixels, list(self.pixels), self.pixels / 255, tensor, list(tensor), tensor / 255]
        pipe = get_dummy_pipe(channels=3)
        self.assert_all_equal(pipe, self.pixels, images)
        self.assert_all_equal(pipe, self.pixels[:1], [pictures[0], self.pixels[0], tensor[0]])

    def test_mirrored_array(self, pipe):
        pixels = self.pixels[:, :, ::-1, :1]
        self.assert_all_equal(pipe, pixels.copy(), [pixels])


class TestContexts:
    @pytest.fixture(autouse=True)
    def expected(self, pipe):
        return pipe(get_dummy_image(2), [0, 1], **GUIDED)

    @pytest.mark.parametrize("context", (torch.no_grad, torch.inference_mode, torch.enable_grad))
    def test_gradient_modes(self, pipe, expected, context):
        pipe.classifier.conv_in.requires_grad_(False)
        before = [(p.requires_grad, p.clone()) for p in (*pipe.unet.parameters(), *pipe.classifier.parameters())]
        with context():
            output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert torch.equal(output.images, expected.images) and torch.equal(output.log_probs, expected.log_probs)
        assert not output.images.requires_grad and not output.exogenous_noise.requires_grad
        after = (*pipe.unet.parameters(), *pipe.classifier.parameters())
        for (requires_grad, value), parameter in zip(before, after, strict=True):
            assert parameter.requires_grad == requires_grad and parameter.grad is None
            assert torch.equal(parameter, value)

    @pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
    def test_half_weights(self, pipe, expected, dtype):
        output = pipe.to(dtype)(get_dummy_image(2), [0, 1], **GUIDED)
        assert output.exogenous_noise.dtype == output.log_probs.dtype == output.images.dtype == torch.float32
        assert (output.images - expected.images).abs().mean() < 0.02
        assert (output.log_probs - expected.log_probs).abs().max() < 0.1

    def test_autocast(self, pipe, expected):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert output.exogenous_noise.dtype == output.log_probs.dtype == output.images.dtype == torch.float32
        assert not torch.equal(output.images, expected.images)
        assert (output.images - expected.images).abs().mean() < 0.02

    def test_learned_variance_is_split_off(self, pipe, expected):
        learned = get_dummy_pipe(out_channels=2)
        weights = pipe.unet.state_dict()
        for name in ("conv_out.weight", "conv_out.bias"):
            weights[name] = torch.cat([weights[name], torch.randn_like(weights[name])])
        learned.unet.load_state_dict(weights)
        learned.classifier.load_state_dict(pipe.classifier.state_dict())
        output = learned(get_dummy_image(2), [0, 1], **GUIDED)
        torch.testing.assert_close(output.images, expected.images, rtol=0, atol=1e-6)

    def test_parts_of_a_ddpm_pipeline(self, pipe, expected):
        ddpm = DDPMPipeline(pipe.unet, DDPMScheduler())
        joined = DiffSCMCounterfactualPipeline(**ddpm.components, classifier=pipe.classifier)
        joined.set_progress_bar_config(disable=True)
        assert isinstance(joined.scheduler, DDIMScheduler) and not joined.scheduler.config.clip_sample
        assert isinstance(joined.inverse_scheduler, DiffSCMDDIMInverseScheduler)
        assert torch.equal(joined(get_dummy_image(2), [0, 1], **GUIDED).images, expected.images)

    def test_networks_are_run_through_their_offload_hooks(self, pipe, expected):
        # What `enable_model_cpu_offload` does, without an accelerator: a forward pass must call the hooks, and neither
        # network may push the other out while they take turns.
        moves = {"unet": [], "classifier": []}
        for name in moves:
            _, hook = cpu_offload_with_hook(getattr(pipe, name), execution_device="cpu")
            pre_forward = hook.hook.pre_forward

            def recorded(module, *args, name=name, pre_forward=pre_forward, **kwargs):
                moves[name].append(module)
                return pre_forward(module, *args, **kwargs)

            hook.hook.pre_forward = recorded
        output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert torch.equal(output.images, expected.images)
        assert (len(moves["unet"]), len(moves["classifier"])) == (8, 5)

    @pytest.mark.skipif(
        not (torch.cuda.is_available() or torch.backends.mps.is_available()), reason="offloads from an accelerator"
    )
    def test_model_cpu_offload(self, pipe, expected):
        pipe.enable_model_cpu_offload()
        output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert pipe.unet.device.type == pipe.classifier.device.type == "cpu"
        torch.testing.assert_close(output.images.cpu(), expected.images, rtol=0, atol=1e-2)


FRESH_PROCESS = """
import sys

import torch
from diffusers import DiffusionPipeline

import diffscm_diffusers

folder, pipeline_file = sys.argv[1:]
loaded = {
    "class": diffscm_diffusers.DiffSCMCounterfactualPipeline.from_pretrained(folder),
    "custom": DiffusionPipeline.from_pretrained(folder, custom_pipeline=pipeline_file, trust_remote_code=True),
}
outputs = {}
for name, pipe in loaded.items():
    assert isinstance(pipe, diffscm_diffusers.DiffSCMCounterfactualPipeline) == (name != "custom"), type(pipe)
    assert type(pipe).__name__ == "DiffSCMCounterfactualPipeline"
    output = pipe(torch.load("image.pt", weights_only=True), ["two", 1], output_type="pt")
    outputs[name] = [output.images, output.exogenous_noise, output.log_probs]
torch.save(outputs, "outputs.pt")
"""


class TestSaving:
    def save(self, folder, **kwargs):
        pipe = DiffSCMCounterfactualPipeline(
            **get_dummy_components(), default_guidance_scale=30.0, default_num_inference_steps=5, **kwargs
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.save_pretrained(folder)
        return pipe

    def test_fresh_process(self, tmp_path):
        pipe, image = self.save(tmp_path / "checkpoint"), get_dummy_image()
        torch.save(image, tmp_path / "image.pt")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
        process = subprocess.run(
            [sys.executable, "-c", FRESH_PROCESS, tmp_path / "checkpoint", PIPELINE_FILE],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        expected = pipe(image, ["two", 1], output_type="pt", return_dict=False)
        for name, outputs in torch.load(tmp_path / "outputs.pt", weights_only=True).items():
            for output, reference in zip(outputs, expected, strict=True):
                assert torch.equal(output, reference), name

    def test_keeps_settings(self, tmp_path):
        scheduler = DDIMScheduler()
        inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(scheduler.config, evaluate_at="source")
        self.save(tmp_path, inverse_scheduler=inverse_scheduler)
        loaded = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
        assert loaded.config.default_guidance_scale == 30.0 and loaded.config.default_num_inference_steps == 5
        assert loaded.inverse_scheduler.config.evaluate_at == "source"
        assert loaded.classifier.id2label == {0: "zero", 1: "one", 2: "two"}
        assert not list(tmp_path.rglob("*.bin")) and len(list(tmp_path.rglob("*.safetensors"))) == 2

    def test_half_weights(self, tmp_path):
        self.save(tmp_path)
        loaded = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.unet.dtype == loaded.classifier.dtype == torch.bfloat16

    def test_missing_folder(self, tmp_path):
        with pytest.raises((OSError, ValueError), match="checkpoints/nowhere"):
            DiffSCMCounterfactualPipeline.from_pretrained(str(tmp_path / "checkpoints" / "nowhere"))

    @pytest.mark.parametrize(
        "name", ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "classifier/config.json")
    )
    def test_torn_file(self, tmp_path, name):
        self.save(tmp_path)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(OSError, match=str(tmp_path / name)):
            DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        "name", ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "classifier/config.json")
    )
    def test_missing_file(self, tmp_path, name):
        self.save(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(OSError, match=f"{Path(name).stem}.* {(tmp_path / name).parent}"):
            DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)


class TestErrors:
    """Each names its argument, and is raised before any network runs."""

    image = get_dummy_image()

    @pytest.mark.parametrize(
        "name, kwargs",
        (
            ("image", {"image": []}),
            ("image", {"image": "digit.png"}),
            ("image", {"image": [get_dummy_image()[0], PIL.Image.new("L", (8, 8))]}),
            ("image", {"image": PIL.Image.new("L", (9, 8))}),
            ("image", {"image": PIL.Image.new("RGB", (8, 8))}),
            ("image", {"image": PIL.Image.new("RGBA", (8, 8))}),
            ("image", {"image": [PIL.Image.new("L", (8, 8)), PIL.Image.new("L", (9, 9))]}),
            ("image", {"image": [PIL.Image.new("L", (8, 8)), PIL.Image.new("RGB", (8, 8))]}),
            ("image", {"image": torch.rand(8, 8)}),
            ("image", {"image": np.zeros(8)}),
            ("image", {"image": np.array(0.5)}),
            ("image", {"image": torch.rand(0, 1, 8, 8)}),
            ("image", {"image": torch.rand(1, 3, 8, 8)}),
            ("image", {"image": torch.rand(1, 1, 8, 9)}),
            ("image", {"image": [torch.rand(1, 8, 8), torch.rand(1, 9, 9)]}),
            ("image", {"image": np.random.rand(9, 8)}),
            ("image", {"image": np.random.rand(8, 8, 3)}),
            ("image", {"image": np.ones((8, 8), dtype=bool)}),
            ("image", {"image": torch.ones(1, 8, 8, dtype=torch.int64)}),
            ("image", {"image": torch.full((1, 8, 8), 1.1)}),
            ("image", {"image": torch.full((1, 8, 8), -0.1)}),
            ("image", {"image": torch.full((1, 8, 8), float("nan"))}),
            ("image", {"image": torch.rand(1, 8, 8).index_fill(2, torch.tensor([3]), float("nan"))}),
            ("intervention", {"intervention": None}),
            ("intervention", {"intervention": []}),
            ("intervention", {"intervention": 3}),
            ("intervention", {"intervention": -1}),
            ("intervention", {"intervention": [0, 3]}),
            ("intervention", {"intervention": torch.tensor([3])}),
            ("intervention", {"intervention": "three"}),
            ("intervention", {"intervention": ["one", "three"]}),
            ("intervention", {"intervention": 1.0}),
            ("intervention", {"intervention": True}),
            ("intervention", {"intervention": torch.tensor([1.0])}),
            ("intervention", {"image": torch.rand(3, 1, 8, 8), "intervention": [0, 1]}),
            ("guidance_scale", {"guidance_scale": -1.0}),
            ("guidance_scale", {"guidance_scale": float("nan")}),
            ("guidance_scale", {"guidance_scale": float("inf")}),
            ("guidance_scale", {"guidance_scale": "1"}),
            ("guidance_scale", {"guidance_scale": [1.0, 2.0]}),
            ("guidance_scale", {"guidance_scale": [-1.0]}),
            ("guidance_scale", {"guidance_scale": torch.tensor([float("nan")])}),
            ("guidance_scale", {"guidance_scale": []}),
            ("num_inference_steps", {"num_inference_steps": 0}),
            ("num_inference_steps", {"num_inference_steps": -5}),
            ("num_inference_steps", {"num_inference_steps": 1001}),
            ("num_inference_steps", {"num_inference_steps": 2.5}),
            ("strength", {"strength": 0}),
            ("strength", {"strength": 1.01}),
            ("strength", {"strength": -0.5}),
            ("strength", {"strength": float("nan")}),
            ("strength", {"strength": 0.1}),  # of four steps
            ("eta", {"eta": -0.1}),
            ("eta", {"eta": 1.1}),
            ("generator", {"generator": 0}),
            ("generator", {"generator": [torch.Generator()]}),
            ("callback_on_step_end", {"callback_on_step_end": "print"}),
            ("batch_size", {"batch_size": 0}),
            ("batch_size", {"batch_size": 1.5}),
            ("batch_size", {"batch_size": True}),
            ("preset", {"preset": ["fast"]}),
            ("guidance_interval", {"guidance_interval": ("a", "b")}),
            ("guidance_interval", {"guidance_interval": (None, None)}),
            ("output_type", {"output_type": "latent"}),
            ("callback_on_step_end_tensor_inputs", {"callback_on_step_end_tensor_inputs": ["latents"]}),
        ),
    )
    def test_call(self, pipe, name, kwargs):
        evaluations = record_evaluations(pipe.unet), record_evaluations(pipe.classifier)
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            pipe(**{"image": self.image, "intervention": 1, **GUIDED, **kwargs})
        assert evaluations == ([], [])

    @pytest.mark.parametrize(
        "name, kwargs",
        (
            ("exogenous_noise", {"exogenous_noise": None}),
            ("exogenous_noise", {"exogenous_noise": torch.randn(1, 8, 8)}),
            ("exogenous_noise", {"exogenous_noise": torch.randn(1, 3, 8, 8)}),
            ("exogenous_noise", {"exogenous_noise": torch.randn(0, 1, 8, 8)}),
            ("exogenous_noise", {"exogenous_noise": torch.tensor(1.0)}),
            ("exogenous_noise", {"exogenous_noise": torch.full((1, 1, 8, 8), float("nan"))}),
            ("intervention", {"intervention": 3}),
            ("strength", {"strength": 2}),
        ),
    )
    def test_predict(self, pipe, name, kwargs):
        evaluations = record_evaluations(pipe.unet)
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            pipe.predict(**{"exogenous_noise": torch.randn(1, 1, 8, 8), "intervention": 1, **GUIDED, **kwargs})
        assert evaluations == []

    @pytest.mark.parametrize("num_images", (0, -1, 1.5))
    def test_sample(self, pipe, num_images):
        with pytest.raises(ValueError, match="`num_images`"):
            pipe.sample(1, num_images)

    def test_sample_with_a_seed_for_a_generator(self, pipe):
        with pytest.raises(TypeError, match="`generator` takes a `torch.Generator`, got int"):
            pipe.sample(1, generator=0)

    def test_label_that_names_two_classes(self, pipe):
        pipe.classifier.register_to_config(id2label={0: "crane", 1: "crane", 2: "two"})
        with pytest.raises(ValueError, match=r"`intervention` 'crane' names the classes \[0, 1\]"):
            pipe(self.image, "crane", **GUIDED)
        assert torch.equal(pipe.prepare_intervention("two"), torch.tensor([2]))

    def test_steps_whose_levels_are_not_consecutive(self):
        pipe = get_dummy_pipe(timestep_spacing="trailing")
        with pytest.raises(ValueError, match="`num_inference_steps` 30 with `timestep_spacing` 'trailing'"):
            pipe(self.image, 1, num_inference_steps=30)

    @pytest.mark.parametrize("config", ({"in_channels": 3}, {"sample_size": 16}))
    def test_classifier_for_other_images(self, config):
        components = get_dummy_components()
        components["classifier"] = AntiCausalClassifier2DModel.from_config(components["classifier"].config, **config)
        with pytest.raises(ValueError, match=f"`classifier` .* `{list(config)[0]}`"):
            DiffSCMCounterfactualPipeline(**components)

    @pytest.mark.parametrize(
        "config, message",
        (
            ({"num_class_embeds": 3}, "`unet` .* unconditional .* `num_class_embeds` 3"),
            ({"class_embed_type": "timestep"}, "`unet` .* unconditional .* `class_embed_type` 'timestep'"),
            ({"out_channels": 3}, "`unet` .* output as input channels, .* 3 and 1"),
        ),
    )
    def test_unet(self, config, message):
        components = get_dummy_components()
        components["unet"] = UNet2DModel.from_config(components["unet"].config, **config)
        with pytest.raises(ValueError, match=message):
            DiffSCMCounterfactualPipeline(**components)

    def test_schedulers_that_do_not_pair(self, pipe):
        for config in ({"timestep_spacing": "trailing"}, {"prediction_type": "sample"}, {"set_alpha_to_one": False}):
            pipe.inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(pipe.scheduler.config, **config)
            with pytest.raises(ValueError, match=f"`inverse_scheduler` .*`{list(config)[0]}`"):
                pipe(self.image, 1, **GUIDED)
        pipe.inverse_scheduler = DiffSCMDDIMInverseScheduler(beta_end=0.01)
        with pytest.raises(ValueError, match="`inverse_scheduler` .* betas"):
            pipe(self.image, 1, **GUIDED)

    def test_scheduler_that_cannot_be_inverted(self, pipe):
        pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        with pytest.raises(ValueError, match="`scheduler` takes a DDIMScheduler .* got DDPMScheduler"):
            pipe(self.image, 1, **GUIDED)

    @pytest.mark.parametrize(
        "schedulers",
        (
            {"scheduler": DiffSCMBELMScheduler(reverse=True)},
            {"scheduler": DiffSCMBELMScheduler(), "inverse_scheduler": DiffSCMBELMScheduler()},
            {"scheduler": DDIMScheduler(), "inverse_scheduler": DiffSCMBELMScheduler(reverse=True)},
            {"scheduler": DDIMScheduler(), "inverse_scheduler": DDIMInverseScheduler()},
            {"scheduler": DDIMScheduler(), "inverse_scheduler": DiffSCMDDIMInverseScheduler(num_train_timesteps=500)},
            {"scheduler": FlowMatchEulerDiscreteScheduler()},
        ),
    )
    def test_schedulers_of_a_new_pipeline(self, schedulers):
        with pytest.raises(ValueError, match="scheduler`"):
            DiffSCMCounterfactualPipeline(**{**get_dummy_components(), **schedulers})

    def test_prediction_that_is_not_finite(self, pipe):
        with pytest.raises(ValueError, match="The prediction is not finite: lower `guidance_scale`"):
            pipe(self.image, 1, **{**GUIDED, "guidance_scale": 1e38})

    @pytest.mark.parametrize("config", ({"clip_sample": True}, {"thresholding": True}))
    def test_scheduler_that_clips(self, pipe, config):
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **config)
        with pytest.raises(ValueError, match="`scheduler` .*without `clip_sample`"):
            pipe(self.image, 1, **GUIDED)
