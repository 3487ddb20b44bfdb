# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from tests.evaluation.conftest import CLASSES, cache_dir, image_folder, on_cpu  # noqa: F401
from tests.evaluation.conftest import checkpoint as unnamed_checkpoint  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As runs in other processes have: with one order of all sums, files can be compared by their bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(unnamed_checkpoint, tmp_path_factory):  # noqa: F811
    """An untrained `DiffSCMCounterfactualPipeline` that knows the names of its classes."""
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(unnamed_checkpoint)
    pipe.classifier.register_to_config(id2label=dict(enumerate(CLASSES)))
    folder = tmp_path_factory.mktemp("named_checkpoint")
    pipe.save_pretrained(folder)
    return folder
