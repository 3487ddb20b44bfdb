# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The `diffscm` command. A file that is added beside this one is a command."""

import argparse
import ast
import importlib
import sys
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser, bad_input_in_one_line
from diffscm_diffusers.refusals import refuse_early


def list_commands() -> dict[str, str]:
    """The commands and their summaries, which are read without importing what a command needs."""
    summaries = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "diffscm"):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            summaries[path.stem.replace("_", "-")] = docstring.split("\n\n")[0].replace("\n", " ")
    return summaries


def main(argv: list[str] | None = None):
    """
    Runs the command that the first argument names, with the rest. Bad input ends it with one line on stderr and status
    2, or with a traceback where the environment variable `DIFFUSERS_VERBOSITY` is `debug`.
    """
    commands = list_commands()
    width = max(map(len, commands))
    parser = ArgumentParser(
        prog="diffscm",
        description="Counterfactual images with diffusion causal models.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {summary}" for name, summary in commands.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=commands, metavar="command", help="one of those below; each has `--help`")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own arguments")
    argv = sys.argv[1:] if argv is None else argv
    command_name = parser.parse_args(argv[:1]).command

    module = command_name.replace("-", "_")
    refuse_early(Path(__file__).with_name(f"{module}.py"), argv[1:], f"diffscm {command_name}")
    command = importlib.import_module(f".{module}", __package__)
    with bad_input_in_one_line(f"diffscm {command_name}"):
        command.main(argv[1:])
