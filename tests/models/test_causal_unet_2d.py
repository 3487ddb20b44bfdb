# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler

from diffscm_diffusers import CausalUNet2DModel


# Not in alphabetical order, which is that of a saved configuration's keys.
WIDTHS = {"thickness": 1, "digit": 3, "intensity": 1}
TINY = {
    "condition_widths": WIDTHS,
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "block_out_channels": (8,),
    "norm_num_groups": 4,
    "add_attention": False,
}
CONDITION = torch.tensor([[0.5, 0, 1, 0, -0.3]])
OTHERS = {
    "thickness": torch.tensor([[0.2, 0, 1, 0, -0.3]]),
    "digit": torch.tensor([[0.5, 1, 0, 0, -0.3]]),
    "intensity": torch.tensor([[0.5, 0, 1, 0, 0.9]]),
}


@pytest.fixture
def model() -> CausalUNet2DModel:
    torch.manual_seed(0)
    model = CausalUNet2DModel(**TINY).eval().requires_grad_(False)
    torch.nn.init.normal_(model.null_embeddings)
    return model


@pytest.fixture
def sample() -> torch.Tensor:
    return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("index, name", list(enumerate(WIDTHS)))
def test_a_parent_matters_where_it_is_kept(model, sample, index, name):
    keep = torch.ones(1, 3, dtype=torch.bool)
    all_kept = model(sample, 10, CONDITION, keep).sample
    torch.testing.assert_close(all_kept, model(sample, 10, CONDITION).sample, atol=0, rtol=0)
    assert (model(sample, 10, OTHERS[name], keep).sample - all_kept).abs().max() > 1e-3

    keep[0, index] = False
    dropped = model(sample, 10, CONDITION, keep).sample
    assert (dropped - all_kept).abs().max() > 1e-3
    torch.testing.assert_close(model(sample, 10, OTHERS[name], keep).sample, dropped, atol=0, rtol=0)


def test_dropping_all_gives_what_no_value_changes(model, sample):
    keep = torch.zeros(1, 3, dtype=torch.bool)
    dropped = [model(sample, 10, condition, keep).sample for condition in (CONDITION, -CONDITION, *OTHERS.values())]
    for prediction in dropped[1:]:
        torch.testing.assert_close(prediction, dropped[0], atol=0, rtol=0)


def test_each_image_has_its_own_condition_time_and_parents(model, sample):
    conditions = torch.cat([CONDITION, OTHERS["digit"], CONDITION])
    keep = torch.tensor([[True, True, True], [True, True, False], [False, False, True]])
    timesteps = torch.tensor([10, 500, 10])
    together = model(sample.expand(3, -1, -1, -1), timesteps, conditions, keep).sample
    alone = [model(sample, timesteps[i], conditions[i : i + 1], keep[i : i + 1]).sample for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_save_and_load_keep_the_order_of_the_parents(model, sample, tmp_path):
    DDPMPipeline(model, DDPMScheduler()).save_pretrained(tmp_path)
    loaded = DDPMPipeline.from_pretrained(tmp_path).unet
    assert type(loaded) is CausalUNet2DModel
    assert list(loaded.condition_widths.items()) == list(WIDTHS.items())
    torch.testing.assert_close(loaded(sample, 5, CONDITION).sample, model(sample, 5, CONDITION).sample)
    assert list(CausalUNet2DModel.from_config(loaded.config).condition_widths) == list(WIDTHS)


def test_half_precision(model, sample):
    expected = model(sample, 5, CONDITION).sample
    got = model.to(torch.bfloat16)(sample.bfloat16(), 5, CONDITION).sample
    torch.testing.assert_close(got.float(), expected, atol=0.03, rtol=0)


def test_further_input_channels(sample):
    model = CausalUNet2DModel(**{**TINY, "in_channels": 2})
    assert model(torch.cat([sample, sample], dim=1), 1, CONDITION).sample.shape == (1, 1, 8, 8)


def test_gradients_reach_every_parameter(sample):
    model = CausalUNet2DModel(**TINY)
    keep = torch.tensor([[True, True, True], [False, False, False]])
    model(sample.expand(2, -1, -1, -1), 10, CONDITION.expand(2, -1), keep).sample.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"condition_widths": {}}, "`condition_widths` expects at least one parent"),
        ({"condition_widths": {"a": 1, "b": 0}}, "`condition_widths` expects .* got {'a': 1, 'b': 0}"),
        ({"condition_widths": {"a": 1.5}}, "`condition_widths` expects"),
        ({"num_class_embeds": 3}, "`num_class_embeds` expects None, as a class is one of `condition_widths`, got 3"),
        ({"class_embed_type": "timestep"}, "`class_embed_type` expects None"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CausalUNet2DModel(**{**TINY, **options})


@pytest.mark.parametrize(
    "condition, keep, message",
    [
        (CONDITION[:, :4], None, r"`condition` expects shape \(1, 5\), of .*'digit': 3.*, got \(1, 4\)"),
        (CONDITION.expand(2, -1), None, r"`condition` expects shape \(1, 5\), .* got \(2, 5\)"),
        (CONDITION[0], None, r"`condition` expects .* got \(5,\)"),
        (CONDITION, torch.ones(1, 5, dtype=torch.bool), r"`keep` expects booleans of shape \(1, 3\), .* \(1, 5\)"),
        (CONDITION, torch.ones(1, 3), r"`keep` expects booleans of shape \(1, 3\), .* got torch.float32"),
    ],
)
def test_bad_inputs_are_refused(model, sample, condition, keep, message):
    with pytest.raises(ValueError, match=message):
        model(sample, 10, condition, keep)
