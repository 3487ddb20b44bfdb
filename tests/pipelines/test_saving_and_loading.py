# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from pathlib import Path
from unittest import mock

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
)

from diffscm_diffusers import (
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMInverseScheduler,
)
from tests.helpers import run_in_fresh_process

from .dummies import (
    get_dummy_components,
    get_dummy_image,
)


PIPELINE_FILE = Path(__file__).resolve().parents[2] / "pipelines" / "pipeline_diffscm_counterfactual.py"


def load_and_call(folder):
    loaded = {"class": DiffSCMCounterfactualPipeline.from_pretrained(folder / "checkpoint")}
    with mock.patch("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(folder / "modules")):
        loaded["custom"] = DiffusionPipeline.from_pretrained(
            folder / "checkpoint", custom_pipeline=str(PIPELINE_FILE), trust_remote_code=True
        )
    outputs = {}
    for name, pipe in loaded.items():
        assert isinstance(pipe, DiffSCMCounterfactualPipeline) == (name != "custom"), type(pipe)
        assert type(pipe).__name__ == "DiffSCMCounterfactualPipeline"
        output = pipe(torch.load(folder / "image.pt", weights_only=True), ["two", 1], output_type="pt")
        outputs[name] = [output.images, output.exogenous_noise, output.log_probs]
    torch.save(outputs, folder / "outputs.pt")


class TestSaving:
    def save(self, folder, **kwargs):
        pipe = DiffSCMCounterfactualPipeline(
            **get_dummy_components(), default_guidance_scale=30.0, default_num_inference_steps=5, **kwargs
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.save_pretrained(folder)
        return pipe

    def test_fresh_process(self, tmp_path):
        pipe, image = self.save(tmp_path / "checkpoint"), get_dummy_image()
        torch.save(image, tmp_path / "image.pt")
        run_in_fresh_process(load_and_call, tmp_path)
        expected = pipe(image, ["two", 1], output_type="pt", return_dict=False)
        for name, outputs in torch.load(tmp_path / "outputs.pt", weights_only=True).items():
            for output, reference in zip(outputs, expected, strict=True):
                assert torch.equal(output, reference), name

    def test_keeps_settings(self, tmp_path):
        scheduler = DDIMScheduler()
        inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(scheduler.config, evaluate_at="source")
        self.save(tmp_path, inverse_scheduler=inverse_scheduler)
        loaded = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
        assert loaded.config.default_guidance_scale == 30.0 and loaded.config.default_num_inference_steps == 5
        assert loaded.inverse_scheduler.config.evaluate_at == "source"
        assert loaded.classifier.id2label == {0: "zero", 1: "one", 2: "two"}
        assert not list(tmp_path.rglob("*.bin")) and len(list(tmp_path.rglob("*.safetensors"))) == 2

    def test_half_weights(self, tmp_path):
        self.save(tmp_path)
        loaded = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.unet.dtype == loaded.classifier.dtype == torch.bfloat16

    def test_missing_folder(self, tmp_path):
        with pytest.raises((OSError, ValueError), match="checkpoints/nowhere"):
            DiffSCMCounterfactualPipeline.from_pretrained(str(tmp_path / "checkpoints" / "nowhere"))

    @pytest.mark.parametrize(
        "name", ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "classifier/config.json")
    )
    def test_torn_file(self, tmp_path, name):
        self.save(tmp_path)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(OSError, match=str(tmp_path / name)):
            DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        "name", ("model_index.json", "unet/diffusion_pytorch_model.safetensors", "classifier/config.json")
    )
    def test_missing_file(self, tmp_path, name):
        self.save(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(OSError, match=f"{Path(name).stem}.* {(tmp_path / name).parent}"):
            DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
