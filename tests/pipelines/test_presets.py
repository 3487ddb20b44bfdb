# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Presets are data: arguments of a call, by name, that are saved with the checkpoint."""

import json

import pytest
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline

from .dummies import get_dummy_components, get_dummy_image


PRESETS = {"fast": {"num_inference_steps": 2, "guidance_scale": 30.0, "abduction": "source"}}
NAMES = "num_inference_steps, guidance_scale, guidance_interval, abduction"


@pytest.fixture
def pipe():
    pipe = DiffSCMCounterfactualPipeline(**get_dummy_components(), presets=PRESETS)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_are_arguments_of_a_call(pipe):
    by_name = pipe(get_dummy_image(), "one", **pipe.presets["fast"], output_type="pt")
    by_hand = pipe(
        get_dummy_image(), "one", num_inference_steps=2, guidance_scale=30.0, abduction="source", output_type="pt"
    )
    assert torch.equal(by_name.images, by_hand.images)


def test_are_saved_with_the_checkpoint(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert DiffSCMCounterfactualPipeline.from_pretrained(tmp_path).presets == PRESETS


def test_changing_one_that_was_read_changes_no_other_call(pipe):
    pipe.presets["fast"]["num_inference_steps"] = 1000
    pipe.presets["slow"] = {}
    assert pipe.presets == PRESETS


def test_none_are_needed():
    assert DiffSCMCounterfactualPipeline(**get_dummy_components()).presets == {}


@pytest.mark.parametrize("preset", ({"steps": 2}, {"num_inference_steps": 2, "eta": 1.0}, 2))
def test_of_unknown_arguments_are_refused(preset):
    with pytest.raises(ValueError, match=f"`presets` expects dictionaries with values of {NAMES}, got .*'fast'"):
        DiffSCMCounterfactualPipeline(**get_dummy_components(), presets={"fast": preset})


def test_of_unknown_arguments_are_refused_in_a_checkpoint(pipe, tmp_path):
    """Not only where it is used, which may be after hours."""
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["presets"]["fast"]["steps"] = index["presets"]["fast"].pop("num_inference_steps")
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"`presets` expects dictionaries with values of {NAMES}, got .*'fast'"):
        DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
