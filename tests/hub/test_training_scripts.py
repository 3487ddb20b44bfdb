# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""From image folders to a published checkpoint, by the training scripts and over HTTP."""

import json

import pytest


pytestmark = pytest.mark.xdist_group("hub")

TOKEN = "hf_ada"


@pytest.fixture(scope="module")
def results(hub, run, image_folder, model_configs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    results = run(
        f"""
        from diffscm_diffusers.commands import join_checkpoint, publish
        from tests.helpers import load_script, to_argv

        folder = Path({str(folder)!r})
        shared = {{
            "train_data_dir": {str(image_folder)!r}, "cache_dir": folder / "cache", "train_batch_size": 4,
            "max_train_steps": 1, "lr_warmup_steps": 0, "report_to": "none",
        }}
        denoiser = {{"model_config_name_or_path": {str(model_configs["unet"])!r}, "output_dir": folder / "denoiser"}}
        classifier = {{
            "model_config_name_or_path": {str(model_configs["classifier_dropout"])!r}, "num_validation_images": 4,
            "num_noise_levels": 1, "output_dir": folder / "classifier",
        }}
        push = {{"push_to_hub": True}}
        load_script("train_diffusion").main(to_argv({{**shared, **denoiser, **push, "hub_model_id": "a-denoiser"}}))
        load_script("train_classifier").main(to_argv({{**shared, **classifier, **push, "hub_model_id": "ada/guide"}}))
        unreachable = {{**shared, **classifier, **push, "hub_model_id": "bob/guide", "output_dir": folder / "bob"}}
        results["not_mine"] = error(lambda: load_script("train_classifier").main(to_argv(unreachable)))
        results["trained_anyway"] = (folder / "bob" / "config.json").exists()

        joined = {{"denoiser": "ada/a-denoiser", "classifier": "ada/guide", "output_dir": folder / "joined"}}
        join_checkpoint.main(to_argv(joined))
        published = {{"pretrained_model_name_or_path": folder / "joined", "hub_model_id": "ada/joined"}}
        publish.main(to_argv(published))
        """,
        token=TOKEN,
    )
    return {**results, "folder": folder}


def test_trained_components_are_published_and_joined_by_name(hub, results):
    assert set(hub.repositories) == {"ada/a-denoiser", "ada/guide", "ada/joined"}
    config = json.loads(hub.files("ada/joined")["classifier/config.json"])
    assert config["id2label"] == {"0": "dark", "1": "light"}
    assert "unet/diffusion_pytorch_model.safetensors" in hub.files("ada/a-denoiser")
    assert set(hub.files("ada/guide")) == {
        ".gitattributes",
        "README.md",
        "checksums.json",
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    assert 'from_pretrained("ada/guide")' in hub.files("ada/guide")["README.md"].decode()


def test_missing_permission_shows_before_the_training(results):
    kind, message = results["not_mine"]
    assert kind == "PermissionError"
    assert "'bob/guide' cannot be published: your token may not write there" in message
    assert not results["trained_anyway"]


def test_token_is_nowhere_but_in_the_requests(hub, results, home):
    """Not in what is trained, recorded, joined and published, in no card, log or error, and on no screen."""
    said = [results["stdout"], results["stderr"], *results["not_mine"]]
    published = [content for name in hub.repositories for content in hub.files(name).values()]
    files = [path for path in (*results["folder"].rglob("*"), *home.rglob("*")) if path.is_file()]
    assert any(path.name == "README.md" for path in files) and len(files) > 20
    assert TOKEN not in "".join(said)
    assert [content for content in published if TOKEN.encode() in content] == []
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
