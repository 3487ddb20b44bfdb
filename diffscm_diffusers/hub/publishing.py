# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Uploads to the Hub, and what to do where they fail."""

import inspect
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from huggingface_hub import CommitOperationAdd, HfApi, RepoUrl
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

import diffscm_diffusers
from diffscm_diffusers import pipelines
from diffscm_diffusers.checksums import CHECKSUMS_NAME, write_checksums
from diffscm_diffusers.files import LOCK_NAME, UNFINISHED_PREFIX
from diffscm_diffusers.hub.cards import make_graph_card, make_pipeline_card
from diffscm_diffusers.refusals import check_repository_name


VARIANTS = {"fp16": torch.float16, "bf16": torch.bfloat16}
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


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
                f"{repo_id!r} cannot be published: the Hub got no valid token. Log in with `hf auth login`, or set "
                "`HF_TOKEN` to a token with write access (https://huggingface.co/settings/tokens)."
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


def create_repository(
    name: str | None, output_dir: str | Path, repo_type: str = "model", private: bool | None = None
) -> str:
    """
    Makes the repository that a run will publish to, before the run, so that a missing login shows early.

    Args:
        name (`str`, *optional*): The repository, `"user/name"` or a name under one's own. Default: that of the folder.
        output_dir (`str` or `Path`): The folder that will be published.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        private (`bool`, *optional*): Whether a new repository is private. Default: the account's setting.

    Returns:
        `str`: the repository's full name.

    Raises:
        ValueError: if no repository can have this name.
        PermissionError, FileNotFoundError, ConnectionError: see [`explain_hub_errors`].
    """
    if repo_type not in ("model", "dataset"):
        raise ValueError(f"`repo_type` expects 'model' or 'dataset', got {repo_type!r}.")
    name = Path(output_dir).resolve().name if name is None else name
    check_repository_name(name, "name")
    with explain_hub_errors(name):
        return HfApi().create_repo(name, repo_type=repo_type, private=private, exist_ok=True).repo_id


def upload_folder(
    folder: str | Path,
    repo_id: str,
    commit_message: str,
    repo_type: str = "model",
    allow_patterns: list[str] | None = None,
    ignore_patterns: list[str] | None = None,
):
    """
    Uploads a folder in one commit, without unfinished files.

    Args:
        folder (`str` or `Path`): The folder.
        repo_id (`str`): The repository's full name; see [`create_repository`].
        commit_message (`str`): Message of the commit.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        allow_patterns (`list[str]`, *optional*): The files to upload. Default: all.
        ignore_patterns (`list[str]`, *optional*): Files to leave out.

    Raises:
        PermissionError, FileNotFoundError, ConnectionError: see [`explain_hub_errors`].
    """
    with explain_hub_errors(repo_id):
        HfApi().upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder,
            commit_message=commit_message,
            allow_patterns=allow_patterns,
            ignore_patterns=[f"{UNFINISHED_PREFIX}*", LOCK_NAME, *(ignore_patterns or [])],
        )


def load_checkpoint(folder: str | Path) -> DiffusionPipeline:
    """
    Loads a checkpoint that is to be published, which shows that it is whole.

    Args:
        folder (`str` or `Path`): The checkpoint.

    Raises:
        ValueError: if it is no checkpoint of a pipeline, if it holds pickles, or if a file is missing or torn.
    """
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"`pretrained_model_name_or_path` expects a folder, got {folder!r}.")
    folder = Path(folder)
    if not (folder / DiffusionPipeline.config_name).is_file():
        raise ValueError(
            "`pretrained_model_name_or_path` expects the folder of a pipeline's checkpoint, got "
            f"{str(folder)!r}, which has no `{DiffusionPipeline.config_name}`. `diffscm join-checkpoint` writes such "
            "folders."
        )
    try:
        name = json.loads((folder / DiffusionPipeline.config_name).read_text()).get("_class_name")
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"`pretrained_model_name_or_path` expects a pipeline's checkpoint, got {str(folder)!r}, whose "
            f"`{DiffusionPipeline.config_name}` is none: {error}"
        ) from error
    name = name[-1] if isinstance(name, list) else name  # a list in a checkpoint that was published
    if name not in pipelines.__all__:
        raise ValueError(
            "`pretrained_model_name_or_path` expects a checkpoint of a pipeline of this package, got "
            f"{str(folder)!r}, a checkpoint of {name}."
        )
    pickles = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in PICKLES)
    if pickles:
        raise ValueError(
            f"{str(folder)!r} holds pickles, which can run any code where they are loaded: {', '.join(pickles)}. "
            "Remove them; weights are published as safetensors only."
        )
    try:
        return getattr(pipelines, name).from_pretrained(folder, use_safetensors=True)
    except OSError as error:
        raise ValueError(
            f"`pretrained_model_name_or_path` expects a whole checkpoint, got {str(folder)!r}, which has a missing or "
            f"torn file ({error}): restore it, or save the checkpoint again."
        ) from error


