# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffscm_diffusers.baselines import ConditionalVAE2DModel, HierarchicalVAE2DModel
from tests.helpers import load_script, to_argv


MODELS = [ConditionalVAE2DModel, HierarchicalVAE2DModel]


@pytest.fixture
def vae_flags(graph_flags, tmp_path):
    def get_flags(model_class):
        config = {"_class_name": model_class.__name__, "sample_size": 8, "condition_dim": 1}
        config |= {"block_out_channels": [4, 4], "condition_features": 4}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return {
            **graph_flags,
            "model_config_name_or_path": tmp_path / "config.json",
            "train_batch_size": 6,
            "max_train_steps": 2,
            "lr_warmup_steps": 1,
            "validation_grid_size": 3,
            "logging_steps": 1,
            "report_to": "none",
            "output_dir": tmp_path / "vae",
        }

    return get_flags


@pytest.mark.parametrize("model_class", MODELS)
def test_loss_is_the_bound_per_value(vae_flags, monkeypatch, model_class):
    calls, forward = [], model_class.forward

    def record_call(self, sample, condition, noise):
        calls.append(forward(self, sample, condition, noise))
        return calls[-1]

    monkeypatch.setattr(model_class, "forward", record_call)
    flags = vae_flags(model_class)
    argv = {**flags, "report_to": "tensorboard", "validation_steps": 2, "kl_weight": 3, "loss_warmup_steps": 4}
    load_script("train_vae").main(to_argv(argv))
    events = EventAccumulator(str(flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()
    for step, (log_likelihood, divergence) in enumerate(calls):
        loss = (3 * (step + 1) / 4 * divergence - log_likelihood).mean().item() / 64
        assert events.Scalars("loss")[step].value == pytest.approx(loss, rel=1e-4)
    assert len(calls) == 2

    vae = model_class.from_pretrained(flags["output_dir"])
    # The graph's parents: a level and two shades.
    assert vae.config.condition_dim == 3
    assert [name for name, _ in vae.config["_trained_with"]["causes"]] == ["level", "shade"]
    assert PIL.Image.open(flags["output_dir"] / "samples" / "0000002.png").size == (3 * 8, 3 * 8)
    assert "train_vae.py" in (flags["output_dir"] / "README.md").read_text()


def test_interrupted_run_ends_as_one_that_was_not(vae_flags, tmp_path):
    flags = vae_flags(HierarchicalVAE2DModel)
    script, weights = load_script("train_vae"), []
    for name, steps in (("whole", [{}]), ("parts", [{"max_train_steps": 1}, {"resume_from_checkpoint": "latest"}])):
        for changes in steps:
            schedule = {"lr_scheduler": "constant", "checkpointing_steps": 1, "output_dir": tmp_path / name}
            script.main(to_argv({**flags, **schedule, **changes}))
        weights.append(load_file(tmp_path / name / "checkpoint-2" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_another_network_is_refused(vae_flags, model_configs):
    flags = {**vae_flags(ConditionalVAE2DModel), "model_config_name_or_path": model_configs["unet"]}
    with pytest.raises(ValueError, match="expects the JSON file of a ConditionalVAE2DModel, .* of a UNet2DModel"):
        load_script("train_vae").main(to_argv(flags))
