# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The `diffscm` command. Only the command that is asked for is imported."""

import argparse
import importlib


COMMANDS = {
    "card": "write a checkpoint's model card",
    "convert-adm": "convert the public ImageNet weights (ADM) into a checkpoint",
    "evaluate": "compare counterfactual methods on the same pairs of factual and intervention",
    "figures": "draw the paper's figures",
    "generate": "make a data set of counterfactuals",
    "join-checkpoint": "join a trained denoiser and a trained anti-causal predictor",
    "make-world": "make a data set of a world that knows its true counterfactuals",
    "publish": "publish a checkpoint on the Hub",
    "search-scale": "search the guidance scale by the counterfactual latent divergence",
}


def main(argv: list[str] | None = None):
    """Runs the command that the first argument names, with the rest. An error in them ends with status 2."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="diffscm",
        description="Counterfactual images with diffusion causal models.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below; each has `--help`")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own arguments")
    args = parser.parse_args(argv)

    command = importlib.import_module(f".{args.command.replace('-', '_')}", __package__)
    try:
        command.main(args.arguments)
    except ValueError as error:
        parser.exit(2, f"diffscm {args.command}: error: {error}\n")
