# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import os
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from diffscm_diffusers.training import checkpoints
from diffscm_diffusers.training.checkpoints import (
    find_checkpoint,
    list_checkpoints,
    load_training_state,
    read_progress,
    save_training_state,
)
from tests.helpers import load_script, to_argv


@pytest.fixture
def accelerator():
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 2)
    accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    return accelerator


@pytest.fixture
def ema():
    return EMAModel([torch.nn.Parameter(torch.randn(3))], use_ema_warmup=True, inv_gamma=1.0, power=0.75)


def test_newest_checkpoints_are_kept(accelerator, tmp_path):
    for step in (8, 9, 10, 11):
        save_training_state(accelerator, None, tmp_path, {"step": step}, total_limit=2)
    assert list(list_checkpoints(tmp_path)) == [10, 11]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-11"


def test_progress_and_ema_are_restored(accelerator, ema, tmp_path):
    ema.step([torch.nn.Parameter(torch.ones(3))])
    expected = ema.state_dict() | {"shadow_params": [p.clone() for p in ema.shadow_params]}
    save_training_state(accelerator, ema, tmp_path, {"step": 4, "batch": 2}, total_limit=None)
    ema.step([torch.nn.Parameter(torch.zeros(3))])
    load_training_state(accelerator, ema, tmp_path / "checkpoint-4")
    progress = read_progress(tmp_path / "checkpoint-4")
    assert (progress["step"], progress["batch"]) == (4, 2)
    restored = ema.state_dict()
    assert torch.equal(restored.pop("shadow_params")[0], expected.pop("shadow_params")[0])
    assert restored == expected


def test_failed_write_leaves_the_older_checkpoint(accelerator, ema, tmp_path, monkeypatch):
    save_training_state(accelerator, ema, tmp_path, {"step": 1}, total_limit=1)

    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_training_state(accelerator, ema, tmp_path, {"step": 2}, total_limit=1)
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-1"
    load_training_state(accelerator, ema, tmp_path / "checkpoint-1")

    monkeypatch.undo()
    save_training_state(accelerator, ema, tmp_path, {"step": 3}, total_limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_unfinished_and_foreign_folders_are_not_taken_for_the_latest(tmp_path):
    assert find_checkpoint(tmp_path, "latest") is None
    assert find_checkpoint(tmp_path / "missing", "latest") is None
    for name in ("unfinished-checkpoint-9", "checkpoint-best", "checkpoint-12-backup", "unfinished-model"):
        (tmp_path / name).mkdir()
    assert find_checkpoint(tmp_path, "latest") is None


@pytest.mark.parametrize("name", ["latest", "{folder}/checkpoint-7", "{folder}/missing", "{folder}"])
def test_folder_that_is_no_complete_checkpoint_is_refused(tmp_path, name):
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "model.safetensors").touch()
    with pytest.raises(ValueError, match="`resume_from_checkpoint` expects .*checksums.json' is missing"):
        find_checkpoint(tmp_path, name.format(folder=tmp_path))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "missing": (Path.unlink, "is missing"),
    "zero bytes": (lambda path: path.write_bytes(b""), r"has 0 bytes instead of \d+"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), r"has \d+ bytes instead of \d+"),
    "flipped": (flip_a_byte, "has other bytes than were written"),
}


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "ema.safetensors", "progress.json"])
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    accelerator, ema, tmp_path, caplog, file, damage, message
):
    for step in (1, 2):
        save_training_state(accelerator, ema, tmp_path, {"step": step}, total_limit=None)
    damage(tmp_path / "checkpoint-2" / file)
    with pytest.raises(ValueError, match=f"whole checkpoint, got .*checkpoint-2/{file}' {message}"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-2"))
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "checkpoint-1"
    (warning,) = caplog.messages
    assert re.search(f"checkpoint-2/{file}' {message}.* checkpoint-2-damaged", warning)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2-damaged"]

    damage(tmp_path / "checkpoint-1" / file)
    with pytest.raises(ValueError, match=f"only damaged ones: .*checkpoint-1/{file}' {message}"):
        find_checkpoint(tmp_path, "latest")
    assert (tmp_path / "checkpoint-1").exists()


def test_run_does_not_start_behind_the_checkpoints_of_its_folder(flags, tmp_path):
    flags = {**flags, "checkpointing_steps": 1, "validation_grid_size": 1, "validation_inference_steps": 1}
    main = load_script("train_diffusion").main
    main(to_argv(flags))
    with pytest.raises(ValueError, match=r"`output_dir` .* checkpoints of the steps \[1, 2\], but .* at step 0"):
        main(to_argv(flags))
    with pytest.raises(ValueError, match=r"`output_dir` .* checkpoints of the steps \[2\], but .* at step 1"):
        main(to_argv({**flags, "resume_from_checkpoint": tmp_path / "checkpoint-1"}))
    flags["resume_from_checkpoint"] = "latest"
    with pytest.raises(ValueError, match="`max_train_steps` expects at least the step of the checkpoint, 2, got 1"):
        main(to_argv({**flags, "max_train_steps": 1}))
    with pytest.raises(ValueError, match="`streaming` False there and True here"):
        main(to_argv({**flags, "streaming": True}))
    main(to_argv({**flags, "max_train_steps": 3}))
    assert list(list_checkpoints(tmp_path)) == [1, 2, 3]
