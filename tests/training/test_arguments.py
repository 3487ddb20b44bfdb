# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import re

import pytest
from accelerate.utils import LoggerType
from diffusers.optimization import SchedulerType

from diffscm_diffusers.training.arguments import LR_SCHEDULERS, TRACKERS, TrainingArguments
from tests.helpers import load_script, to_argv


@pytest.mark.parametrize("script", ["train_diffusion", "train_classifier"])
def test_every_setting_of_the_trainer_is_a_flag(script):
    parse_args = load_script(script).parse_args
    flags = vars(parse_args(["--output_dir", "somewhere"]))
    assert TrainingArguments.from_flags(flags) == TrainingArguments(output_dir="somewhere")
    flags = vars(parse_args(to_argv({"output_dir": "somewhere", "adam_beta1": 0.5, "use_ema": True})))
    assert TrainingArguments.from_flags(flags) == TrainingArguments(
        output_dir="somewhere", adam_beta1=0.5, use_ema=True
    )


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("train_batch_size", "0", "at least 1"),
        ("dataloader_num_workers", "-1", "at least 0"),
        ("learning_rate", "nan", "greater than 0"),
        ("adam_beta2", "1", r"\[0, 1\)"),
        ("ema_max_decay", "1.5", r"\[0, 1\)"),
        ("adam_weight_decay", "-0.1", "at least 0"),
        ("beta_schedule", "quadratic", "invalid choice"),
        ("mixed_precision", "int8", "invalid choice"),
    ],
)
def test_flag_out_of_range_is_refused(capsys, flag, value, message):
    with pytest.raises(SystemExit):
        load_script("train_diffusion").parse_args(["--output_dir", "somewhere", f"--{flag}={value}"])
    error = capsys.readouterr().err
    assert f"argument --{flag}" in error
    assert re.search(message, error)


def test_names_that_other_libraries_have_too():
    schedulers = {schedule.value for schedule in SchedulerType} - {"piecewise_constant"}
    assert set(LR_SCHEDULERS) == schedulers
    assert set(TRACKERS) == {tracker.value for tracker in LoggerType} - {"all"}
