# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What can be known at the start is refused at the start: no image has been read when these errors are raised."""

import json
import os

import pytest

from diffscm_diffusers import refusals
from diffscm_diffusers.training.arguments import TrainingArguments
from tests.helpers import load_script, to_argv


@pytest.fixture
def refuse(flags, monkeypatch):
    """Runs a script that has to refuse its flags before it reads data."""

    def run(message, script="train_diffusion", **changes):
        module = load_script(script)
        monkeypatch.setattr(module, "load_flagged_dataset", lambda *args, **kwargs: pytest.fail("read data"))
        known = vars(module.parse_args(["--output_dir", "somewhere"]))
        argv = to_argv({name: value for name, value in {**flags, **changes}.items() if name in known})
        with pytest.raises(ValueError, match=message):
            module.main(argv)

    return run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_warmup_steps": 3}, "`lr_warmup_steps` expects at most `max_train_steps`, 2, got 3"),
        ({"validation_inference_steps": 1001}, "`validation_inference_steps` expects at most .* 1000, got 1001"),
        ({"report_to": "tensorbord"}, r"`report_to` expects .* \['tensorboard'.*got 'tensorbord'"),
        ({"report_to": "wandb"}, "`report_to` expects 'none', 'all' or a tracker that is installed.* got 'wandb'"),
        ({"hub_model_id": "me/mine"}, "`hub_model_id` expects `--push_to_hub` beside it, got 'me/mine' alone"),
        ({"hub_model_id": "a/b/c", "push_to_hub": True}, "`hub_model_id` expects the name of a repository, .*'a/b/c'"),
        ({"subfolder": "unet"}, "`subfolder` expects `--pretrained_model_name_or_path` beside it, got 'unet'"),
        ({"shuffle_buffer_size": 5}, "`shuffle_buffer_size` expects `--streaming` beside it"),
        ({"logging_dir": "../logs"}, "`logging_dir` expects a folder inside `output_dir`, got '../logs'"),
        ({"resume_from_checkpoint": "nowhere"}, "`resume_from_checkpoint` expects `latest` .*'nowhere', which has no"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_flag(refuse, changes, message):
    refuse(message, **changes)


def test_more_noise_levels_than_steps(refuse):
    refuse(
        "`num_noise_levels` expects at most `num_train_timesteps`, 4, got 5",
        "train_classifier",
        **{"num_train_timesteps": 4, "num_noise_levels": 5},
    )


def test_output_that_is_a_file(refuse, tmp_path):
    (tmp_path / "file").touch()
    refuse("`output_dir` expects a folder to write to", output_dir=tmp_path / "file" / "output")


def test_output_that_cannot_be_written(refuse, tmp_path, monkeypatch):
    # Nothing stops the superuser, who may run this test, from writing.
    monkeypatch.setattr(refusals.os, "access", lambda path, mode: False)
    refuse(f"`output_dir` expects a folder to write to, .* cannot write {tmp_path}", output_dir=tmp_path / "output")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AntiCausalClassifier2DModel"}, "a UNet2DModel, got .* of a AntiCausalClassifier2DModel"),
        ({"blok_out_channels": [8]}, r"with \['blok_out_channels'\], which it does not have"),
        ({"sample_size": None}, "`resolution` expects the images' height and width"),
        ({"sample_size": 9}, "`resolution` expects a multiple of 2, as UNet2DModel halves its images 1 times, got 9"),
    ],
    ids=["class", "unknown", "none", "halving"],
)
@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "run"])
def test_configuration(flags, tmp_path, change, message, dry_run):
    config = json.loads(flags["model_config_name_or_path"].read_text())
    flags |= {"model_config_name_or_path": tmp_path / "unet.json", "output_dir": tmp_path / "output"}
    flags["model_config_name_or_path"].write_text(json.dumps({**config, **change}))
    argv = to_argv(flags) + ["--dry_run"] * dry_run
    with pytest.raises(ValueError, match=message):
        load_script("train_diffusion").main(argv)
    assert not (tmp_path / "output").exists()


def test_configuration_that_is_no_json(flags, tmp_path):
    flags["model_config_name_or_path"] = tmp_path / "unet.json"
    flags["model_config_name_or_path"].write_text("{")
    with pytest.raises(ValueError, match="`model_config_name_or_path` expects the JSON file of a UNet2DModel, got"):
        load_script("train_diffusion").main(to_argv(flags))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_batch_size": 0}, "`train_batch_size` expects a whole number of at least 1, got 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` expects a finite number greater than 0, got nan"),
        ({"adam_beta2": 1.0}, r"`adam_beta2` expects a number in \[0, 1\), got 1.0"),
        ({"lr_scheduler": "piecewise_constant"}, r"`lr_scheduler` expects one of \['linear', .*'piecewise_constant'"),
        ({"mixed_precision": "int8"}, "`mixed_precision` expects 'no', 'fp16' or 'bf16', got 'int8'"),
        ({"seed": True}, "`seed` expects a whole number of at least 0, got True"),
    ],
)
def test_setting_of_a_trainer(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingArguments(output_dir=os.curdir, **change)
