# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import PIL.Image
import pytest
from diffusers import DDPMScheduler, UNet2DModel
from huggingface_hub import ModelCard

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.commands import card
from diffscm_diffusers.hub.cards import read_section
from tests.helpers import to_argv


SCORES = ("im1", "im2", "cld", "cld_floor", "cld_excess", "effectiveness", "l1", "l2")


@pytest.fixture
def flags(model_configs, tmp_path):
    """A checkpoint with a card, an evaluation and a picture."""
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    config = AntiCausalClassifier2DModel.load_config(model_configs["classifier_dropout"])
    classifier = AntiCausalClassifier2DModel.from_config(config, num_classes=2, id2label={0: "dark", 1: "light"})
    pipe = DiffSCMCounterfactualPipeline(
        unet, classifier, DDPMScheduler(num_train_timesteps=60), default_num_inference_steps=50
    )
    pipe.save_pretrained(tmp_path / "photos")
    (tmp_path / "photos" / "README.md").write_text(
        "# old\n\nOld words.\n\n## Training\n\nby\n\n```bash\n# hours\ntrain it\n```\n\n## Limits\n\nOnly by day.\n"
    )
    settings = {
        "dataset_name": None,
        "train_data_dir": "photos",
        "split": "test",
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
    }
    scores = {name: {"mean": 0.1234567 + i, "low": 0.1 + i, "high": 0.2 + i} for i, name in enumerate(SCORES)}
    methods = {"diff-scm": {"settings": settings, "scores": scores, "realism": 1.0, "seconds": 0.25}}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps({"num_pairs": 40, "methods": methods}))
    PIL.Image.new("L", (8, 8)).save(tmp_path / "picture.png")
    return {
        "pretrained_model_name_or_path": tmp_path / "photos",
        "cause": "daytime",
        "effect": "photo",
        "dataset_name": "ada/photos",
        "license": "cc-by-4.0",
        "evaluation": tmp_path / "evaluation",
        "picture": tmp_path / "picture.png",
    }


def write(flags) -> ModelCard:
    card.main(to_argv(flags))
    return ModelCard.load(flags["pretrained_model_name_or_path"] / "README.md")


def test_card_says_what_the_model_is(flags):
    written = write(flags)
    assert written.text.lstrip().startswith("# photos\n")
    assert "`photo <- daytime`" in written.text
    assert "the daytime, one of `dark`, `light`" in written.text
    assert f'Pipeline.from_pretrained("{flags["pretrained_model_name_or_path"]}")' in written.text
    # Only a published checkpoint brings the code.
    assert 'Pipeline.from_pretrained("user/photos", trust_remote_code=True)' in written.text
    assert "60 timesteps, betas `linear`" in read_section(written.text, "Hyperparameters")
    assert "50 steps each way, guidance scale 1 |" in read_section(written.text, "Hyperparameters")
    assert "`ada/photos`" in read_section(written.text, "Data")
    assert read_section(written.text, "Intended use")
    assert "Old words" not in written.text


def test_scores_are_in_the_metadata_and_the_text(flags):
    written = write(flags)
    assert written.data.datasets == ["ada/photos"] and written.data.license == "cc-by-4.0"
    results = {result.metric_type: result for result in written.data.eval_results}
    assert results["im1"].metric_value == 0.1235 and results["effectiveness"].metric_value == 5.123
    assert results["cld"].dataset_type == "ada/photos" and results["cld"].dataset_split == "test"
    assert "40 counterfactuals with random targets, 7 steps, guidance scale 2.5" in results["cld"].metric_name
    assert "| IM1 (lower is better) | 0.1235 | [0.1, 0.2] |" in read_section(written.text, "Results")


def test_a_scale_that_was_searched_for_each_image(flags):
    path = flags["evaluation"] / "summary.json"
    summary = json.loads(path.read_text())
    summary["methods"]["diff-scm"]["settings"]["guidance_scale"] = {"encoder": ["pixels"]}
    path.write_text(json.dumps(summary))
    assert "7 steps, guidance scale searched for each image." in read_section(write(flags).text, "Results")


def test_picture_is_part_of_the_checkpoint(flags):
    assert "(picture.png)" in write(flags).text
    assert (flags["pretrained_model_name_or_path"] / "picture.png").exists()


def test_what_was_written_on_training_and_limits_is_kept(flags):
    for _ in range(2):
        written = write(flags)
        assert read_section(written.text, "Training") == "by\n\n```bash\n# hours\ntrain it\n```"
        assert read_section(written.text, "Limits") == "Only by day."


def test_card_without_an_evaluation_claims_no_results(flags):
    del flags["evaluation"]
    written = write(flags)
    assert written.data.eval_results is None
    assert "## Results" not in written.text


def test_evaluation_that_is_none_is_refused(flags, tmp_path):
    with pytest.raises(
        ValueError, match=r"`--evaluation` expects a folder that `diffscm evaluate` wrote, .*summary.json"
    ):
        write({**flags, "evaluation": tmp_path})
    (tmp_path / "summary.json").write_text(json.dumps({"num_pairs": 1, "methods": {"factual": {}}}))
    with pytest.raises(ValueError, match=r"`summary` expects scores of the method 'diff-scm', got \['factual'\]"):
        write({**flags, "evaluation": tmp_path})


def test_folder_that_does_not_exist_is_refused(flags, tmp_path):
    with pytest.raises(ValueError, match="`--pretrained_model_name_or_path` expects a checkpoint's folder"):
        write({**flags, "pretrained_model_name_or_path": tmp_path / "none"})
