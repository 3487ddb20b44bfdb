# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What `diffscm publish` puts on the Hub, and what it refuses. One process publishes; the tests look at its work."""

import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load

from .conftest import ROOT


pytestmark = pytest.mark.xdist_group("hub")


@pytest.fixture(scope="module")
def results(hub, run, checkpoint, tmp_path_factory):
    copies = tmp_path_factory.mktemp("copies")
    for name in ("torn", "pickled"):
        shutil.copytree(checkpoint, copies / name)
    weights = copies / "torn" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (copies / "pickled" / "unet" / "weights.bin").write_bytes(b"")
    temporary = tmp_path_factory.mktemp("temporary")
    return run(
        f"""
        import os
        from unittest import mock
        import huggingface_hub.constants
        from diffscm_diffusers.commands import publish

        def call(folder, name, *flags):
            publish.main(["--pretrained_model_name_or_path", str(folder), "--hub_model_id", name, *flags])

        checkpoint = {str(checkpoint)!r}
        call(checkpoint, "published", "--variant", "fp16", "--commit_message", "First digits")
        call(checkpoint, "ada/secret", "--hub_private_repo")
        call({str(ROOT / "checkpoints" / "diffscm-typeface")!r}, "ada/typeface")
        call(checkpoint, "ada/branched", "--revision", "v2")
        results["public"] = error(lambda: call(checkpoint, "ada/published", "--hub_private_repo"))
        results["not_mine"] = error(lambda: call(checkpoint, "bob/stolen"))
        results["torn"] = error(lambda: call({str(copies / "torn")!r}, "ada/torn"))
        results["pickled"] = error(lambda: call({str(copies / "pickled")!r}, "ada/pickled"))
        results["no_checkpoint"] = error(lambda: call({str(copies)!r}, "ada/empty"))
        os.environ["HF_TOKEN"] = "hf_wrong"
        results["wrong_token"] = error(lambda: call(checkpoint, "ada/other"))
        os.environ["HF_TOKEN"] = "hf_ada"
        full = OSError(28, "No space left on device")
        with mock.patch("diffusers.ModelMixin.save_pretrained", side_effect=full):
            results["full_disk"] = error(lambda: call(checkpoint, "ada/full", "--variant", "fp16"))
        with mock.patch("diffscm_diffusers.hub.publishing.HfApi", lambda: huggingface_hub.HfApi(endpoint="http://127.0.0.1:9")):
            results["no_network"] = error(lambda: call(checkpoint, "ada/unreachable"))
        with mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True):
            results["offline"] = error(lambda: call(checkpoint, "ada/offline"))
        """,
        token="hf_ada",
        TMPDIR=str(temporary),
    ) | {"left": [path.name for path in temporary.iterdir()]}


def test_repository_holds_the_checkpoint_and_the_projects_own_code(hub, results, checkpoint):
    files = hub.files("ada/published")
    for name in ("unet", "classifier"):
        for path in (f"{name}/diffusion_pytorch_model.safetensors", f"{name}/config.json"):
            assert files[path] == (checkpoint / path).read_bytes()
    assert not any(str(checkpoint).encode() in content for content in files.values())
    code = {
        "pipeline.py": "pipelines/pipeline_diffscm_counterfactual.py",
        "classifier/anticausal_classifier_2d.py": "diffscm_diffusers/models/anticausal_classifier_2d.py",
        "scheduler/scheduling_ddim.py": "diffscm_diffusers/schedulers/scheduling_ddim.py",
        "inverse_scheduler/scheduling_ddim_inverse.py": "diffscm_diffusers/schedulers/scheduling_ddim_inverse.py",
    }
    assert {path for path in files if path.endswith(".py")} == set(code)
    for copy, original in code.items():
        assert files[copy] == (ROOT / original).read_bytes()


def test_a_checkpoint_of_the_other_pipeline_is_published_with_its_code(hub, results):
    files = hub.files("ada/typeface")
    assert files["pipeline.py"] == (ROOT / "pipelines" / "pipeline_diffscm_semantic.py").read_bytes()
    assert "encoder/semantic_encoder_2d.py" in files
    index = json.loads(files["model_index.json"])
    assert index["_class_name"] == ["pipeline", "DiffSCMSemanticCounterfactualPipeline"]
    assert index["encoder"] == ["semantic_encoder_2d", "SemanticEncoder2DModel"]


def test_index_names_the_code_for_those_without_the_package(hub, results):
    index = json.loads(hub.files("ada/published")["model_index.json"])
    assert index["_class_name"] == ["pipeline", "DiffSCMCounterfactualPipeline"]
    assert index["classifier"] == ["anticausal_classifier_2d", "AntiCausalClassifier2DModel"]
    assert index["inverse_scheduler"] == ["scheduling_ddim_inverse", "DiffSCMDDIMInverseScheduler"]
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    assert index["default_num_inference_steps"] == 3
    assert not any(name.startswith("_name") for name in index)


def test_variant_is_added_in_half_precision(hub, results):
    files = hub.files("ada/published")
    for name in ("unet", "classifier"):
        full = load(files[f"{name}/diffusion_pytorch_model.safetensors"])
        half = load(files[f"{name}/diffusion_pytorch_model.fp16.safetensors"])
        assert {key: value.half().tolist() for key, value in full.items()} == {k: v.tolist() for k, v in half.items()}
        assert {str(value.dtype) for value in half.values()} == {"torch.float16"}
    assert not any("fp16" in path for path in hub.files("ada/secret"))


def test_card_loads_the_checkpoint_from_its_repository(hub, results):
    card = ModelCard(hub.files("ada/published")["README.md"].decode())
    assert re.findall(r'from_pretrained\("([^"]*)"', card.text) == ["ada/published"] * 2


def test_one_commit_of_the_given_message_holds_everything(hub, results):
    assert hub.repositories["ada/published"].messages == ["initial commit", "First digits"]


def test_branch_and_visibility_are_as_asked_for(hub, results):
    assert not hub.repositories["ada/published"].private
    assert hub.repositories["ada/secret"].private
    assert set(hub.files("ada/branched", "main")) == {".gitattributes"}
    assert "unet/config.json" in hub.files("ada/branched", "v2")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("public", "ValueError", "`private` expects a new or private repository, but 'ada/published' is public"),
        ("not_mine", "PermissionError", "'bob/stolen' cannot be published: your token may not write there"),
        ("wrong_token", "PermissionError", "Log in with `hf auth login`"),
        ("no_network", "ConnectionError", "the Hub cannot be reached .* Check the network"),
        ("offline", "ConnectionError", "unset `HF_HUB_OFFLINE`"),
        ("full_disk", "OSError", "No space left on device"),
        ("torn", "ValueError", "has a missing or torn file .*unet/diffusion_pytorch_model.safetensors.*restore it"),
        ("pickled", "ValueError", "holds pickles, .*: unet/weights.bin. Remove them"),
        (
            "no_checkpoint",
            "ValueError",
            "has no `model_index.json`. `diffscm join-checkpoint` writes such folders",
        ),
    ],
)
def test_error_says_what_to_do(results, name, kind, message):
    assert results[name][0] == kind
    assert re.search(message, results[name][1])


def test_errors_leave_nothing_behind(hub, results):
    assert set(hub.repositories) == {"ada/published", "ada/secret", "ada/typeface", "ada/branched"}
    assert results["left"] == []
