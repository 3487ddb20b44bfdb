# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the page reads of a checkpoint before its networks are loaded."""

import json
import subprocess
import sys

import pytest
import torch

from diffscm_diffusers.app.checkpoint import Checkpoint
from tests.pipelines.dummies import get_dummy_pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    get_dummy_pipe().save_pretrained(folder)
    return folder


def test_settings_are_those_of_the_pipeline_which_is_loaded_once(folder):
    checkpoint = Checkpoint(str(folder))
    kind, shape, labels = checkpoint.kind, checkpoint.image_shape, checkpoint.class_labels
    assert not checkpoint.has("encoder") and checkpoint.has("unet")
    pipe = checkpoint.pipe
    assert pipe is checkpoint.pipe
    assert (kind, shape) == (type(pipe).__name__, pipe.image_shape)
    assert labels == list(pipe.classifier.id2label.values())
    assert checkpoint.index["default_num_inference_steps"] == pipe.config.default_num_inference_steps
    torch.testing.assert_close(pipe.unet.state_dict(), get_dummy_pipe().unet.state_dict())


def test_what_the_page_is_made_from_needs_no_diffusers():
    """Importing it takes longer than all else: the page answers before."""
    code = (
        "import sys, diffscm_diffusers.causal_graphs, diffscm_diffusers.worlds, diffscm_diffusers.app.checkpoint; "
        "sys.exit('diffusers' in sys.modules or 'datasets' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "index, text",
    [
        (None, "expects a pipeline with a `model_index.json`"),
        ("{", "expects a pipeline with a `model_index.json`"),
        ({"_class_name": "DDIMPipeline"}, "got 'DDIMPipeline'"),
        ({"_class_name": ["pipeline", "os.system"]}, "got 'os.system'"),
        ({}, "got 'None'"),
    ],
)
def test_what_is_no_checkpoint_of_this_package_is_refused(index, text, tmp_path):
    if index is not None:
        (tmp_path / "model_index.json").write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(ValueError, match="`checkpoint` expects") as error:
        Checkpoint(str(tmp_path))
    assert text in str(error.value)


def test_what_is_neither_a_folder_nor_a_name_is_refused(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("no/such/folder", "user/no-such-checkpoint"):
        with pytest.raises(ValueError, match="expects a folder or a name on the Hub, got"):
            Checkpoint(name)