def collect_files(pipeline: DiffusionPipeline, folder: Path, staging: Path, variant: str | None) -> dict[str, Path]:
    """
    Lists what the repository of a checkpoint holds: its files, and the code that loads them without this package.

    Args:
        pipeline ([`DiffusionPipeline`]): The checkpoint, loaded.
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
        library, *modules = type(component).__module__.split(".")
        if library != diffscm_diffusers.__name__:  # also of an optional one, None
            continue
        source = Path(inspect.getfile(type(component)))
        if re.search(r"^from \.", source.read_text(), re.MULTILINE):
            # It needs more of the package than its own file. The index names the package, as will the error without.
            index[name] = [library, type(component).__name__]
        else:
            index[name] = [modules[-1], type(component).__name__]
            paths[f"{name}/{modules[-1]}.py"] = source
    (staging / DiffusionPipeline.config_name).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    write_checksums(staging, {name: path for name, path in paths.items() if name.endswith(".safetensors")})
    paths[CHECKSUMS_NAME] = staging / CHECKSUMS_NAME
    return paths


def publish_checkpoint(
    folder: str | Path,
    hub_model_id: str,
    private: bool = False,
    revision: str = "main",
    variant: str | None = None,
    commit_message: str = "Publish a Diff-SCM checkpoint",
) -> RepoUrl:
    """
    Publishes the checkpoint of a pipeline, in one commit, with the code that it takes to load it.

    Args:
        folder (`str` or `Path`): The checkpoint.
        hub_model_id (`str`): Repository, `"user/name"` or a name under one's own. It is made if there is none.
        private (`bool`, *optional*, defaults to `False`): Whether only those who have access to it may read it.
        revision (`str`, *optional*, defaults to `"main"`): Branch to publish on. It is made if there is none.
        variant (`str`, *optional*): `"fp16"` or `"bf16"`, to add the weights in this type.
        commit_message (`str`, *optional*): Message of the commit.

    Returns:
        `huggingface_hub.RepoUrl`: the repository.

    Raises:
        ValueError, TypeError: as [`load_checkpoint`], if an argument is out of its range, and if `private` is `True`
            and the repository exists and is public.
        PermissionError, FileNotFoundError, ConnectionError: see [`explain_hub_errors`].
    """
    check_repository_name(hub_model_id, "hub_model_id")
    for name, text in (("revision", revision), ("commit_message", commit_message)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"`{name}` expects text, got {text!r}.")
    if variant is not None and variant not in VARIANTS:
        raise ValueError(f"`variant` expects one of {sorted(VARIANTS)}, got {variant!r}.")
    if not isinstance(private, bool):
        raise TypeError(f"`private` expects True or False, got {private!r}.")
    pipeline = load_checkpoint(folder)
    folder = Path(folder)
    api = HfApi()
    with tempfile.TemporaryDirectory() as staging, explain_hub_errors(hub_model_id):
        paths = collect_files(pipeline, folder, Path(staging), variant)
        repository = api.create_repo(hub_model_id, private=private, exist_ok=True)
        if private and not api.model_info(repository.repo_id).private:
            raise ValueError(f"`private` expects a new or private repository, but {repository.repo_id!r} is public.")
        if revision != "main":
            api.create_branch(repository.repo_id, branch=revision, exist_ok=True)

        # The lines of the card that load the checkpoint name its folder: here they are to name the repository.
        make_card = make_graph_card if "scm" in pipeline.components else make_pipeline_card
        card = paths["README.md"].read_text() if "README.md" in paths else str(make_card(pipeline, folder.name))
        paths["README.md"] = Path(staging, "README.md")
        paths["README.md"].write_text(
            re.sub(r'(?<=Pipeline\.from_pretrained\()"[^"]*"', f'"{repository.repo_id}"', card)
        )
        api.create_commit(
            repository.repo_id,
            [CommitOperationAdd(name, path) for name, path in paths.items()],
            commit_message=commit_message,
            revision=revision,
        )
    return repository
