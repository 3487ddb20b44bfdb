# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from functools import partial

import pytest
from diffusers import UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel
from diffscm_diffusers.training.components import create_model, is_trained


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


def test_network_is_trained_if_its_folder_has_its_configuration(model_configs, tmp_path):
    config = UNet2DModel.load_config(model_configs["unet"])
    assert not is_trained(tmp_path / "unet", UNet2DModel, config)
    UNet2DModel.from_config(config).save_pretrained(tmp_path / "unet")
    assert is_trained(tmp_path / "unet", UNet2DModel, config)
    with pytest.raises(ValueError, match=r"unet' holds a network of another configuration: \['dropout'\] differ"):
        is_trained(tmp_path / "unet", UNet2DModel, {**config, "dropout": 0.5})
