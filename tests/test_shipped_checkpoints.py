# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What holds of every shipped checkpoint."""

import json
from pathlib import Path

import pytest
import torch

import diffscm_diffusers


CHECKPOINTS = sorted(path.parent for path in (Path(__file__).parents[1] / "checkpoints").glob("*/model_index.json"))


@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_is_small_and_computes_in_float32(folder):
    weights = list(folder.rglob("*.safetensors"))
    assert all(path.stat().st_size < 8e6 for path in weights)
    assert sum(path.stat().st_size for path in weights) < 12e6
    class_name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipe = getattr(diffscm_diffusers, class_name).from_pretrained(folder)
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert len(networks) == len(weights)
    assert {network.dtype for network in networks} == {torch.float32}
