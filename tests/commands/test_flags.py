# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The parsers of all commands and training scripts."""

import argparse
import importlib.util
import re
from pathlib import Path

import pytest

from diffscm_diffusers import flags


DOCS = Path(__file__).resolve().parents[2] / "docs"

# Words for something that has another name here, most of them from other libraries.
OTHER_WORDS = {
    "checkpoint": "pretrained_model_name_or_path",
    "checkpoint_dir": "pretrained_model_name_or_path",
    "model": "pretrained_model_name_or_path",
    "model_name_or_path": "pretrained_model_name_or_path",
    "dataset": "dataset_name",
    "data_dir": "train_data_dir",
    "image_dir": "train_data_dir",
    "config": "dataset_config_name",
    "out": "output_dir",
    "output": "output_dir",
    "output_path": "output_dir",
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "epochs": "max_train_steps",
    "iterations": "max_train_steps",
    "num_train_steps": "max_train_steps",
    "lr": "learning_rate",
    "scale": "guidance_scale",
    "scales": "guidance_scales",
    "cfg_scale": "guidance_scale",
    "inversion": "abduction",
    "target": "interventions",
    "targets": "interventions",
    "target_class": "interventions",
    "num_samples": "max_samples",
    "limit": "max_samples",
    "bs": "batch_size",
    "batch": "batch_size",
    "eval_batch_size": "batch_size",
    "random_seed": "seed",
    "precision": "mixed_precision",
    "fp16": "mixed_precision",
    "torch_dtype": "dtype",
    "weight_dtype": "dtype",
    "compile": "torch_compile",
    "num_workers": "dataloader_num_workers",
    "resume": "resume_from_checkpoint",
    "ema": "use_ema",
    "logger": "report_to",
    "hub_id": "hub_model_id",
    "repo_id": "hub_model_id",
    "private": "hub_private_repo",
    "licence": "license",
}


@pytest.fixture(scope="module")
def list_flags():
    """The script that lists them on a page of the documentation."""
    spec = importlib.util.spec_from_file_location("list_flags", DOCS / "list_flags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parsers(list_flags):
    return list_flags.load_parsers()


def test_every_module_has_one_parser(parsers):
    assert {"evaluate", "generate", "publish", "train_diffusion.py", "train_baselines.py"} <= parsers.keys()
    for name, parser in parsers.items():
        assert isinstance(parser, argparse.ArgumentParser)
        if not name.startswith("train_"):
            assert parser.prog == f"diffscm {name}"


def test_a_flag_has_one_type_everywhere(parsers, list_flags):
    found = {}
    for name, parser in parsers.items():
        for flag, action in list_flags.list_flags(parser).items():
            kind = type(action), action.type, action.nargs, action.metavar, action.dest
            found.setdefault(flag, {}).setdefault(kind, []).append(name)
    assert {flag: kinds for flag, kinds in found.items() if len(kinds) > 1} == {}


def test_choices_of_a_flag_are_of_one_set(parsers, list_flags):
    largest = {}
    for parser in parsers.values():
        for flag, action in list_flags.list_flags(parser).items():
            if action.choices is not None:
                choices = set(action.choices)
                largest.setdefault(flag, choices)
                assert choices <= largest[flag] or choices >= largest[flag], flag
                largest[flag] |= choices


def test_one_thing_has_one_word(parsers, list_flags):
    for name, parser in parsers.items():
        for flag, action in list_flags.list_flags(parser).items():
            assert action.option_strings == [flag], f"{name}: {action.option_strings}"
            assert re.fullmatch("--[a-z0-9]+(_[a-z0-9]+)*", flag), f"{name}: {flag}"
            word = OTHER_WORDS.get(flag[2:])
            assert word is None, f"{name}: {flag} is called --{word} elsewhere"


def test_the_page_lists_all_flags(list_flags):
    assert list_flags.PAGE.read_text(encoding="utf-8") == list_flags.make_page(), "run `python docs/list_flags.py`"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("positive_int", "3", 3),
        ("non_negative_int", "0", 0),
        ("positive_float", "1e-4", 1e-4),
        ("non_negative_float", "0", 0.0),
        ("fraction", "1", 1.0),
        ("rate", "0.999", 0.999),
    ],
)
def test_numbers_are_read(name, text, value):
    number = getattr(flags, name)(text)
    assert number == value and type(number) is type(value)


@pytest.mark.parametrize(
    ("name", "texts", "message"),
    [
        ("positive_int", ["0", "-1", "1.5", "all", ""], "expects a whole number of at least 1"),
        ("non_negative_int", ["-1", "0.5", "all"], "expects a whole number of at least 0"),
        ("positive_float", ["0", "-1", "nan", "inf", "1,5"], "expects a finite number greater than 0"),
        ("non_negative_float", ["-0.1", "nan", "inf"], "expects a finite number of at least 0"),
        ("fraction", ["-0.1", "1.1", "nan"], r"expects a number in \[0, 1\]"),
        ("rate", ["-0.1", "1", "nan"], r"expects a number in \[0, 1\)"),
    ],
)
def test_numbers_out_of_their_range_are_refused(name, texts, message):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=f"{message}, got {text!r}"):
            getattr(flags, name)(text)
