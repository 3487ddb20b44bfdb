# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Writes `docs/reference/flags.md`, all flags of the commands and the training scripts.

    python docs/list_flags.py
"""

import argparse
import importlib
import sys
from pathlib import Path
from unittest import mock

from diffscm_diffusers.flags import (
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    rate,
)


# What is called otherwise on the page than its function in the code.
VALUES = {
    None: "text",
    Path: "text",
    int: "whole number",
    positive_int: "whole number, at least 1",
    non_negative_int: "whole number, at least 0",
    positive_float: "number above 0",
    non_negative_float: "number, at least 0",
    fraction: "number in [0, 1]",
    rate: "number in [0, 1)",
}
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "flags.md"
HEADER = """\
# Flags

Every flag of the `diffscm` commands and of the training scripts, `train_*.py`. A flag means the same wherever it
occurs; its default may differ. `python docs/list_flags.py` writes this page.

| flag | value | default | meaning | used by |
| --- | --- | --- | --- | --- |
"""


def load_parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command and training script, by its name."""
    sys.path.insert(0, str(ROOT / "train_scripts"))
    modules = {}
    for path in sorted((ROOT / "diffscm_diffusers" / "commands").glob("*.py")):
        if path.stem not in ("__init__", "diffscm"):
            modules[path.stem.replace("_", "-")] = f"diffscm_diffusers.commands.{path.stem}"
    for path in sorted((ROOT / "train_scripts").glob("*.py")):
        modules[path.name] = path.stem

    # They build a parser and return what it parses: here, itself.
    with mock.patch.object(argparse.ArgumentParser, "parse_args", lambda parser, argv: parser):
        return {name: importlib.import_module(module).parse_args([]) for name, module in modules.items()}


def list_flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The flags of a parser, but for `--help`. An argument without a flag is none."""
    actions = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    return {action.option_strings[-1]: action for action in actions}


def describe_value(action: argparse.Action) -> str:
    """What follows a flag."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.choices is not None:
        value = ", ".join(f"`{choice}`" for choice in action.choices)
    else:
        value = VALUES.get(action.type) or action.type.__name__.replace("_", " ")
    return f"{value}; one or more" if action.nargs == "+" else value


def describe_default(action: argparse.Action) -> str:
    """What a flag is where it is not given."""
    if action.required:
        return "required"
    if action.nargs == 0 or action.default is None:
        return ""
    values = action.default if isinstance(action.default, (list, tuple)) else [action.default]
    if action.choices is not None and list(values) == list(action.choices):
        return "all"
    return " ".join(str(value).replace(f"{ROOT}/", "") for value in values)


def make_page() -> str:
    """One row for each flag and each meaning of its own."""
    users = {}
    for name, parser in load_parsers().items():
        for flag, action in list_flags(parser).items():
            row = flag, describe_value(action), describe_default(action), action.help or ""
            users.setdefault(row, []).append(name)
    lines = []
    for (flag, *cells), names in sorted(users.items()):
        cells = [cell.replace("|", "\\|") for cell in cells]
        lines.append(" | ".join([f"| `{flag}`", *cells, ", ".join(f"`{name}`" for name in names)]) + " |\n")
    return HEADER + "".join(lines)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(make_page(), encoding="utf-8")
