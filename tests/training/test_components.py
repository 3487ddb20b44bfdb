# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from dataclasses import replace
from functools import partial

import pytest
from diffusers import UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel
from diffscm_diffusers.training.arguments import TrainingArguments
from diffscm_diffusers.training.components import create_model, is_trained, save_trained
from diffscm_diffusers.training.run_record import describe_run


def test_resolution_is_the_models_unless_given(model_configs):
    create = partial(create_model, UNet2DModel, model_config_name_or_path=model_configs["unet"])
    assert create().config.sample_size == 8
    assert create(resolution=16).config.sample_size == 16


def test_training_goes_on_from_a_pretrained_model(model_configs, tmp_path):
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    unet.save_pretrained(tmp_path / "unet")
    create = partial(create_model, UNet2DModel, pretrained_model_name_or_path=tmp_path, subfolder="unet")
    assert all((a == b).all() for a, b in zip(unet.parameters(), create().parameters(), strict=True))
    with pytest.raises(ValueError, match="`pretrained_model_name_or_path` expects .* `sample_size` is 16, .* got 8"):
        create(resolution=16)


def test_pretrained_classifier_of_other_classes_is_refused(model_configs, tmp_path):
    config = AntiCausalClassifier2DModel.load_config(model_configs["classifier_dropout"])
    AntiCausalClassifier2DModel.from_config(config, num_classes=3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`pretrained_model_name_or_path` expects .* `num_classes` is 2, .* got 3"):
        create_model(AntiCausalClassifier2DModel, pretrained_model_name_or_path=tmp_path, num_classes=2)


def test_pretrained_network_of_another_class_is_refused(model_configs, tmp_path):
    UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expects a AntiCausalClassifier2DModel, got .*, a UNet2DModel"):
        create_model(AntiCausalClassifier2DModel, pretrained_model_name_or_path=tmp_path)


@pytest.mark.parametrize("flags", [{}, {"pretrained_model_name_or_path": "a", "model_config_name_or_path": "b"}])
def test_exactly_one_source_is_needed(flags):
    with pytest.raises(ValueError, match="Exactly one of `pretrained_model_name_or_path` and"):
        create_model(UNet2DModel, **flags)


@pytest.mark.parametrize("sample_size", [None, [8, 16]])
def test_model_without_a_single_size_is_refused(model_configs, tmp_path, sample_size):
    config = json.loads(model_configs["unet"].read_text())
    (tmp_path / "unet.json").write_text(json.dumps({**config, "sample_size": sample_size}))
    with pytest.raises(ValueError, match="`resolution` expects .* as the model's `sample_size` is"):
        create_model(UNet2DModel, model_config_name_or_path=tmp_path / "unet.json")


def test_network_is_trained_if_its_folder_has_its_record(model_configs, tmp_path):
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    training_args = TrainingArguments(output_dir=tmp_path)

    def describe(**changes):
        flags, changes = {"step": changes.pop("step", 1)}, {"output_dir": "elsewhere", **changes}
        return describe_run(replace(training_args, **changes), flags, unet, "abc", 1, "no", is_finished=True)

    assert not is_trained(tmp_path / "unet", describe())
    save_trained(unet, tmp_path / "unet", describe())
    assert is_trained(tmp_path / "unet", describe(checkpointing_steps=7))
    with pytest.raises(
        ValueError, match=r"unet' holds .* another run: .*`max_train_steps` 20000 there and 3 here, `seed"
    ):
        is_trained(tmp_path / "unet", describe(seed=1, max_train_steps=3, lr_warmup_steps=0))
    with pytest.raises(ValueError, match="`step` 1 there and 2 here"):
        is_trained(tmp_path / "unet", describe(step=2))
    (tmp_path / "unet" / "run.json").unlink()
    with pytest.raises(ValueError, match="holds no record, `run.json`"):
        is_trained(tmp_path / "unet", describe())
