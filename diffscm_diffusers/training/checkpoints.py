# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Training checkpoints that are written whole or not at all, and read back exactly."""

import json
import logging
import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from diffscm_diffusers.checksums import CHECKSUMS_NAME, find_change, read_checksums, write_checksums
from diffscm_diffusers.files import UNFINISHED_PREFIX, written_whole


logger = logging.getLogger(__name__)


def list_checkpoints(output_dir: str | Path) -> dict[int, Path]:
    """Returns the complete checkpoints in `output_dir` by the step they were written at, oldest first."""
    steps = [re.fullmatch(r"checkpoint-(\d+)", path.name) for path in Path(output_dir).glob("checkpoint-*")]
    return {step: Path(output_dir, f"checkpoint-{step}") for step in sorted(int(match[1]) for match in steps if match)}


def find_damage(folder: Path) -> str | None:
    """Says which file of a checkpoint is not what was written, and in what way. `None` if all of them are."""
    try:
        return find_change(folder, read_checksums(folder))
    except FileNotFoundError:
        return f"{str(folder / CHECKSUMS_NAME)!r} is missing"
    except ValueError as error:
        return str(error)


def find_checkpoint(output_dir: str | Path, resume_from_checkpoint: str) -> Path | None:
    """
    Finds the checkpoint to resume from. A damaged one is never taken: for `"latest"`, it is renamed to
    `checkpoint-<step>-damaged`, with a warning, and the one before it is looked at.

    Args:
        output_dir (`str` or `Path`): Where the run writes its checkpoints.
        resume_from_checkpoint (`str`): `"latest"`, or a checkpoint's folder.

    Returns:
        `Path` or `None`: the checkpoint; `None` for `"latest"` where there is none yet.

    Raises:
        ValueError: if the folder is no checkpoint, if it is damaged, or if there is none that is whole.
    """
    if resume_from_checkpoint != "latest":
        folder = Path(resume_from_checkpoint)
        damage = find_damage(folder)
        if damage is not None:
            raise ValueError(
                "`resume_from_checkpoint` expects `latest` or the folder of a whole checkpoint, got "
                f"{resume_from_checkpoint!r}: {damage}."
            )
        return folder
    damages = []
    for folder in reversed(list_checkpoints(output_dir).values()):
        damage = find_damage(folder)
        if damage is None:
            for damaged, reason in damages:
                aside = damaged.with_name(f"{damaged.name}-damaged")
                if aside.exists():
                    shutil.rmtree(aside)  # of an earlier time
                os.replace(damaged, aside)
                logger.warning("%s: this checkpoint is now called %s, and left out.", reason, aside.name)
            return folder
        damages.append((folder, damage))
    if damages:
        raise ValueError(
            f"`resume_from_checkpoint` expects a whole checkpoint in {str(output_dir)!r}, got only damaged ones: "
            f"{'; '.join(damage for _, damage in damages)}. Remove them to start anew."
        )
    return None


def save_training_state(
    accelerator: Accelerator, ema: EMAModel | None, output_dir: str | Path, progress: dict, total_limit: int | None
):
    """
    Writes `checkpoint-<step>`: networks, optimizer, loss scale, random states, EMA, progress, and checksums of all.

    It is written under another name and renamed when complete; then the oldest checkpoints beyond `total_limit` go,
    renamed before they are removed. So whatever is called `checkpoint-<step>` is complete at any moment.

    Args:
        accelerator (`Accelerator`): Holds the prepared model and optimizer.
        ema (`EMAModel`, *optional*): The exponential moving average of the weights.
        output_dir (`str` or `Path`): Parent folder.
        progress (`dict`): JSON-serialisable position of the run; `progress["step"]` names the folder.
        total_limit (`int`, *optional*): How many checkpoints to keep.

    Raises:
        OSError: if it cannot be written, for example on a full disk. Nothing of it is left behind.
    """
    folder = Path(output_dir, f"checkpoint-{progress['step']}")
    unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)
    try:
        with ExitStack() as stack:
            if accelerator.is_main_process:
                for leftover in folder.parent.glob(f"{UNFINISHED_PREFIX}checkpoint-*"):
                    shutil.rmtree(leftover)
                stack.enter_context(written_whole(folder)).mkdir()
            accelerator.wait_for_everyone()
            accelerator.save_state(str(unfinished))
            state = ema.state_dict() if ema is not None else None
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                if state is not None:
                    save_file(
                        {str(i): shadow.contiguous() for i, shadow in enumerate(state.pop("shadow_params"))},
                        unfinished / "ema.safetensors",
                    )
                    progress = {**progress, "ema": state}
                (unfinished / "progress.json").write_text(json.dumps(progress, indent=2))
                files = [path for path in unfinished.rglob("*") if path.is_file()]
                write_checksums(unfinished, {path.relative_to(unfinished).as_posix(): path for path in files})
            accelerator.wait_for_everyone()
    # What PyTorch and safetensors raise on a full disk is no OSError.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise OSError(
            f"{str(folder)!r} cannot be written: {error}. The checkpoints beside it are whole: make room, and go on "
            "with `--resume_from_checkpoint latest`."
        ) from error
    if accelerator.is_main_process and total_limit is not None:
        for outdated in list(list_checkpoints(output_dir).values())[:-total_limit]:
            doomed = outdated.with_name(UNFINISHED_PREFIX + outdated.name)
            os.replace(outdated, doomed)
            shutil.rmtree(doomed)
    accelerator.wait_for_everyone()


def read_progress(folder: Path) -> dict:
    """The `progress` that [`save_training_state`] wrote."""
    return json.loads((folder / "progress.json").read_text())


def load_training_state(accelerator: Accelerator, ema: EMAModel | None, folder: Path):
    """Restores what [`save_training_state`] wrote, with an EMA or none as it was."""
    accelerator.load_state(str(folder))
    if ema is not None:
        shadows = load_file(folder / "ema.safetensors")
        ema.load_state_dict(
            {**read_progress(folder)["ema"], "shadow_params": [shadows[str(i)] for i in range(len(shadows))]}
        )
        ema.to(accelerator.device)
