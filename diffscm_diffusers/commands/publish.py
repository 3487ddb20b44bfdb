# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Publishes a `DiffSCMCounterfactualPipeline` checkpoint on the Hugging Face Hub, with the code that it takes to load it.

    diffscm publish --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --hub_model_id user/diffscm-mnist --variant fp16

Where `diffscm_diffusers` is installed, `DiffSCMCounterfactualPipeline.from_pretrained("user/diffscm-mnist")` takes the
code from there. Where it is not, `DiffusionPipeline.from_pretrained("user/diffscm-mnist", trust_remote_code=True)`
takes the copies in the repository. Everything is uploaded in one commit: the repository has all of it or nothing.
"""

import argparse
import inspect
import json
import re
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from huggingface_hub import CommitOperationAdd, HfApi

import diffscm_diffusers
from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.hub.model_card import make_model_card
from diffscm_diffusers.hub.publishing import explain_hub_errors


VARIANTS = {"fp16": torch.float16, "bf16": torch.bfloat16}
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "diffscm publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained_model_name_or_path", required=True, help="Folder of the checkpoint.")
    parser.add_argument("--hub_model_id", required=True, help="Repository: `user/name`, or a name under your own.")
    parser.add_argument("--private", action="store_true", help="Only those who have access to it may read it.")
    parser.add_argument("--revision", default="main", help="Branch to publish on. It is made if there is none.")
    parser.add_argument(
        "--variant",
        choices=sorted(VARIANTS),
        help="Adds the weights in this type: `from_pretrained(variant=...)`.",
    )
    parser.add_argument("--commit_message", default="Publish a Diff-SCM checkpoint", help="Message of the commit.")
    return parser.parse_args(argv)


def load_checkpoint(folder: Path) -> DiffSCMCounterfactualPipeline:
    """Loads the checkpoint, which shows that it is whole before anything of it is published."""
    if not (folder / DiffusionPipeline.config_name).is_file():
        raise ValueError(
            f"`--pretrained_model_name_or_path` takes the folder of a `DiffSCMCounterfactualPipeline` checkpoint, but "
            f"{str(folder)!r} has no `{DiffusionPipeline.config_name}`. `diffscm join-checkpoint` writes such folders."
        )
    pickles = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in PICKLES)
    if pickles:
        raise ValueError(
            f"{str(folder)!r} holds pickles, which can run any code where they are loaded: {', '.join(pickles)}. "
            "Remove them; weights are published as safetensors only."
        )
    try:
        return DiffSCMCounterfactualPipeline.from_pretrained(folder, use_safetensors=True)
    except OSError as error:
        raise ValueError(
            f"{str(folder)!r} has a missing or torn file ({error}): restore it, or save the checkpoint again."
        ) from error


def collect_files(pipeline: DiffSCMCounterfactualPipeline, folder: Path, staging: Path, variant: str | None):
    """
    Lists what the repository will hold.

    Args:
        pipeline ([`DiffSCMCounterfactualPipeline`]): The checkpoint, loaded.
        folder (`Path`): The checkpoint. Its weights are taken as they are.
        staging (`Path`): Empty folder for the files that are made here.
        variant (`str`, *optional*): A type of `VARIANTS` to add the weights in.

    Returns:
        `dict[str, Path]`: the files by their path in the repository.
    """
    for name, component in pipeline.components.items():
        if isinstance(component, SchedulerMixin):
            component.save_pretrained(staging / name)
        elif isinstance(component, ModelMixin) and variant is not None:
            component.to(VARIANTS[variant]).save_pretrained(staging / name, variant=variant)
            (staging / name / component.config_name).unlink()  # the checkpoint has it, without this disk's paths
    pipeline.save_config(staging)

    paths = {
        path.relative_to(root).as_posix(): path
        for root in (folder, staging)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }

    # Diffusers finds a class of the repository by the name of the file that it lies in.
    index = json.loads((staging / DiffusionPipeline.config_name).read_text())
    index.pop("_name_or_path", None)
    index["_class_name"] = ["pipeline", type(pipeline).__name__]
    paths["pipeline.py"] = Path(inspect.getfile(type(pipeline)))
    for name, component in pipeline.components.items():
        library, *_, module = type(component).__module__.split(".")
        if library == diffscm_diffusers.__name__:
            index[name] = [module, type(component).__name__]
            paths[f"{name}/{module}.py"] = Path(inspect.getfile(type(component)))
    (staging / DiffusionPipeline.config_name).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return paths


def main(argv=None):
    args = parse_args(argv)
    folder = Path(args.pretrained_model_name_or_path)
    pipeline = load_checkpoint(folder)
    api = HfApi()
    with tempfile.TemporaryDirectory() as staging, explain_hub_errors(args.hub_model_id):
        paths = collect_files(pipeline, folder, Path(staging), args.variant)
        repository = api.create_repo(args.hub_model_id, private=args.private, exist_ok=True)
        if args.private and not api.model_info(repository.repo_id).private:
            raise ValueError(f"`--private` was given, but {repository.repo_id!r} exists and is public.")
        if args.revision != "main":
            api.create_branch(repository.repo_id, branch=args.revision, exist_ok=True)

        # The lines of the card that load the checkpoint name its folder: here they are to name the repository.
        card = paths["README.md"].read_text() if "README.md" in paths else str(make_model_card(pipeline, folder.name))
        paths["README.md"] = Path(staging, "README.md")
        paths["README.md"].write_text(
            re.sub(r'(?<=Pipeline\.from_pretrained\()"[^"]*"', f'"{repository.repo_id}"', card)
        )
        api.create_commit(
            repository.repo_id,
            [CommitOperationAdd(name, path) for name, path in paths.items()],
            commit_message=args.commit_message,
            revision=args.revision,
        )
    print(f"Published on {repository}, branch {args.revision!r}.")
