# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Publishes a checkpoint on the Hugging Face Hub, with the code that loads it.

    diffscm publish --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --hub_model_id user/diffscm-mnist --variant fp16

Where `diffscm_diffusers` is installed, `DiffSCMCounterfactualPipeline.from_pretrained("user/diffscm-mnist")` takes the
code from there. Where it is not, `DiffusionPipeline.from_pretrained("user/diffscm-mnist", trust_remote_code=True)`
takes the copies in the repository. Everything is uploaded in one commit: the repository has all of it or nothing.
"""

import argparse
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser
from diffscm_diffusers.hub.publishing import publish_checkpoint
from diffscm_diffusers.refusals import check_repository_name


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained_model_name_or_path", required=True, help="Folder of the checkpoint.")
    parser.add_argument("--hub_model_id", required=True, help="Repository: `user/name`, or a name under your own.")
    parser.add_argument("--hub_private_repo", action="store_true", help="Make that repository a private one.")
    parser.add_argument("--revision", default="main", help="Branch to publish on. It is made if there is none.")
    parser.add_argument(
        "--variant",
        choices=["bf16", "fp16"],
        help="Adds the weights in this type: `from_pretrained(variant=...)`.",
    )
    parser.add_argument("--commit_message", default="Publish a Diff-SCM checkpoint", help="Message of the commit.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used."""
    check_repository_name(args.hub_model_id, "hub_model_id")
    folder = Path(args.pretrained_model_name_or_path)
    if not folder.is_dir():
        raise ValueError(f"`--pretrained_model_name_or_path` expects a checkpoint's folder, got {str(folder)!r}.")


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    repository = publish_checkpoint(
        args.pretrained_model_name_or_path,
        args.hub_model_id,
        private=args.hub_private_repo,
        revision=args.revision,
        variant=args.variant,
        commit_message=args.commit_message,
    )
    print(f"Published on {repository}, branch {args.revision!r}.")
