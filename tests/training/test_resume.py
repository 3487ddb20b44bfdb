# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import shutil

import pytest

from tests.helpers import run_script, to_argv


# Seven batches of four images make an epoch, and two batches an optimizer step: eight steps cross the end of the first
# epoch in the middle of a step, and that of the second where a checkpoint is written.
FLAGS = {
    "train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_train_steps": 8,
    "checkpointing_steps": 1,
    "checkpoints_total_limit": 1,
    "validation_steps": 3,
    "lr_warmup_steps": 3,
    "lr_scheduler": "cosine",
    "learning_rate": 1e-2,
    "report_to": "none",
    "use_ema": True,
}
DIFFUSION_FLAGS = {**FLAGS, "validation_inference_steps": 2, "validation_grid_size": 1}
CLASSIFIER_FLAGS = {**FLAGS, "num_validation_images": 4, "num_noise_levels": 2}
STREAMING_FLAGS = {**DIFFUSION_FLAGS, "streaming": True, "shuffle_buffer_size": 10}


def final_weights(output_dir) -> dict[str, bytes]:
    return {path.relative_to(output_dir).as_posix(): path.read_bytes() for path in output_dir.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def runs(image_folder, cache_dir, model_configs, tmp_path_factory):
    """Makes the flags of a run and, once for each kind of run, the weights that it ends with if left alone."""
    weights = {}

    def make(script, config, flags, output_dir):
        flags = {
            "train_data_dir": image_folder,
            "cache_dir": cache_dir,
            "model_config_name_or_path": model_configs[config],
            **flags,
        }
        key = (script, flags.get("streaming", False))
        if key not in weights:
            reference = tmp_path_factory.mktemp("reference")
            run_script(script, to_argv({**flags, "output_dir": reference}))
            weights[key] = final_weights(reference)
        return to_argv({**flags, "output_dir": output_dir, "resume_from_checkpoint": "latest"}), weights[key]

    return make


@pytest.mark.parametrize(
    "deadly_call",
    [
        pytest.param(("diffscm_diffusers.training.loop.draw_noise", 2), id="before-the-first-checkpoint"),
        pytest.param(("diffscm_diffusers.training.loop.draw_noise", 10), id="inside-an-accumulated-step"),
        pytest.param(("diffscm_diffusers.training.loop.draw_noise", 15), id="after-the-end-of-an-epoch"),
        pytest.param(("diffscm_diffusers.training.checkpoints.save_file", "checkpoint-4"), id="writing-a-checkpoint"),
        pytest.param(("os.replace", "unfinished-checkpoint-4"), id="before-a-checkpoint-gets-its-name"),
        pytest.param(("shutil.rmtree", "unfinished-checkpoint-2"), id="removing-an-old-checkpoint"),
        pytest.param(("os.replace", "unfinished-model"), id="writing-the-model"),
    ],
)
def test_denoiser_killed_and_resumed_equals_uninterrupted(runs, tmp_path, deadly_call):
    argv, expected = runs("train_diffusion", "unet_dropout", DIFFUSION_FLAGS, tmp_path)
    run_script("train_diffusion", argv, deadly_call)
    run_script("train_diffusion", argv)
    assert final_weights(tmp_path) == expected
    assert set(expected) == {
        "checkpoint-8/model.safetensors",
        "checkpoint-8/ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert not list(tmp_path.glob("unfinished-*"))


def test_classifier_killed_and_resumed_equals_uninterrupted(runs, tmp_path):
    argv, expected = runs("train_classifier", "classifier_dropout", CLASSIFIER_FLAGS, tmp_path)
    run_script("train_classifier", argv, ("diffscm_diffusers.training.loop.draw_noise", 12))
    run_script("train_classifier", argv)
    assert final_weights(tmp_path) == expected


def test_streaming_run_killed_and_resumed_equals_uninterrupted(runs, tmp_path):
    argv, expected = runs("train_diffusion", "unet_dropout", STREAMING_FLAGS, tmp_path)
    for count in (4, 13):  # in the first epoch, then right after the end of the second
        run_script("train_diffusion", argv, ("diffscm_diffusers.training.loop.draw_noise", count))
    run_script("train_diffusion", argv)
    assert final_weights(tmp_path) == expected


def test_finished_run_resumed_writes_the_same_model_again(runs, tmp_path):
    argv, expected = runs("train_diffusion", "unet_dropout", DIFFUSION_FLAGS, tmp_path)
    run_script("train_diffusion", argv)
    shutil.rmtree(tmp_path / "unet")
    run_script("train_diffusion", argv)
    assert final_weights(tmp_path) == expected
