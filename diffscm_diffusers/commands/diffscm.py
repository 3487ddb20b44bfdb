# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The `diffscm` command. A file that is added beside this one is a command."""

import __future__

import argparse
import ast
import importlib
import sys
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser, bad_input_in_one_line


# What a command's `parse_args` may use before the command is imported.
LIGHT_MODULES = ("argparse", "pathlib", "diffscm_diffusers.flags")


def list_commands() -> dict[str, str]:
    """The commands and their summaries, which are read without importing what a command needs."""
    summaries = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "diffscm"):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            summaries[path.stem.replace("_", "-")] = docstring.split("\n\n")[0].replace("\n", " ")
    return summaries


def parse_early(path: Path, arguments: list[str]):
    """
    Runs the `parse_args` of a command alone, so that `--help` and wrong flags need not wait for PyTorch: with the
    imports, the constants and the functions of its file that cost no time. One that uses more is run with its module.

    Args:
        path (`Path`): The command's file.
        arguments (`list[str]`): Its arguments.

    Raises:
        SystemExit: as `argparse` does, after the help and for wrong flags.
    """

    def is_light(node: ast.stmt) -> bool:
        if isinstance(node, ast.Import):
            return all(alias.name in LIGHT_MODULES for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            return node.module in LIGHT_MODULES
        if isinstance(node, ast.Assign):
            return not any(isinstance(part, (ast.Attribute, ast.Call, ast.Name)) for part in ast.walk(node.value))
        return isinstance(node, ast.FunctionDef) and not node.decorator_list

    tree = ast.parse(path.read_text(encoding="utf-8"))
    namespace = {"__doc__": ast.get_docstring(tree, clean=False)}
    tree.body = [node for node in tree.body if is_light(node)]
    try:
        exec(compile(tree, path, "exec", flags=__future__.annotations.compiler_flag), namespace)
        namespace["parse_args"](arguments)
    except NameError:
        pass


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
    parse_early(Path(__file__).with_name(f"{module}.py"), argv[1:])
    command = importlib.import_module(f".{module}", __package__)
    with bad_input_in_one_line(f"diffscm {command_name}"):
        command.main(argv[1:])
