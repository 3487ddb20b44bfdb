# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel
from diffscm_diffusers.training.components import create_model, save_whole
from tests.helpers import load_script, to_argv


def arguments(**flags):
    return load_script("train_diffusion").parse_args(to_argv({**flags, "output_dir": "unused"}))


def test_resolution_is_the_models_unless_given(model_configs):
    args = arguments(model_config_name_or_path=model_configs["unet"])
    assert create_model(UNet2DModel, args).config.sample_size == 8
    assert args.resolution == 8
    args = arguments(model_config_name_or_path=model_configs["unet"], resolution=16)
    assert create_model(UNet2DModel, args).config.sample_size == 16


def test_training_goes_on_from_a_pretrained_model(model_configs, tmp_path):
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    unet.save_pretrained(tmp_path / "unet")
    args = arguments(pretrained_model_name_or_path=tmp_path, subfolder="unet")
    loaded = create_model(UNet2DModel, args)
    assert all((a == b).all() for a, b in zip(unet.parameters(), loaded.parameters(), strict=True))
    args = arguments(pretrained_model_name_or_path=tmp_path, subfolder="unet", resolution=16)
    with pytest.raises(ValueError, match="`--pretrained_model_name_or_path` takes .* `sample_size` is 16, .* got 8"):
        create_model(UNet2DModel, args)


def test_pretrained_classifier_of_other_classes_is_refused(model_configs, tmp_path):
    config = AntiCausalClassifier2DModel.load_config(model_configs["classifier_dropout"])
    AntiCausalClassifier2DModel.from_config(config, num_classes=3).save_pretrained(tmp_path)
    args = arguments(pretrained_model_name_or_path=tmp_path)
    with pytest.raises(ValueError, match="`--pretrained_model_name_or_path` takes .* `num_classes` is 2, .* got 3"):
        create_model(AntiCausalClassifier2DModel, args, num_classes=2)


@pytest.mark.parametrize("flags", [{}, {"pretrained_model_name_or_path": "a", "model_config_name_or_path": "b"}])
def test_exactly_one_source_is_needed(flags):
    with pytest.raises(ValueError, match="Exactly one of `--pretrained_model_name_or_path` and"):
        create_model(UNet2DModel, arguments(**flags))


@pytest.mark.parametrize("sample_size", [None, [8, 16]])
def test_model_without_a_single_size_is_refused(model_configs, tmp_path, sample_size):
    config = json.loads(model_configs["unet"].read_text())
    (tmp_path / "unet.json").write_text(json.dumps({**config, "sample_size": sample_size}))
    with pytest.raises(ValueError, match="`--resolution` is needed for a model whose `sample_size` is"):
        create_model(UNet2DModel, arguments(model_config_name_or_path=tmp_path / "unet.json"))


def test_learned_variance_is_refused(model_configs, image_folder, cache_dir, tmp_path):
    config = json.loads(model_configs["unet"].read_text())
    (tmp_path / "unet.json").write_text(json.dumps({**config, "out_channels": 2}))
    flags = {"train_data_dir": image_folder, "cache_dir": cache_dir, "report_to": "none", "output_dir": tmp_path}
    with pytest.raises(ValueError, match="The denoiser predicts the noise alone.* takes 1 and gives 2"):
        load_script("train_diffusion").main(to_argv({**flags, "model_config_name_or_path": tmp_path / "unet.json"}))


def test_model_is_saved_beside_other_files_and_over_an_older_one(model_configs, tmp_path):
    config = UNet2DModel.load_config(model_configs["unet"])
    (tmp_path / "checkpoint-1").mkdir()
    save_whole(DDPMPipeline(UNet2DModel.from_config(config), DDPMScheduler()), tmp_path)
    unet = UNet2DModel.from_config(config)
    save_whole(DDPMPipeline(unet, DDPMScheduler()), tmp_path)
    loaded = DDPMPipeline.from_pretrained(tmp_path).unet
    assert all((a == b).all() for a, b in zip(unet.parameters(), loaded.parameters(), strict=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-1", "model_index.json", "scheduler", "unet"]


def test_classifier_starts_from_the_encoder_of_a_denoiser(model_configs, tmp_path):
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    script = load_script("train_classifier")

    def create(**flags):
        args = script.parse_args(to_argv({"from_unet": tmp_path, "output_dir": "unused", **flags}))
        return script.create_classifier(args, ["dark", "light"]), args

    classifier, args = create()
    assert classifier.id2label == {0: "dark", 1: "light"}
    assert args.resolution == 8
    for name, value in classifier.down_blocks.state_dict().items():
        assert (value == unet.down_blocks.state_dict()[name]).all()
    with pytest.raises(ValueError, match="`--resolution` is the denoiser's, 8, with `--from_unet`; got 16"):
        create(resolution=16)
    with pytest.raises(ValueError, match="`--from_unet` is the whole source of the model"):
        create(model_config_name_or_path=model_configs["classifier_dropout"])
