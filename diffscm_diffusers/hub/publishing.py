# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The model card of a trained component, and its way to the Hub."""

import os
import platform
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from diffscm_diffusers.training.checkpoints import UNFINISHED_PREFIX


LIBRARIES = ("diffscm-diffusers", "torch", "diffusers", "accelerate", "datasets")


@contextmanager
def explain_hub_errors(repo_id: str) -> Iterator[None]:
    """
    Says what to do about the errors of the Hub that a user can do something about; others pass unchanged.

    Args:
        repo_id (`str`): The repository that the block publishes to, as the user named it.

    Raises:
        PermissionError: if the Hub does not know the token (401), or the token may not write there (403).
        FileNotFoundError: if the repository does not exist (404).
        ConnectionError: if the Hub cannot be reached.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConnectionError(f"{repo_id!r} cannot be published offline: unset `HF_HUB_OFFLINE`.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise PermissionError(
                f"{repo_id!r} cannot be published: the Hub takes no token of yours, or not this one. Log in with "
                "`hf auth login`, or set `HF_TOKEN` to a token with write access "
                "(https://huggingface.co/settings/tokens)."
            ) from error
        if status == 403:
            raise PermissionError(
                f"{repo_id!r} cannot be published: your token may not write there. Publish under your own name, or "
                "with a token that has write access to this one."
            ) from error
        if status == 404:
            raise FileNotFoundError(
                f"{repo_id!r} cannot be published: the Hub has no such repository, or hides it from your token."
            ) from error
        raise
    except (HTTPError, ConnectionError) as error:
        raise ConnectionError(
            f"{repo_id!r} cannot be published: the Hub cannot be reached ({error}). Check the network and "
            "`HF_ENDPOINT`, then publish again; what is on this disk is complete."
        ) from error


def create_repository(args: Namespace):
    """
    Makes the repository that `--push_to_hub` publishes to, before the run, so that a missing login shows early.

    `args.hub_model_id` becomes its full name; by default that of the output folder.
    """
    name = args.hub_model_id or Path(args.output_dir).resolve().name
    with explain_hub_errors(name):
        args.hub_model_id = HfApi().create_repo(name, exist_ok=True).repo_id


def write_model_card(args: Namespace, script: str, argv: list[str] | None, num_processes: int, description: str):
    """
    Writes `README.md` into the output folder: what the model is, the command that trained it, data and versions.

    Args:
        args (`argparse.Namespace`): See [`add_training_arguments`].
        script (`str`): Name of the training script.
        argv (`list[str]`, *optional*): The flags it was called with. Default: this process' command line.
        num_processes (`int`): How many processes it ran in.
        description (`str`): Markdown that says what the model is and how to load it.
    """
    launch = ["accelerate", "launch", *(["--num_processes", str(num_processes)] if num_processes > 1 else [])]
    command = shlex.join([*launch, f"train_scripts/{script}", *(sys.argv[1:] if argv is None else argv)])
    data = args.dataset_name or args.train_data_dir
    on_hub = args.dataset_name is not None and not os.path.exists(args.dataset_name)
    metadata = ModelCardData(
        library_name="diffusers",
        tags=["diffscm-diffusers", "causality", "counterfactual"],
        datasets=[args.dataset_name] if on_hub else None,
    )
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    ModelCard(
        f"""---
{metadata.to_yaml()}
---

# {Path(args.hub_model_id or args.output_dir).name}

{description}

## Training

{args.max_train_steps} optimizer steps on the split `{args.train_split}` of `{data}`, by

```bash
{command}
```

with Python {platform.python_version()}, {versions}.
"""
    ).save(Path(args.output_dir, "README.md"))


def publish(args: Namespace):
    """Uploads the output folder, without checkpoints and logs, to the repository `args.hub_model_id`."""
    with explain_hub_errors(args.hub_model_id):
        HfApi().upload_folder(
            repo_id=args.hub_model_id,
            folder_path=args.output_dir,
            commit_message="Publish the trained model",
            ignore_patterns=["checkpoint-*", f"{UNFINISHED_PREFIX}*", f"{args.logging_dir}/*"],
        )
