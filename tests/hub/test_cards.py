# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
from huggingface_hub import DatasetCard, ModelCard

from diffscm_diffusers.hub.cards import make_component_card, make_dataset_card, read_section, save_card


@pytest.fixture
def component():
    """What the card of a trained network says, but for its data."""
    return {
        "name": "outputs/denoiser",
        "description": "A denoiser.\n",
        "script": "train_diffusion.py",
        "argv": ["--output_dir", "my outputs"],
        "num_processes": 1,
        "num_steps": 7,
        "split": "train",
    }


@pytest.fixture
def counterfactuals():
    """What the card of a data set of counterfactuals says, but for its source."""
    return {
        "name": "ada/what-if",
        "model": "ada/causal-model",
        "num_classes": 3,
        "result": "Four of two.",
        "has_classes": True,
        "settings": {"guidance_scale": 2.5, "abduction": None},
        "command": ["diffscm", "generate", "--output_dir", "my outputs"],
        "split": "test",
        "data_files": ["data/test-00000000.parquet"],
    }


def test_section_ends_at_the_next():
    card = "# Title\n\n## One\n\n### Inner\n\ntext\n\n## Two\nlast\n"
    assert read_section(card, "One") == "### Inner\n\ntext"
    assert read_section(card, "Two") == "last"
    assert read_section(card, "Three") == ""


def test_component_card_has_the_command(component):
    card = make_component_card(**component, train_data_dir="photos")
    assert card.data.datasets is None
    assert card.text.strip().startswith("# denoiser\n\nA denoiser.\n\n## Training\n\n7 optimizer steps")
    assert "split `train` of `photos`" in card.text
    assert "\naccelerate launch train_scripts/train_diffusion.py --output_dir 'my outputs'\n" in card.text


def test_component_card_has_the_number_of_processes(component):
    card = make_component_card(**component | {"num_processes": 4}, train_data_dir="photos")
    assert "\naccelerate launch --num_processes 4 train_scripts/train_diffusion.py" in card.text


def test_data_set_of_the_hub_is_in_the_metadata(component, counterfactuals):
    assert make_component_card(**component, dataset_name="ada/photos").data.datasets == ["ada/photos"]
    card = make_dataset_card(**counterfactuals, dataset_name="ada/photos")
    assert card.data.source_datasets == ["ada/photos"]
    assert "[ada/photos](https://huggingface.co/datasets/ada/photos)" in card.text


def test_data_set_of_this_disk_is_not(component, counterfactuals, tmp_path):
    assert make_component_card(**component, dataset_name=str(tmp_path)).data.datasets is None
    card = make_dataset_card(**counterfactuals, dataset_name=str(tmp_path))
    assert card.data.to_dict().get("source_datasets") is None
    assert f"split `test` of `{tmp_path.name}`" in card.text
    assert str(tmp_path) not in card.text


def test_dataset_card_has_columns_settings_and_command(counterfactuals):
    text = make_dataset_card(**counterfactuals, train_data_dir="photos").text
    assert "| `factual` | the factual as" in text and "\n| `factual_class` | its class |\n" in text
    settings = "| setting | value |\n| --- | --- |\n| `guidance_scale` | `2.5` |\n| `abduction` | `None` |\n\n"
    assert f"{settings}```bash\ndiffscm generate --output_dir 'my outputs'\n```" in text
    text = make_dataset_card(**counterfactuals | {"has_classes": False}, train_data_dir="photos").text
    assert "factual_class" not in text


def test_saved_card_is_read_back(component, counterfactuals, tmp_path):
    for card_class, card in (
        (ModelCard, make_component_card(**component, dataset_name="ada/photos")),
        (DatasetCard, make_dataset_card(**counterfactuals, dataset_name="ada/photos")),
    ):
        save_card(card, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
        loaded = card_class.load(tmp_path / "README.md")
        assert loaded.data.to_dict() == card.data.to_dict()
        assert loaded.text.strip() == card.text.strip()
