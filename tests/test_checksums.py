# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Damage that a file's format does not show is found where weights are loaded."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline, checksums
from diffscm_diffusers.files import load_whole, save_whole

from .pipelines.dummies import get_dummy_components


ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "diffusion_pytorch_model.safetensors"
load = DiffSCMCounterfactualPipeline.from_pretrained


def flip(path):
    """Inverts one bit of a weight."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.fixture
def pipe():
    return DiffSCMCounterfactualPipeline(**get_dummy_components())


@pytest.fixture
def checkpoint(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_checksums_are_those_of_the_weights(checkpoint):
    content = (checkpoint / "unet" / WEIGHTS).read_bytes()
    entries = json.loads((checkpoint / "checksums.json").read_text())
    assert list(entries) == [f"classifier/{WEIGHTS}", f"unet/{WEIGHTS}"]
    assert entries[f"unet/{WEIGHTS}"] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("name", ["unet", "classifier"])
def test_flipped_bit_is_found_and_named(checkpoint, name):
    flip(checkpoint / name / WEIGHTS)
    message = rf"{name}/{WEIGHTS}' has other bytes than were written: .*remove '.*checkpoint/checksums.json'"
    with pytest.raises(ValueError, match=message):
        load(checkpoint)


class TestAdvice:
    """What the message says helps."""

    def test_the_pipeline_is_saved_again(self, checkpoint, pipe):
        flip(checkpoint / "unet" / WEIGHTS)
        pipe.save_pretrained(checkpoint)
        load(checkpoint)

    def test_the_checksums_of_what_was_replaced_are_removed(self, checkpoint, pipe):
        UNet2DModel.from_config(pipe.unet.config).save_pretrained(checkpoint / "unet")
        with pytest.raises(ValueError, match="if you replaced it on purpose, remove"):
            load(checkpoint)
        (checkpoint / "checksums.json").unlink()
        load(checkpoint)


def test_components_of_the_call_are_not_compared(checkpoint, pipe):
    flip(checkpoint / "unet" / WEIGHTS)
    assert load(checkpoint, unet=pipe.unet).unet is pipe.unet


def test_checksums_that_are_damaged_are_named(checkpoint):
    (checkpoint / "checksums.json").write_text("{")
    with pytest.raises(ValueError, match="checksums.json' is no JSON of checksums"):
        load(checkpoint)


def test_each_variant_has_its_own(checkpoint, pipe):
    pipe.save_pretrained(checkpoint, variant="fp16")
    assert len(json.loads((checkpoint / "checksums.json").read_text())) == 4
    (checkpoint / "unet" / WEIGHTS).unlink()
    (checkpoint / "classifier" / WEIGHTS).unlink()
    load(checkpoint, variant="fp16")
    flip(checkpoint / "unet" / WEIGHTS.replace(".", ".fp16.", 1))
    with pytest.raises(ValueError, match="unet/diffusion_pytorch_model.fp16.safetensors' has other bytes"):
        load(checkpoint, variant="fp16")


class TestShards:
    @pytest.fixture
    def sharded(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
        return tmp_path / "sharded"

    def test_absent_shard_is_named(self, sharded):
        shard = sorted((sharded / "unet").glob("*.safetensors"))[1]
        shard.unlink()
        with pytest.raises(OSError, match=shard.name):
            load(sharded)

    def test_flipped_bit_is_found_and_named(self, sharded):
        load(sharded)
        shard = sorted((sharded / "unet").glob("*.safetensors"))[1]
        flip(shard)
        with pytest.raises(ValueError, match=f"unet/{shard.name}' has other bytes"):
            load(sharded)


class TestNetworks:
    """A network alone, as the training scripts save and the commands load it."""

    def test_flipped_bit_is_found_and_named(self, pipe, tmp_path):
        save_whole(pipe.classifier, tmp_path)
        load_whole(AntiCausalClassifier2DModel, tmp_path)
        flip(tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=f"{WEIGHTS}' has other bytes"):
            load_whole(AntiCausalClassifier2DModel, tmp_path)

    def test_in_the_folder_of_its_pipeline(self, checkpoint):
        load_whole(AntiCausalClassifier2DModel, checkpoint, subfolder="classifier")
        load_whole(AntiCausalClassifier2DModel, checkpoint / "classifier")
        flip(checkpoint / "classifier" / WEIGHTS)
        for folder, subfolder in ((checkpoint, "classifier"), (checkpoint / "classifier", None)):
            with pytest.raises(ValueError, match=f"classifier/{WEIGHTS}' has other bytes"):
                load_whole(AntiCausalClassifier2DModel, folder, subfolder=subfolder)

    def test_saved_again_as_part_of_a_pipeline(self, pipe, tmp_path):
        save_whole(UNet2DModel.from_config(pipe.unet.config), tmp_path / "unet")
        save_whole(pipe, tmp_path)
        load(tmp_path)

    def test_without_checksums(self, checkpoint):
        (checkpoint / "checksums.json").unlink()
        flip(checkpoint / "classifier" / WEIGHTS)
        load_whole(AntiCausalClassifier2DModel, checkpoint, subfolder="classifier")


def test_other_files_of_the_folder_are_not_read(pipe, tmp_path, monkeypatch):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "model.safetensors").touch()
    read = []
    monkeypatch.setattr(checksums, "hash_file", lambda path: read.append(path.parent.name) or "")
    pipe.save_pretrained(tmp_path)
    assert sorted(read) == ["classifier", "unet"]


def test_diffusers_loads_the_folder_and_a_copy_of_it(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    load(tmp_path / "copy")
    pipeline_file = "pipelines/pipeline_diffscm_counterfactual.py"
    DiffusionPipeline.from_pretrained(checkpoint, custom_pipeline=pipeline_file, trust_remote_code=True)


@pytest.mark.parametrize("folder", sorted((ROOT / "checkpoints").iterdir()), ids=lambda folder: folder.name)
def test_shipped_weights_have_checksums_that_fit(folder):
    """After weights were replaced, `write_checksums` writes the file anew; `save_pretrained` does it by itself."""
    weights = {path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")}
    entries = checksums.read_checksums(folder)
    assert entries.keys() == weights
    assert checksums.find_change(folder, entries) is None
