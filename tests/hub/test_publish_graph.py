# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A checkpoint of a causal graph: published, and loaded by its name in another process."""

import json

import pytest

from .conftest import ROOT


pytestmark = pytest.mark.xdist_group("hub")

CHECKPOINT = ROOT / "checkpoints" / "diffscm-morphomnist-graph"

PREDICT = """
import numpy as np
from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline

def predict(name):
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(name)
    pipe.set_progress_bar_config(disable=True)
    factual = np.zeros((28, 28, 1), np.float32)
    factual[6:22, 12:16] = 0.8
    attributes = {"thickness": 2.5, "intensity": 200.0, "digit": "1"}
    output = pipe(factual, attributes, {"thickness": 3.0}, num_inference_steps=2, output_type="np")
    return [*output.images.ravel().tolist(), output.counterfactual_attributes["intensity"].item()]
"""


@pytest.fixture(scope="module")
def published(hub, run):
    return run(
        f"""{PREDICT}
from diffscm_diffusers.commands import publish
publish.main(["--pretrained_model_name_or_path", {str(CHECKPOINT)!r}, "--hub_model_id", "ada/thickness"])
results["images"] = predict({str(CHECKPOINT)!r})
""",
        token="hf_ada",
    )


def test_repository_holds_the_graph_and_the_code(hub, published):
    files = hub.files("ada/thickness")
    index = json.loads(files["model_index.json"])
    assert index["_class_name"] == ["pipeline", "DiffSCMGraphCounterfactualPipeline"]
    assert index["unet"] == ["causal_unet_2d", "CausalUNet2DModel"]
    # Its mechanisms are read with the package's graph: it has no file that stands alone.
    assert (
        index["scm"] == ["diffscm_diffusers", "StructuralCausalModel"]
        and "scm/structural_causal_model.py" not in files
    )
    assert index["predictor"] == [None, None]
    for path, source in (
        ("pipeline.py", ROOT / "pipelines" / "pipeline_diffscm_graph.py"),
        ("unet/causal_unet_2d.py", ROOT / "diffscm_diffusers" / "models" / "causal_unet_2d.py"),
        ("scm/diffusion_pytorch_model.safetensors", CHECKPOINT / "scm" / "diffusion_pytorch_model.safetensors"),
    ):
        assert files[path] == source.read_bytes()
    card = files["README.md"].decode()
    assert "ada/thickness" in card and "thickness --> intensity" in card


def test_it_is_loaded_by_its_name(run, published):
    loaded = run(f'{PREDICT}\nresults["images"] = predict("ada/thickness")')
    assert loaded["images"] == published["images"]


def test_without_the_package_it_says_what_is_missing(run, published):
    result = run(
        """
from diffusers import DiffusionPipeline
results["error"] = error(lambda: DiffusionPipeline.from_pretrained("ada/thickness", trust_remote_code=True))
""",
        package=False,
    )
    assert result["error"][0] == "ValueError" and "scm/diffscm_diffusers.py" in result["error"][1]
