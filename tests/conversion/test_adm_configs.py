# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from diffscm_diffusers.conversion.adm_configs import classifier_config, denoiser_config, scheduler_config
from diffscm_diffusers.conversion.class_names import imagenet_id2label
from diffscm_diffusers.models import AntiCausalClassifier2DModel
from diffscm_diffusers.models.adm_unet_2d import ADMUNet2DModel


CONFIGS = Path(__file__).resolve().parents[2] / "train_scripts" / "configs"

# What guided-diffusion's README gives for each published file, where not the default.
DENOISER = {
    "num_channels": 256,
    "num_res_blocks": 2,
    "channel_mult": (),
    "attention_resolutions": (32, 16, 8),
    "num_heads": 4,
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "learn_sigma": True,
    "dropout": 0.0,
    "in_channels": 3,
    "num_classes": 1000,
}
CLASSIFIER = {
    "classifier_width": 128,
    "classifier_depth": 2,
    "classifier_channel_mult": (),
    "classifier_attention_resolutions": (32, 16, 8),
    "classifier_num_head_channels": 64,
    "classifier_use_scale_shift_norm": True,
    "classifier_resblock_updown": True,
    "classifier_pool": "attention",
    "in_channels": 3,
    "num_classes": 1000,
}


def create_denoiser(config: dict) -> UNet2DModel:
    model_class = {"UNet2DModel": UNet2DModel, "ADMUNet2DModel": ADMUNet2DModel}[config["_class_name"]]
    with torch.device("meta"):
        return model_class.from_config(config)


@pytest.mark.parametrize(
    "flags, millions",
    [
        ({"image_size": 64, "num_channels": 192, "num_res_blocks": 3, "dropout": 0.1}, 296),
        ({"image_size": 128, "num_head_channels": -1}, 422),
        ({"image_size": 256}, 554),
        ({"image_size": 256, "num_classes": None}, 554),
        ({"image_size": 512}, 559),
    ],
)
def test_published_denoisers_have_the_published_sizes(flags, millions):
    """Dhariwal & Nichol (2021), App. I."""
    model = create_denoiser(denoiser_config(**{**DENOISER, **flags}))
    assert model.num_parameters() == pytest.approx(millions * 1e6, rel=0.01)
    assert model.config.out_channels == 6


@pytest.mark.parametrize(
    "flags, millions",
    [
        ({"image_size": 64, "classifier_depth": 4}, 65),
        ({"image_size": 128}, 43),
        ({"image_size": 256}, 54),
        ({"image_size": 512}, 54),
    ],
)
def test_published_classifiers_have_the_published_sizes(flags, millions):
    with torch.device("meta"):
        model = AntiCausalClassifier2DModel(**classifier_config(**{**CLASSIFIER, **flags}))
    assert round(model.num_parameters() / 1e6) == millions


@pytest.mark.parametrize(
    "name, model_class, config",
    [
        ("unet", UNet2DModel, denoiser_config(**{**DENOISER, "image_size": 256, "num_classes": None})),
        ("classifier", AntiCausalClassifier2DModel, classifier_config(**{**CLASSIFIER, "image_size": 256})),
    ],
)
def test_table_2s_configurations_are_the_published_networks(name, model_class, config):
    with torch.device("meta"):
        trained = model_class.from_config(json.loads((CONFIGS / f"{name}_imagenet256.json").read_text()))
        converted = model_class.from_config(config)
    # That of the classifier is given by what guided-diffusion is told, and by default, in turn.
    assert (converted.config.get("time_proj_dim") or 128) == 128
    for key in {*trained.config, *converted.config} - {"_class_name", "_use_default_values", "time_proj_dim"}:
        values = [model.config[key] for model in (trained, converted)]
        values = [list(value) if isinstance(value, tuple) else value for value in values]
        assert values[0] == values[1], key


def test_linear_schedule_ends_at_one_noise_level_whatever_the_number_of_steps():
    for steps in (100, 1000, 4000):
        scheduler = DDPMScheduler(**scheduler_config(steps, "linear", False, False))
        expected = [1e-4 + (0.02 - 1e-4) * i / (steps - 1) for i in range(steps)]
        expected = 1000 / steps * torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(scheduler.betas.double(), expected, rtol=1e-5, atol=0)


def test_cosine_schedule():
    scheduler = DDPMScheduler(**scheduler_config(1000, "cosine", False, False))

    def level(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    expected = [min(1 - level((i + 1) / 1000) / level(i / 1000), 0.999) for i in range(1000)]
    torch.testing.assert_close(scheduler.betas, torch.tensor(expected))


def test_type_of_prediction_and_variance():
    scheduler = DDPMScheduler(**scheduler_config(1000, "linear", learn_sigma=True, predict_xstart=True))
    assert scheduler.config.variance_type == "learned_range" and scheduler.config.prediction_type == "sample"
    # Kept through the conversion to DDIM that the pipeline makes.
    ddim = DDIMScheduler.from_config(scheduler.config)
    assert DDPMScheduler.from_config(ddim.config).config.variance_type == "learned_range"
    scheduler = DDPMScheduler(**scheduler_config(1000, "linear", learn_sigma=False, predict_xstart=False))
    assert scheduler.config.variance_type == "fixed_large" and scheduler.config.prediction_type == "epsilon"


def test_other_image_sizes_need_multipliers():
    with pytest.raises(
        ValueError, match="`channel_mult` is needed for an `image_size` other than 64.*`image_size` 28"
    ):
        denoiser_config(**{**DENOISER, "image_size": 28})


def test_imagenet_names():
    id2label = imagenet_id2label()
    assert list(id2label) == list(range(1000)) and all(id2label.values())
    assert id2label[0] == "tench, Tinca tinca"
    assert id2label[281] == "tabby, tabby cat"
    assert id2label[999] == "toilet tissue, toilet paper, bathroom tissue"
    # The bird and the machine are the only two classes of one name.
    assert [i for i, label in id2label.items() if list(id2label.values()).count(label) > 1] == [134, 517]
