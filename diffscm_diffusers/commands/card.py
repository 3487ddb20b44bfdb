# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Writes the model card of a checkpoint, `README.md` in its folder.

    diffscm card --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --cause digit --effect "handwritten digit" --dataset_name ylecun/mnist --license apache-2.0 \
        --evaluation outputs/evaluation --picture outputs/mnist_counterfactuals.png

Of a card that is there already, the sections *Training* and *Limits* are kept; all else is made anew. The card of a
graph's checkpoint draws the graph, and keeps the section *Results* too.
"""

import argparse
import json
import shutil
from pathlib import Path

from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import ArgumentParser
from diffscm_diffusers.hub.cards import make_graph_card, make_pipeline_card, read_section, save_card
from diffscm_diffusers.hub.publishing import load_checkpoint
from diffscm_diffusers.refusals import check_file


def parse_args(argv=None):
    parser = ArgumentParser("diffscm card", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", required=True, help="Folder of the checkpoint.")
    parser.add_argument("--cause", default="class", help="What the classes are, in a word or two.")
    parser.add_argument("--effect", default="image", help="What the images show, in a word or two.")
    parser.add_argument("--dataset_name", help="The training data's name on the Hub.")
    parser.add_argument("--license", help="The weights' licence, by the Hub's name for it.")
    parser.add_argument(
        "--evaluation", help="Folder that `diffscm evaluate` wrote. Default: the card tells no results."
    )
    parser.add_argument("--picture", help="Picture of factuals and counterfactuals. It is copied into the checkpoint.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used."""
    folder = Path(args.pretrained_model_name_or_path)
    if not folder.is_dir():
        raise ValueError(f"`--pretrained_model_name_or_path` expects a checkpoint's folder, got {str(folder)!r}.")
    if args.picture is not None:
        check_file("picture", args.picture, "a file")
    if args.evaluation is not None and not Path(args.evaluation, "summary.json").is_file():
        raise ValueError(
            f"`--evaluation` expects a folder that `diffscm evaluate` wrote, got {args.evaluation!r}: it has no "
            "'summary.json'."
        )


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    folder = Path(args.pretrained_model_name_or_path)
    summary = None
    if args.evaluation is not None:
        summary = json.loads(Path(args.evaluation, "summary.json").read_text())

    pipeline = load_checkpoint(folder)
    path = folder / "README.md"
    old = path.read_text() if path.exists() else ""
    shared = {
        "name": args.pretrained_model_name_or_path,
        "effect": args.effect,
        "dataset": args.dataset_name,
        "license": args.license,
        "picture": None if args.picture is None else Path(args.picture).name,
        "training": read_section(old, "Training"),
        "limits": read_section(old, "Limits"),
    }
    if "scm" in pipeline.components:
        if summary is not None:
            raise ValueError("`--evaluation` expects a checkpoint of one class, got one of a graph.")
        card = make_graph_card(pipeline, results=read_section(old, "Results"), **shared)
    else:
        card = make_pipeline_card(pipeline, cause=args.cause, summary=summary, **shared)
    if args.picture is not None:
        with written_whole(folder / Path(args.picture).name) as unfinished:
            shutil.copyfile(args.picture, unfinished)
    save_card(card, folder)
