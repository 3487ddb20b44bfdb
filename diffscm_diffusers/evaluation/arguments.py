# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The command line that the evaluation scripts share, with flags spelled as in the training scripts."""

import argparse

from diffscm_diffusers.training.arguments import add_labelled_data_arguments, non_negative_int, positive_int


def add_evaluation_arguments(parser: argparse.ArgumentParser):
    """Adds data, model and output flags to a script's parser."""
    data = add_labelled_data_arguments(parser)
    data.add_argument("--split", help="Split of the factuals; slices as `train[55000:]` are taken too.")
    data.add_argument("--train_split", help="Split of the real images to compare with, or a slice of one.")
    data.add_argument("--max_samples", type=positive_int, help="How many pairs of factual and target.")
    data.add_argument("--seed", type=non_negative_int, default=0, help="Seed of pairs, random images and intervals.")

    models = parser.add_argument_group("models")
    models.add_argument(
        "--pretrained_model_name_or_path",
        default="checkpoints/diffscm-mnist",
        help="`DiffSCMCounterfactualPipeline` to evaluate: a Hub name or a local folder.",
    )
    models.add_argument(
        "--num_inference_steps", type=positive_int, help="DDIM steps in each direction. Default: the checkpoint's."
    )
    models.add_argument("--preset", help="Settings of the checkpoint, by name, instead of its defaults.")
    models.add_argument(
        "--abduction",
        choices=["source", "destination", "implicit"],
        help="How abduction's moves are made. Default: the checkpoint's.",
    )
    models.add_argument(
        "--guidance_interval",
        type=non_negative_int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="Lowest and highest timestep with guidance. Default: the checkpoint's.",
    )
    models.add_argument(
        "--scheduler",
        choices=["checkpoint", "belm", "quadratic"],
        default="checkpoint",
        help="Which moves are made: the checkpoint's, O-BELM's, which are inverted exactly, or DDIM's on "
        "quadratically spaced timesteps, which `--abduction implicit` inverts at few steps as well.",
    )
    models.add_argument(
        "--mixed_precision",
        choices=["no", "bf16"],
        default="no",
        help="`bf16` runs Diff-SCM's networks under autocast. The metric models always compute in float32.",
    )
    models.add_argument(
        "--metric_models",
        default="checkpoints/diffscm-mnist-metrics",
        help="Folder that `train_metric_models.py` wrote: VAE, autoencoders, oracle.",
    )
    models.add_argument("--oracle", help="Image classifier of transformers to use as oracle: a Hub name or a folder.")

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", required=True, help="Where everything is written; a restart goes on there.")
    output.add_argument(
        "--batch_size", type=positive_int, default=100, help="Images computed at once and written as one chunk."
    )
