# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from unittest import mock

import pytest

from diffscm_diffusers import DiffSCMCounterfactualPipeline, DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.baselines import SchutPipeline
from diffscm_diffusers.evaluation.pipelines import complete_settings, load_baseline, load_pipeline
from tests.pipelines.test_semantic import get_semantic_pipe


@pytest.fixture
def pipe(checkpoint):
    """With 2 steps, the timesteps 10 and 0, and the scale 1.5."""
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.register_to_config(presets={"fast": {"num_inference_steps": 5, "abduction": "source"}})
    return pipe


def test_other_moves_keep_the_checkpoints_settings(pipe, tmp_path):
    pipe.inverse_scheduler.register_to_config(evaluate_at="source")
    pipe.save_pretrained(tmp_path)
    for scheduler, class_name in (("belm", "DiffSCMBELMScheduler"), ("quadratic", "DiffSCMDDIMScheduler")):
        loaded = load_pipeline(tmp_path, scheduler)
        assert type(loaded.scheduler).__name__ == class_name and len(loaded.scheduler) == 20
        for name in ("default_guidance_scale", "default_num_inference_steps", "presets"):
            assert loaded.config[name] == pipe.config[name]
    assert loaded.scheduler.config.timestep_spacing == "quadratic"
    assert loaded.inverse_scheduler.config.timestep_spacing == "quadratic"
    assert loaded.inverse_scheduler.config.evaluate_at == "source"


@pytest.mark.parametrize("scheduler, dequantize", [("checkpoint", True), ("quadratic", True), ("belm", False)])
def test_other_moves_start_as_the_checkpoints_where_they_can(scheduler, dequantize, tmp_path):
    pipe = get_semantic_pipe()
    pipe.register_to_config(dequantize=True, default_abduction="implicit", default_tolerance=0.01)
    pipe.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, scheduler, pipeline_classes=(DiffSCMSemanticCounterfactualPipeline,))
    assert loaded.config.dequantize == dequantize
    # O-BELM has one way up only.
    assert loaded.config.default_abduction == ("implicit" if dequantize else None)


def test_given_settings_go_before_the_presets_and_these_before_the_defaults(pipe):
    defaults = {"num_inference_steps": 2, "guidance_scale": 1.5}
    assert complete_settings(pipe) == defaults
    fast = {**defaults, "num_inference_steps": 5, "abduction": "source"}
    assert complete_settings(pipe, "fast") == fast
    given = {"num_inference_steps": 4, "guidance_scale": 0, "guidance_interval": [5, 19]}
    assert complete_settings(pipe, "fast", **given) == {**fast, **given}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "slow"}, r"`--preset` expects .*\['fast'\], got 'slow'"),
        ({"num_inference_steps": 21}, "21"),
        ({"abduction": "backwards"}, "`abduction` expects"),
        ({"guidance_interval": [3, 2]}, "`guidance_interval` expects"),
        ({"strength": 1.5}, "`strength` expects"),
        ({"guidance_interval": [11, 19]}, "expects some of the prediction's timesteps"),
    ],
)
def test_settings_that_do_not_fit_are_refused(pipe, settings, message):
    with pytest.raises(ValueError, match=message):
        complete_settings(pipe, **settings)


def test_a_checkpoint_of_another_pipeline_is_refused(tmp_path):
    get_semantic_pipe().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError,
        match="`--pretrained_model_name_or_path` expects a DiffSCMCounterfactualPipeline, got .* a "
        "DiffSCMSemanticCounterfactualPipeline",
    ):
        load_pipeline(tmp_path, "checkpoint")


def test_a_baseline_needs_its_folder():
    with pytest.raises(ValueError, match="`--baselines` is needed for the method 'schut'"):
        load_baseline(SchutPipeline, None, "schut", ["a", "b"], mock.Mock(device="cpu"))
