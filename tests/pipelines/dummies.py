# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Tiny pipelines, with random networks or with the exact ones of a mixture of two Gaussians."""

import copy

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline, DiffSCMDDIMInverseScheduler
from diffscm_diffusers.models.anticausal_classifier_2d import AntiCausalClassifier2DOutput


ALPHAS_CUMPROD = DDIMScheduler().alphas_cumprod


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
    pipe = DiffSCMCounterfactualPipeline(**get_dummy_components(**kwargs), default_marginal_abduction=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_dummy_image(batch=1, channels=1):
    return torch.rand(batch, channels, 8, 8, generator=torch.Generator().manual_seed(0))


def decode_in_one_range(encoder):
    """Decoded images all go from 0 to 0.02, so that a `residual_std` of 10 is one of 0.1 in [-1, 1]."""
    decode = encoder.decode

    def decode_in_range(code, condition):
        image = decode(code, condition)
        low, high = (extremum(image, dim=(1, 2, 3), keepdim=True) for extremum in (torch.amin, torch.amax))
        return 0.02 * (image - low) / (high - low)

    encoder.decode = decode_in_range


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


class ConditionalMixtureUNet(MixtureUNet):
    """The same, told the class, or by the index 2 that it is not."""

    def forward(self, sample, timestep, class_labels, return_dict=True):
        predictions = []
        for x, label in zip(sample, class_labels.tolist(), strict=True):
            unet = copy.copy(self)
            unet.means = self.means if label == 2 else self.means[label : label + 1]
            predictions.append(MixtureUNet.forward(unet, x[None], timestep).sample)
        return UNet2DOutput(sample=torch.cat(predictions))


class MixtureClassifier(AntiCausalClassifier2DModel):
    """The exact `p(y | x_t)` of `MixtureUNet`'s classes."""

    def forward(self, sample, timestep, return_dict=True):
        alpha_prod = ALPHAS_CUMPROD[timestep].item()
        variance = alpha_prod * MixtureUNet.STD**2 + 1 - alpha_prod
        deviations = torch.stack([sample - alpha_prod**0.5 * mean for mean in MixtureUNet.means], dim=1)
        return AntiCausalClassifier2DOutput(logits=-deviations.pow(2).sum(dim=(2, 3, 4)) / (2 * variance))


def get_mixture_pipe(
    prediction_type="epsilon", means=MixtureUNet.means, evaluate_at="destination", unet_class=MixtureUNet
):
    unet = unet_class(
        num_class_embeds=3 if unet_class is ConditionalMixtureUNet else None,
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
    pipe = DiffSCMCounterfactualPipeline(
        unet, classifier, scheduler, inverse_scheduler, default_marginal_abduction=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_mixture_image(batch=1):
    return torch.rand(batch, 1, 2, 2, generator=torch.Generator().manual_seed(0))
