# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import shutil

import pytest

from tests.helpers import run_script, to_argv


DRAW_NOISE = "diffscm_diffusers.training.trainer.draw_noise"

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
ENCODER_FLAGS = {**FLAGS, "num_validation_images": 4, "validation_grid_size": 1, "max_train_steps": 5}
STREAMING_FLAGS = {**DIFFUSION_FLAGS, "streaming": True, "shuffle_buffer_size": 10}


def final_weights(output_dir) -> dict[str, bytes]:
    return {path.relative_to(output_dir).as_posix(): path.read_bytes() for path in output_dir.rglob("*.safetensors")}


def list_folders(output_dir) -> list[str]:
    return sorted(path.name for path in output_dir.iterdir() if path.is_dir() and path.name not in ("samples", "logs"))


@pytest.fixture
def make_run(image_folder, cache_dir, model_configs, tmp_path):
    """Makes the flags of a run that resumes, and the weights that a run with these flags ends with if left alone."""

    def make(script, config, flags):
        flags = {
            "train_data_dir": image_folder,
            "cache_dir": cache_dir,
            "model_config_name_or_path": model_configs[config],
            **flags,
        }
        run_script(script, to_argv({**flags, "output_dir": tmp_path / "alone"}))
        argv = to_argv({**flags, "output_dir": tmp_path / "resumed", "resume_from_checkpoint": "latest"})
        return argv, final_weights(tmp_path / "alone")

    return make


# Where a run is killed, one after the other, and what it leaves. Each batch draws noise once, and calls are counted
# anew in each process: a run that did not go on from its last checkpoint would die elsewhere.
KILLS = [
    # Before the first checkpoint.
    ((DRAW_NOISE, 2), []),
    # Removing an old checkpoint: its name is gone, its files are not.
    (("shutil.rmtree", "unfinished-checkpoint-2"), ["checkpoint-3", "unfinished-checkpoint-2"]),
    # Writing a checkpoint, and when all of it is written but its name.
    (
        ("diffscm_diffusers.training.checkpoints.save_file", "checkpoint-4"),
        ["checkpoint-3", "unfinished-checkpoint-4"],
    ),
    (("os.replace", "unfinished-checkpoint-4"), ["checkpoint-3", "unfinished-checkpoint-4"]),
    # Between the two batches of the fifth step.
    ((DRAW_NOISE, 4), ["checkpoint-4"]),
    # In the first step after the end of the second epoch.
    ((DRAW_NOISE, 7), ["checkpoint-7"]),
    # Writing the model.
    (("os.replace", "unfinished-model"), ["checkpoint-8", "unfinished-model"]),
]


def test_denoiser_killed_and_resumed_equals_uninterrupted(make_run, tmp_path):
    argv, expected = make_run("train_diffusion", "unet_dropout", DIFFUSION_FLAGS)
    resumed = tmp_path / "resumed"
    for deadly_call, left in KILLS:
        run_script("train_diffusion", argv, deadly_call)
        assert (list_folders(resumed) if resumed.exists() else []) == left, deadly_call
    run_script("train_diffusion", argv)
    assert final_weights(resumed) == expected
    assert set(expected) == {
        "checkpoint-8/model.safetensors",
        "checkpoint-8/ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    }
    assert list_folders(resumed) == ["checkpoint-8", "scheduler", "unet"]

    # A finished run, resumed, writes the same model again.
    shutil.rmtree(resumed / "unet")
    run_script("train_diffusion", argv)
    assert final_weights(resumed) == expected


def test_classifier_killed_and_resumed_equals_uninterrupted(make_run, tmp_path):
    argv, expected = make_run("train_classifier", "classifier_dropout", {**CLASSIFIER_FLAGS, "max_train_steps": 5})
    run_script("train_classifier", argv, (DRAW_NOISE, 8))
    assert list_folders(tmp_path / "resumed") == ["checkpoint-3"]
    run_script("train_classifier", argv)
    assert final_weights(tmp_path / "resumed") == expected


def test_encoder_and_its_adversary_killed_and_resumed_equal_uninterrupted(make_run, tmp_path):
    argv, expected = make_run("train_semantic_encoder", "encoder", ENCODER_FLAGS)
    assert "checkpoint-5/model_1.safetensors" in expected  # the adversary
    run_script("train_semantic_encoder", argv, ("diffscm_diffusers.training.trainer.draw_shared", 8))
    assert list_folders(tmp_path / "resumed") == ["checkpoint-3"]
    run_script("train_semantic_encoder", argv)
    assert final_weights(tmp_path / "resumed") == expected


def test_streaming_run_killed_and_resumed_equals_uninterrupted(make_run, tmp_path):
    argv, expected = make_run("train_diffusion", "unet_dropout", STREAMING_FLAGS)
    # In the first epoch, then right after the end of the second.
    for count, left in ((4, "checkpoint-1"), (13, "checkpoint-7")):
        run_script("train_diffusion", argv, (DRAW_NOISE, count))
        assert list_folders(tmp_path / "resumed") == [left]
    run_script("train_diffusion", argv)
    assert final_weights(tmp_path / "resumed") == expected
