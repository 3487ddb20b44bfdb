# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The `diffscm` command. A file that is added beside this one is a command."""

import argparse
import ast
import importlib
import os
from pathlib import Path


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
    parser = argparse.ArgumentParser(
        prog="diffscm",
        description="Counterfactual images with diffusion causal models.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {summary}" for name, summary in commands.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=commands, metavar="command", help="one of those below; each has `--help`")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own arguments")
    args = parser.parse_args(argv)

    command = importlib.import_module(f".{args.command.replace('-', '_')}", __package__)
    try:
        command.main(args.arguments)
    except (OSError, TypeError, ValueError) as error:
        if os.environ.get("DIFFUSERS_VERBOSITY") == "debug":
            raise
        # Messages of other libraries have several lines.
        parser.exit(2, f"diffscm {args.command}: error: {' '.join(str(error).split())}\n")
