# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
What commands and training scripts refuse at once, before they import what takes seconds. Nothing here imports more
than the standard library, but for the names of repositories.
"""

import __future__

import ast
import contextlib
import json
import os
import sys
from pathlib import Path

from .flags import bad_input_in_one_line


# What `parse_args` and `check_args` may use beside the standard library.
LIGHT_MODULES = ("diffscm_diffusers.flags", "diffscm_diffusers.refusals", "diffscm_diffusers.training.arguments")


def is_light(module: str) -> bool:
    """Whether a module is imported in no time."""
    return module.split(".")[0] in sys.stdlib_module_names or module in LIGHT_MODULES


def refuse_early(file: str | Path, argv: list[str] | None = None, name: str | None = None):
    """
    Refuses wrong flags of a command or a training script before the imports that its work needs. Runs its
    `parse_args`, and with the flags its `check_args` if it has one, with those imports, constants and functions of its
    file that need no more than the standard library and `LIGHT_MODULES`. What needs more is left to its `main`.

    Args:
        file (`str` or `Path`): The file of the command or script.
        argv (`list[str]`, *optional*): Its arguments. Default: the process' own.
        name (`str`, *optional*): What messages call it. Default: the file's name.

    Raises:
        SystemExit: after the help and, with one line on stderr, for wrong flags.
    """
    argv, name = sys.argv[1:] if argv is None else argv, Path(file).name if name is None else name
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    namespace = {"__doc__": ast.get_docstring(tree, clean=False), "__file__": str(file), "__name__": Path(file).stem}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if not all(map(is_light, names)):
                continue
        elif not isinstance(node, (ast.Assign, ast.FunctionDef)):
            continue
        code = compile(
            ast.Module([node], []), file, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True
        )
        # What needs a module that is left out is left out, too.
        with contextlib.suppress(NameError):
            exec(code, namespace)
    with bad_input_in_one_line(name), contextlib.suppress(NameError):
        args = namespace["parse_args"](argv)
        if "check_args" in namespace:
            namespace["check_args"](args)


def check_output_dir(output_dir: str | Path, is_new: bool = False):
    """
    Raises a `ValueError` if nothing can be written to a folder.

    Args:
        output_dir (`str` or `Path`): The folder.
        is_new (`bool`, *optional*, defaults to `False`): Whether it has to be one that does not exist yet.
    """
    folder = Path(output_dir).absolute()
    if is_new and folder.exists():
        raise ValueError(f"`--output_dir` expects a new folder, got {str(output_dir)!r}, which exists.")
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"`output_dir` expects a folder to write to, got {str(folder)!r}: cannot write {existing}.")


def check_data_source(
    dataset_name: str | Path | None, train_data_dir: str | Path | None, dataset_config_name: str | None = None
):
    """
    Raises a `ValueError` if a data set is not named in one way, or is a folder that does not exist. The arguments are
    those of `load_image_dataset`.
    """
    if (dataset_name is None) == (train_data_dir is None):
        raise ValueError(
            "Exactly one of `dataset_name` and `train_data_dir` is expected, got "
            f"{dataset_name!r} and {train_data_dir!r}."
        )
    if dataset_config_name is not None and dataset_name is None:
        raise ValueError(f"`dataset_config_name` expects `dataset_name` beside it, got {dataset_config_name!r} alone.")
    if train_data_dir is not None and not os.path.isdir(train_data_dir):
        raise ValueError(f"`train_data_dir` expects a folder of images, got {str(train_data_dir)!r}.")
    if dataset_name is not None and is_missing_path(dataset_name):
        raise ValueError(
            f"`dataset_name` expects a data set of images, got {str(dataset_name)!r}: there is no such file or folder."
        )


def is_missing_path(name_or_path: str | Path) -> bool:
    """Whether something that can be no name on the Hub, which has at most one slash, is no path either."""
    text = str(name_or_path)
    is_path = text.count("/") > 1 or text.startswith((".", "/", "~")) or text.endswith(("/", ".json"))
    return is_path and not os.path.exists(text)


def check_name_or_path(flag: str, name_or_path: str | Path | None, expected: str):
    """
    Raises a `ValueError` if a flag got a path where nothing is. A name on the Hub is not looked up.

    Args:
        flag (`str`): The flag, without dashes.
        name_or_path (`str` or `Path`, *optional*): What it got.
        expected (`str`): What it expects.
    """
    if name_or_path is not None and is_missing_path(name_or_path):
        raise ValueError(f"`--{flag}` expects {expected}, got {str(name_or_path)!r}: there is no such file or folder.")


def check_checkpoint(name_or_path: str | Path):
    """Raises a `ValueError` if `--pretrained_model_name_or_path` is neither a pipeline's folder nor a Hub name."""
    expected = "the Hub name or folder of a pipeline's checkpoint"
    check_name_or_path("pretrained_model_name_or_path", name_or_path, expected)
    if os.path.exists(name_or_path) and not Path(name_or_path, "model_index.json").is_file():
        raise ValueError(
            f"`--pretrained_model_name_or_path` expects {expected}, got {str(name_or_path)!r}, which has no "
            "`model_index.json`."
        )


