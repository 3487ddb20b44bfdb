# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from pathlib import Path
from unittest import mock

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects

from diffscm_diffusers import AntiCausalClassifier2DModel
from tests.helpers import load_script, to_argv


@pytest.fixture
def flags(image_folder, cache_dir, model_configs, tmp_path):
    return {
        "train_data_dir": image_folder,
        "cache_dir": cache_dir,
        "model_config_name_or_path": model_configs["classifier_dropout"],
        "train_batch_size": 4,
        "max_train_steps": 1,
        "lr_warmup_steps": 0,
        "num_validation_images": 4,
        "num_noise_levels": 1,
        "report_to": "none",
        "output_dir": tmp_path / "a classifier",
    }


@pytest.fixture
def hub():
    with mock.patch("diffscm_diffusers.hub.publishing.HfApi") as api:
        api.return_value.create_repo.side_effect = lambda name, **kwargs: mock.Mock(repo_id=f"me/{name}")
        yield api.return_value


def test_card_has_the_command_data_and_versions(flags, hub):
    load_script("train_classifier").main(to_argv(flags))
    card = ModelCard.load(flags["output_dir"] / "README.md")
    assert card.data.library_name == "diffusers"
    assert card.data.datasets is None
    assert "\n# a classifier\n" in card.text
    command = f"accelerate launch train_scripts/train_classifier.py --train_data_dir {flags['train_data_dir']}"
    assert command in card.text
    assert f"--output_dir '{flags['output_dir']}'" in card.text
    assert "`train` of `" in card.text
    for library in ("torch", "diffusers", "accelerate", "datasets"):
        version = __import__(library).__version__
        assert f"{library} {version}" in card.text
    assert not hub.mock_calls


def test_trained_model_is_published(flags, hub, monkeypatch):
    script = load_script("train_classifier")

    class TrainerAfterCreateRepo(script.Trainer):
        def __init__(self, *args, **kwargs):
            hub.create_repo.assert_called_once_with("digits", repo_type="model", private=None, exist_ok=True)
            super().__init__(*args, **kwargs)

    # A missing login has to show before the training, not after it.
    monkeypatch.setattr(script, "Trainer", TrainerAfterCreateRepo)
    published = {}

    def upload_folder(repo_id, folder_path, ignore_patterns, **kwargs):
        files = [path for path in Path(folder_path).rglob("*") if path.is_file()]
        paths = [path.relative_to(folder_path).as_posix() for path in files]
        published[repo_id] = sorted(filter_repo_objects(paths, ignore_patterns=ignore_patterns))

    hub.upload_folder.side_effect = upload_folder
    script.main(to_argv({**flags, "push_to_hub": True, "hub_model_id": "digits", "report_to": "tensorboard"}))
    weights = "diffusion_pytorch_model.safetensors"
    assert published == {"me/digits": ["README.md", "checksums.json", "config.json", weights]}
    assert 'from_pretrained("me/digits")' in (flags["output_dir"] / "README.md").read_text()
    classifier = AntiCausalClassifier2DModel.from_pretrained(flags["output_dir"])
    assert classifier.id2label == {0: "dark", 1: "light"}


def test_repository_is_named_after_the_output_folder(flags, hub):
    flags = {**flags, "output_dir": str(Path(flags["output_dir"]).with_name("a-classifier"))}
    load_script("train_classifier").main(to_argv({**flags, "push_to_hub": True}))
    hub.create_repo.assert_called_once_with("a-classifier", repo_type="model", private=None, exist_ok=True)


def test_missing_validation_split_is_refused(flags):
    with pytest.raises(ValueError, match=r"`--validation_split` expects one of .* \['test', 'train'\], got 'dev'"):
        load_script("train_classifier").main(to_argv({**flags, "validation_split": "dev"}))
