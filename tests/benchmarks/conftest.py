# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import importlib.util
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from diffusers.utils import pt_to_pil

from diffscm_diffusers.worlds import TypefaceWorld

from ..pipelines.dummies import get_dummy_pipe


@pytest.fixture(scope="session")
def load_benchmark():
    folder = Path(__file__).resolve().parents[2] / "benchmarks"

    def load(name: str):
        path = folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        benchmark = importlib.util.module_from_spec(spec)
        with mock.patch.object(sys, "path", [str(folder), *sys.path]):  # as of a script that is run
            spec.loader.exec_module(benchmark)
        return benchmark

    return load


@pytest.fixture(scope="session")
def labelled_digits(tmp_path_factory):
    """The folder of a data set of six printed digits, its split `test`."""
    folder = tmp_path_factory.mktemp("digits")
    digits = TypefaceWorld().sample(6, torch.Generator().manual_seed(0))
    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    rows = {"image": pt_to_pil(2 * digits.images - 1), "label": digits.variables["digit"].tolist()}
    Dataset.from_dict(rows, features).to_parquet(folder / "test.parquet")
    return str(folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    pipe = get_dummy_pipe()
    presets = {"fast": {"num_inference_steps": 2}, "paper": {"num_inference_steps": 1000}}
    pipe.register_to_config(default_num_inference_steps=4, default_guidance_scale=30.0, presets=presets)
    pipe.save_pretrained(folder)
    return folder