def check_evaluation(flags: dict):
    """
    Raises a `ValueError` if flags of commands that score counterfactuals cannot be used.

    Args:
        flags (`dict`): All flags of the command, `vars(args)`, with those of `add_evaluation_arguments`.
    """
    check_data_source(flags["dataset_name"], flags["train_data_dir"], flags["dataset_config_name"])
    check_checkpoint(flags["pretrained_model_name_or_path"])
    check_name_or_path("metric_models", flags["metric_models"], "what train_metric_models.py wrote")
    check_name_or_path("oracle", flags["oracle"], "an image classifier of transformers, a Hub name or a folder")
    interval = flags["guidance_interval"]
    if interval is not None and interval[0] > interval[1]:
        raise ValueError(f"`--guidance_interval` expects two timesteps, the lower first, got {interval}.")
    check_output_dir(flags["output_dir"])


def check_file(flag: str, path: str | Path, expected: str):
    """Raises a `ValueError` if a flag's file does not exist. `expected` says what the flag expects."""
    if not Path(path).is_file():
        raise ValueError(f"`--{flag}` expects {expected}, got {str(path)!r}: there is no such file.")


def check_json(flag: str, path: str | Path, expected: str):
    """Raises a `ValueError` if a flag's file is none or holds no JSON object. `expected` says what it expects."""
    check_file(flag, path, expected)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"`--{flag}` expects {expected}, got {str(path)!r}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"`--{flag}` expects {expected}, got {str(path)!r}, JSON of a {type(content).__name__}.")


def check_repository_name(name: str, argument: str):
    """Raises an error if there can be no repository of this name, `"user/name"` or a name under one's own."""
    # Not above: it takes a second to import, and few runs publish.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not isinstance(name, str):
        raise TypeError(f"`{argument}` expects the name of a repository, got {name!r}.")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"`{argument}` expects the name of a repository, got {name!r}: {error}") from error


def check_publication(flags: dict, name_flag: str = "hub_model_id"):
    """
    Raises a `ValueError` if flags on publishing do not fit together, or if no repository can have the name.

    Args:
        flags (`dict`): All flags of a script, `vars(args)`.
        name_flag (`str`, *optional*, defaults to `"hub_model_id"`): The flag with the name.
    """
    for flag in (name_flag, "hub_private_repo"):
        if flags.get(flag) and not flags["push_to_hub"]:
            raise ValueError(f"`{flag}` expects `--push_to_hub` beside it, got {flags[flag]!r} alone.")
    if flags["push_to_hub"]:
        check_repository_name(flags[name_flag] or Path(flags["output_dir"]).resolve().name, name_flag)
