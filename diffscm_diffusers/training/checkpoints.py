# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Training checkpoints that are written whole or not at all, and read back exactly."""

import json
import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file


CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
UNFINISHED_PREFIX = "unfinished-"


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Returns the complete checkpoints in `output_dir`, oldest first."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if CHECKPOINT_NAME.fullmatch(path.name)]
    return sorted(folders, key=lambda path: int(CHECKPOINT_NAME.fullmatch(path.name)[1]))


def find_checkpoint(output_dir: str | Path, resume_from_checkpoint: str) -> Path | None:
    """
    Resolves `--resume_from_checkpoint`.

    Args:
        output_dir (`str` or `Path`): Where the run writes its checkpoints.
        resume_from_checkpoint (`str`): `"latest"`, or a checkpoint's folder.

    Returns:
        `Path` or `None`: the checkpoint; `None` for `"latest"` where there is none yet.

    Raises:
        ValueError: if the named folder is not a complete checkpoint.
    """
    if resume_from_checkpoint == "latest":
        checkpoints = list_checkpoints(output_dir)
        return checkpoints[-1] if checkpoints else None
    folder = Path(resume_from_checkpoint)
    if not (folder / "progress.json").is_file():
        raise ValueError(
            "`--resume_from_checkpoint` takes `latest` or a folder written by this script, "
            f"got {resume_from_checkpoint!r}, which has no `progress.json`."
        )
    return folder


def remove_whole(folder: Path):
    """Removes a folder so that an interruption never leaves half of it under its own name."""
    doomed = folder.with_name(UNFINISHED_PREFIX + folder.name)
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed)


def replace_whole(unfinished: Path, folder: Path):
    """Gives a completely written folder its final name, in place of an older one."""
    if folder.exists():
        remove_whole(folder)
    os.replace(unfinished, folder)


def save_checkpoint(
    accelerator: Accelerator, ema: EMAModel | None, output_dir: str | Path, progress: dict, total_limit: int | None
):
    """
    Writes `checkpoint-<step>`: networks, optimizer, loss scale, random states, EMA and progress.

    It is written beside its final name and renamed when complete; then the oldest checkpoints beyond `total_limit` go.

    Args:
        accelerator (`Accelerator`): Holds the prepared model and optimizer.
        ema (`EMAModel`, *optional*): The exponential moving average of the weights.
        output_dir (`str` or `Path`): Parent folder.
        progress (`dict`): JSON-serialisable position of the run; `progress["step"]` names the folder.
        total_limit (`int`, *optional*): How many checkpoints to keep.
    """
    folder = Path(output_dir) / f"checkpoint-{progress['step']}"
    unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    if accelerator.is_main_process:
        if ema is not None:
            state = ema.state_dict()
            save_file(
                {str(i): shadow.contiguous() for i, shadow in enumerate(state.pop("shadow_params"))},
                unfinished / "ema.safetensors",
            )
            progress = {**progress, "ema": state}
        (unfinished / "progress.json").write_text(json.dumps(progress, indent=2))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        replace_whole(unfinished, folder)
        if total_limit is not None:
            for outdated in list_checkpoints(output_dir)[:-total_limit]:
                remove_whole(outdated)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, ema: EMAModel | None, folder: Path) -> dict:
    """Restores what [`save_checkpoint`] wrote and returns `progress`."""
    accelerator.load_state(str(folder))
    progress = json.loads((folder / "progress.json").read_text())
    state = progress.pop("ema", None)
    if (state is None) != (ema is None):
        raise ValueError(f"`--use_ema` must be as in the run that wrote {str(folder)!r}.")
    if ema is not None:
        shadows = load_file(folder / "ema.safetensors")
        ema.load_state_dict({**state, "shadow_params": [shadows[str(i)] for i in range(len(shadows))]})
        ema.to(accelerator.device)
    return progress
