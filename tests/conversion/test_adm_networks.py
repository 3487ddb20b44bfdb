# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Converted networks compute what ADM's do: every option that the published files use, on random weights."""

import pytest
import torch
from diffusers import UNet2DModel

from diffscm_diffusers.conversion import adm_networks
from diffscm_diffusers.models import AntiCausalClassifier2DModel

from .adm_reference import ADM, random_weights, run


DENOISERS = {
    "256x256, unconditional": ADM(),
    "256x256, class-conditional": ADM(num_classes=5),
    "64x64": ADM(num_classes=5, num_res_blocks=2, use_new_attention_order=True),
    "128x128": ADM(num_classes=5, num_head_channels=-1, channel_mult=(1, 2, 3), attention_resolutions=(8, 4)),
    "512x512": ADM(num_classes=5, num_channels=64, channel_mult=(0.5, 1)),
    "new order, heads by number": ADM(
        use_new_attention_order=True, num_head_channels=-1, attention_resolutions=(16, 8)
    ),
    "one head": ADM(num_heads=1, num_head_channels=-1, attention_resolutions=(16, 8)),
    "heads by number at one width": ADM(num_heads=2, num_head_channels=-1),
    "convolutions change the resolution": ADM(resblock_updown=False, attention_resolutions=(16,)),
    "time as a sum": ADM(use_scale_shift_norm=False, resblock_updown=False),
    "time as a sum, residual resolution": ADM(use_scale_shift_norm=False),
    "fixed sigma, greyscale, middle attention only": ADM(learn_sigma=False, in_channels=1, attention_resolutions=()),
    "Diff-SCM's for MNIST": ADM(
        image_size=28,
        in_channels=1,
        channel_mult=(1, 2, 2),
        attention_resolutions=(),
        num_heads=1,
        num_head_channels=-1,
        resblock_updown=False,
        learn_sigma=False,
    ),
    "three levels": ADM(channel_mult=(1, 2, 2), attention_resolutions=(8,), num_res_blocks=2),
}
CLASSIFIERS = {
    "256x256": ADM(pool="attention", num_classes=7),
    "512x512": ADM(
        pool="attention", num_classes=7, num_channels=64, channel_mult=(0.5, 1), attention_resolutions=(8,)
    ),
    "Diff-SCM's for MNIST": ADM(
        pool="attention",
        num_classes=10,
        image_size=28,
        in_channels=1,
        channel_mult=(1, 2, 4, 4),
        attention_resolutions=(),
        num_head_channels=64,
    ),
    "adaptive": ADM(pool="adaptive", num_classes=7, num_res_blocks=2),
    "spatial": ADM(pool="spatial", num_classes=7, num_res_blocks=2, channel_mult=(1, 2, 2)),
    "spatial_v2": ADM(pool="spatial_v2", num_classes=7),
    "new order": ADM(pool="attention", num_classes=7, use_new_attention_order=True),
    "convolutions, time as a sum": ADM(
        pool="spatial", num_classes=7, resblock_updown=False, use_scale_shift_norm=False, in_channels=1
    ),
}


def convert_denoiser(adm: ADM, weights) -> UNet2DModel:
    return adm_networks.convert_denoiser(
        weights,
        class_cond=adm.num_classes is not None,
        use_new_attention_order=adm.use_new_attention_order,
        image_size=adm.image_size,
        num_channels=adm.num_channels,
        num_res_blocks=adm.num_res_blocks,
        channel_mult=adm.channel_mult,
        attention_resolutions=adm.attention_resolutions,
        num_heads=adm.num_heads,
        num_head_channels=adm.num_head_channels,
        use_scale_shift_norm=adm.use_scale_shift_norm,
        resblock_updown=adm.resblock_updown,
        learn_sigma=adm.learn_sigma,
        dropout=0.0,
    ).eval()


def convert_classifier(adm: ADM, weights) -> AntiCausalClassifier2DModel:
    return adm_networks.convert_classifier(
        weights,
        use_new_attention_order=adm.use_new_attention_order,
        image_size=adm.image_size,
        classifier_width=adm.num_channels,
        classifier_depth=adm.num_res_blocks,
        classifier_channel_mult=adm.channel_mult,
        classifier_attention_resolutions=adm.attention_resolutions,
        classifier_num_head_channels=adm.num_head_channels,
        classifier_use_scale_shift_norm=adm.use_scale_shift_norm,
        classifier_resblock_updown=adm.resblock_updown,
        classifier_pool=adm.pool,
    ).eval()


def get_dummy_inputs(adm: ADM):
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, adm.in_channels, adm.image_size, adm.image_size, generator=generator)
    return sample, torch.tensor([3, 907])


def assert_same(output, expected):
    # Of outputs that are of the order of one.
    assert 0.1 < expected.std() < 10
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adm", DENOISERS.values(), ids=DENOISERS)
def test_denoiser(adm):
    weights = random_weights(adm)
    model = convert_denoiser(adm, weights)
    sample, timesteps = get_dummy_inputs(adm)
    labels = None if adm.num_classes is None else torch.tensor([1, 4])
    with torch.no_grad():
        assert_same(model(sample, timesteps, labels).sample, run(adm, weights, sample, timesteps, labels))


@pytest.mark.parametrize("adm", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classifier(adm):
    weights = random_weights(adm)
    model = convert_classifier(adm, weights)
    sample, timesteps = get_dummy_inputs(adm)
    with torch.no_grad():
        assert_same(model(sample, timesteps).logits, run(adm, weights, sample, timesteps))


def test_only_what_diffusers_lacks_needs_another_class():
    plain = {
        name for name, adm in DENOISERS.items() if type(convert_denoiser(adm, random_weights(adm))) is UNet2DModel
    }
    assert set(DENOISERS) - plain == {"128x128", "512x512", "new order, heads by number"}
