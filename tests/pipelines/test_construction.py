# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel

from diffscm_diffusers import (
    AntiCausalClassifier2DModel,
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMInverseScheduler,
    DiffSCMDDIMScheduler,
)

from .dummies import GUIDED, get_dummy_components, get_dummy_image


class TestNetworks:
    def test_networks_are_in_evaluation_mode(self):
        components = get_dummy_components()
        components["unet"] = UNet2DModel.from_config(components["unet"].config, dropout=0.5)
        assert components["unet"].training
        pipe = DiffSCMCounterfactualPipeline(**components)
        assert torch.equal(*(pipe(get_dummy_image(), 1, **GUIDED).images for _ in range(2)))

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
            ({"sample_size": None}, "`unet` expects a `sample_size`, the images' height and width, got None"),
            ({"out_channels": 3}, "`unet` .* output as input channels, .* 3 and 1"),
        ),
    )
    def test_unet(self, config, message):
        components = get_dummy_components()
        components["unet"] = UNet2DModel.from_config(components["unet"].config, **config)
        with pytest.raises(ValueError, match=message):
            DiffSCMCounterfactualPipeline(**components)


class TestSchedulers:
    def test_a_denoisers_own_betas(self):
        """`DDIMScheduler` has no sigmoid schedule; its betas are taken over."""
        components = get_dummy_components()
        components["scheduler"] = DDPMScheduler(beta_schedule="sigmoid")
        pipe = DiffSCMCounterfactualPipeline(**components)
        assert torch.equal(pipe.scheduler.alphas_cumprod, components["scheduler"].alphas_cumprod)
        assert pipe(get_dummy_image(), 1, **GUIDED).images.isfinite().all()

    def test_schedulers_that_do_not_pair(self, pipe):
        for config in ({"timestep_spacing": "trailing"}, {"prediction_type": "sample"}, {"set_alpha_to_one": False}):
            pipe.inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(pipe.scheduler.config, **config)
            with pytest.raises(ValueError, match=f"`inverse_scheduler` .*`{list(config)[0]}`"):
                pipe(get_dummy_image(), 1, **GUIDED)
        pipe.inverse_scheduler = DiffSCMDDIMInverseScheduler(beta_end=0.01)
        with pytest.raises(ValueError, match="`inverse_scheduler` .* betas"):
            pipe(get_dummy_image(), 1, **GUIDED)

    def test_scheduler_that_cannot_be_inverted(self, pipe):
        pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        with pytest.raises(
            ValueError, match="`scheduler` expects one whose moves can be inverted, .* got DDPMScheduler"
        ):
            pipe(get_dummy_image(), 1, **GUIDED)

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

    @pytest.mark.parametrize("config", ({"clip_sample": True}, {"thresholding": True}))
    def test_scheduler_that_clips(self, pipe, config):
        pipe.scheduler = DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, **config)
        with pytest.raises(ValueError, match="`scheduler` expects one .* without clipping, got DiffSCMDDIMScheduler"):
            pipe(get_dummy_image(), 1, **GUIDED)
