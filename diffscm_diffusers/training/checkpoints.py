# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Training checkpoints that are written whole or not at all, and read back exactly."""

import json
import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from diffscm_diffusers.files import UNFINISHED_PREFIX, written_whole


def list_checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """Returns the complete checkpoints in `output_dir` by the step they were written at, oldest first."""
    steps = [re.fullmatch(r"checkpoint-(\d+)", path.name) for path in Path(output_dir).glob("checkpoint-*")]
    return {step: Path(output_dir, f"checkpoint-{step}") for step in sorted(int(match[1]) for match in steps if match)}


def find_checkpoint(output_dir: str | Path, resume_from_checkpoint: str) -> Path | None:
    """
    Finds the checkpoint to resume from.

    Args:
        output_dir (`str` or `Path`): Where the run writes its checkpoints.
        resume_from_checkpoint (`str`): `"latest"`, or a checkpoint's folder.

    Returns:
        `Path` or `None`: the checkpoint; `None` for `"latest"` where there is none yet.

    Raises:
        ValueError: if the folder is not a complete checkpoint.
    """
    if resume_from_checkpoint == "latest":
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints:
            return None
        folder = checkpoints[max(checkpoints)]
    else:
        folder = Path(resume_from_checkpoint)
    if not (folder / "progress.json").is_file():
        raise ValueError(
            "`resume_from_checkpoint` expects `latest` or the folder of a checkpoint, got "
            f"{resume_from_checkpoint!r}: {str(folder)!r} has no `progress.json`."
        )
    return folder


def save_training_state(
    accelerator: Accelerator, ema: EMAModel | None, output_dir: str | Path, progress: dict, total_limit: int | None
):
    """
    Writes `checkpoint-<step>`: networks, optimizer, loss scale, random states, EMA and progress.

    It is written under another name and renamed when complete; then the oldest checkpoints beyond `total_limit` go,
    renamed before they are removed. So whatever is called `checkpoint-<step>` is complete at any moment.

    Args:
        accelerator (`Accelerator`): Holds the prepared model and optimizer.
        ema (`EMAModel`, *optional*): The exponential moving average of the weights.
        output_dir (`str` or `Path`): Parent folder.
        progress (`dict`): JSON-serialisable position of the run; `progress["step"]` names the folder.
        total_limit (`int`, *optional*): How many checkpoints to keep.
    """
    folder = Path(output_dir, f"checkpoint-{progress['step']}")
    unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)
    with ExitStack() as stack:
        if accelerator.is_main_process:
            for leftover in folder.parent.glob(f"{UNFINISHED_PREFIX}checkpoint-*"):
                shutil.rmtree(leftover)
            stack.enter_context(written_whole(folder)).mkdir()
        accelerator.wait_for_everyone()
        accelerator.save_state(str(unfinished))
        state = ema.state_dict() if ema is not None else None
        if accelerator.is_main_process:
            if state is not None:
                save_file(
                    {str(i): shadow.contiguous() for i, shadow in enumerate(state.pop("shadow_params"))},
                    unfinished / "ema.safetensors",
                )
                progress = {**progress, "ema": state}
            (unfinished / "progress.json").write_text(json.dumps(progress, indent=2))
        accelerator.wait_for_everyone()
    if accelerator.is_main_process and total_limit is not None:
        for outdated in list(list_checkpoints(output_dir).values())[:-total_limit]:
            doomed = outdated.with_name(UNFINISHED_PREFIX + outdated.name)
            os.replace(outdated, doomed)
            shutil.rmtree(doomed)
    accelerator.wait_for_everyone()


def load_training_state(accelerator: Accelerator, ema: EMAModel | None, folder: Path) -> dict:
    """
    Restores what [`save_training_state`] wrote and returns `progress`.

    Raises:
        ValueError: if one of the run and the checkpoint has an EMA and the other has not.
    """
    progress = json.loads((folder / "progress.json").read_text())
    state = progress.pop("ema", None)
    if (state is None) != (ema is None):
        raise ValueError(
            f"`use_ema` must be as in the run that wrote {str(folder)!r}, "
            f"which had {'no' if state is None else 'an'} EMA."
        )
    accelerator.load_state(str(folder))
    if ema is not None:
        shadows = load_file(folder / "ema.safetensors")
        ema.load_state_dict({**state, "shadow_params": [shadows[str(i)] for i in range(len(shadows))]})
        ema.to(accelerator.device)
    return progress
