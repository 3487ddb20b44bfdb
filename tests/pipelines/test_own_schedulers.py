# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The pipeline asks its schedulers, not their classes: any pair that answers as the shipped ones do will work."""

import pytest
import torch
from diffusers import ConfigMixin, DDIMScheduler, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from diffscm_diffusers import DiffSCMCounterfactualPipeline

from .dummies import ALPHAS_CUMPROD, MixtureUNet, get_dummy_image, get_dummy_pipe, get_mixture_pipe, record_evaluations


class CoupledScheduler(SchedulerMixin, ConfigMixin):
    """
    Two coupled samples that take turns: each is moved along DDIM's line by the noise that is seen in the other one,
    which stays, so that every move can be undone. After its turn each takes a little of the other
    ([Wallace et al., 2023](https://arxiv.org/abs/2211.12446), Eq. 14 and 15).
    """

    is_invertible = True
    abductions = ()

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, prediction_type: str = "epsilon", upwards: bool = False):
        self.alphas_cumprod = DDIMScheduler(num_train_timesteps).alphas_cumprod

    def inverse(self):
        return self.from_config(self.config, upwards=True)

    def check_inverse(self, inverse_scheduler):
        if not (isinstance(inverse_scheduler, CoupledScheduler) and inverse_scheduler.config.upwards):
            raise ValueError("`inverse_scheduler` expects a CoupledScheduler that leads up.")

    def set_timesteps(self, num_inference_steps):
        levels = num_inference_steps // 2
        upper = torch.arange(1, levels + 1) * self.config.num_train_timesteps // levels - 1
        timesteps = upper.repeat_interleave(2)  # one for each of the two samples
        self.timesteps = timesteps if self.config.upwards else timesteps.flip(0)
        self.lower = dict(zip(upper.tolist(), [None, *upper.tolist()], strict=False))

    def check_num_moves(self, num_moves):
        if not 2 <= num_moves <= len(self.timesteps):
            raise ValueError(f"`num_moves` expects 2 to {len(self.timesteps)}, got {num_moves}.")

    def start(self, sample, num_moves):
        self.moved = 1 if self.config.upwards else 0
        timesteps = self.timesteps.tolist()
        timesteps = timesteps[:num_moves] if self.config.upwards else timesteps[-num_moves:]
        return (sample if sample.ndim == 5 else torch.stack([sample, sample], dim=1)).double(), timesteps

    def scale_model_input(self, sample, timestep):
        return sample[:, 1 - self.moved]

    def step(self, model_output, timestep, sample):
        lower = self.lower[timestep]
        high = self.alphas_cumprod[timestep].item()
        low = 1.0 if lower is None else self.alphas_cumprod[lower].item()
        ratio = (low / high) ** 0.5
        shift = ((1 - low) ** 0.5 - ratio * (1 - high) ** 0.5) * model_output
        old = sample[:, self.moved]
        new = (old - shift) / ratio if self.config.upwards else ratio * old + shift
        pair = [sample[:, 0], sample[:, 1]]
        pair[self.moved] = new
        self.moved = 1 - self.moved
        sample = torch.stack(pair, dim=1)
        if self.moved == (1 if self.config.upwards else 0):  # both have had their turn
            sample = self.mix(sample, backwards=self.config.upwards)
        return SchedulerOutput(prev_sample=sample)

    def mix(self, sample, backwards=False, share=0.07):
        first, second = sample.unbind(1)
        if backwards:
            second = (second - share * first) / (1 - share)
            first = (first - share * second) / (1 - share)
        else:
            first = (1 - share) * first + share * second
            second = (1 - share) * second + share * first
        return torch.stack([first, second], dim=1)

    def finish(self, sample):
        return self.mix(sample) if self.config.upwards else sample[:, 0]  # no move follows, for which to unmix


def with_coupled(pipe):
    pipe = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, CoupledScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("strength", (1.0, 0.5))
def test_round_trip_is_exact(strength):
    pipe, images = with_coupled(get_dummy_pipe()), get_dummy_image(3)
    evaluations = record_evaluations(pipe.unet)
    output = pipe(images, guidance_scale=0, num_inference_steps=8, strength=strength, batch_size=2, output_type="pt")
    assert (output.images - images).abs().max() < 1e-5
    assert output.exogenous_noise.shape == (3, 2, 1, 8, 8)
    assert output.abduction.num_evaluations.tolist() == [8 * strength] * 3
    assert evaluations == ([2] * int(8 * strength) + [1] * int(8 * strength)) * 2


def test_guided_prediction_is_the_flow_of_the_class():
    """Scale 1 makes the mixture's score the class's own, whose flow from noise to image is known."""
    pipe, noise = with_coupled(get_mixture_pipe()), torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    alpha_prod = ALPHAS_CUMPROD[-1]
    scale = MixtureUNet.STD / (alpha_prod * MixtureUNet.STD**2 + 1 - alpha_prod) ** 0.5
    expected = [mean + scale * (z - alpha_prod**0.5 * mean) for z, mean in zip(noise, MixtureUNet.means, strict=True)]
    images = pipe.predict(noise, [0, 1], 1.0, num_inference_steps=200, output_type="pt").images
    torch.testing.assert_close(images, torch.stack(expected) / 2 + 0.5, rtol=0, atol=0.02)


def test_counterfactual_shows_the_intervention():
    pipe = with_coupled(get_mixture_pipe())
    factual = torch.full((1, 1, 2, 2), 0.35)  # the mean of class 0
    output = pipe(factual, [0, 1], 1.0, num_inference_steps=100, output_type="pt")
    assert (output.log_probs.exp() > 0.99).all()
    assert (output.images[0] - factual[0]).abs().max() < 0.05


def test_an_inverse_that_it_does_not_know():
    pipe = with_coupled(get_dummy_pipe())
    with pytest.raises(ValueError, match="`inverse_scheduler` expects a CoupledScheduler that leads up"):
        DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, pipe.scheduler, CoupledScheduler())


def test_what_its_moves_do_not_know():
    pipe = with_coupled(get_dummy_pipe())
    with pytest.raises(ValueError, match="`abduction` expects"):
        pipe(get_dummy_image(), 1, abduction="source")
    with pytest.raises(ValueError, match="`eta` expects 0 with CoupledScheduler"):
        pipe(get_dummy_image(), 1, eta=0.5)
