# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Draws the paper's figures, each as PNG and PDF.

    diffscm figures --dataset_name ylecun/mnist \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist --metric_models checkpoints/diffscm-mnist-metrics \
        --evaluation outputs/evaluation --search outputs/search --output_dir outputs/figures

| figure | shows | needs |
| --- | --- | --- |
| `latents` | a factual and its counterfactual in the VAE's latent space (Fig. 3a) | `--evaluation`, VAE, data |
| `methods` | the methods side by side (Fig. 3b) | `--evaluation` |
| `scale_search` | CLD, effectiveness and L1 against the guidance scale (Fig. 4) | `--search` |
| `one_noise` | one exogenous noise, every class (Fig. 5) | |
| `targets` | each factual under every intervention (Fig. 6) | data |
| `scales` | counterfactuals of growing guidance scale (Fig. 7) | data |
| `difference` | where the cause acts: counterfactual - factual | `--evaluation` |

Factuals are not picked: of each class, the first one among the evaluation's pairs. With the evaluation's data and seed
all figures show the same ones.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from diffusers.utils.torch_utils import get_device
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline, LatentVAE, figures
from diffscm_diffusers.data.classes import unique_names
from diffscm_diffusers.data.images import ImageCollator, load_flagged_dataset
from diffscm_diffusers.data.splits import select_rows
from diffscm_diffusers.evaluation.methods import METHODS
from diffscm_diffusers.figures.inputs import read_evaluation, read_factuals, read_references, spread
from diffscm_diffusers.files import load_whole, locked
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_data_arguments,
    non_negative_float,
    non_negative_int,
    positive_int,
    value_of_checkpoint,
)
from diffscm_diffusers.refusals import check_checkpoint, check_data_source, check_output_dir


FIGURES = ["latents", "methods", "scale_search", "one_noise", "targets", "scales", "difference"]
EVALUATION_FIGURES = ["latents", "methods", "difference"]
SEARCH_FIGURES = ["scale_search"]
DATA_FIGURES = ["latents", "targets", "scales"]
NUM_ROWS = 10  # also how many classes are shown, where there are more
NUM_NOISES = 6
NUM_REFERENCES = 1000  # points of each class in the t-SNE


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="What to draw. Default: all.")

    data = add_data_arguments(parser)
    data.add_argument("--split", default="test", help="Split of the factuals, or slices of splits.")
    data.add_argument("--train_split", default="train", help="Split of the real images, or slices of splits.")
    data.add_argument("--evaluation", help="Folder that `diffscm evaluate` wrote.")
    data.add_argument("--search", help="Folder that `diffscm search-scale` wrote.")

    models = parser.add_argument_group("models")
    models.add_argument(
        "--pretrained_model_name_or_path",
        default="checkpoints/diffscm-mnist",
        help="`DiffSCMCounterfactualPipeline`: a Hub name or a local folder.",
    )
    models.add_argument(
        "--num_inference_steps", type=positive_int, help="Steps in each direction. Default: the checkpoint's."
    )
    models.add_argument(
        "--guidance_scales",
        type=non_negative_float,
        nargs="+",
        help="Guidance scales of the figure `scales`. Default: 0, and from 1/16 to 4 times the checkpoint's.",
    )
    models.add_argument(
        "--metric_models",
        default="checkpoints/diffscm-mnist-metrics",
        help="What `train_metric_models.py` wrote: a Hub name or a local folder.",
    )
    models.add_argument("--batch_size", type=positive_int, default=100, help="Images that the networks see at once.")
    models.add_argument("--seed", type=non_negative_int, default=0, help="Seed of pairs, noises and t-SNE.")
    parser.add_argument("--output_dir", required=True, help="Where the figures are written.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for what a figure lacks, and for flags that cannot be used."""
    for flag, folder, file, command, users in (
        ("--evaluation", args.evaluation, "samples.csv", "diffscm evaluate", EVALUATION_FIGURES),
        ("--evaluation", args.evaluation, "summary.json", "diffscm evaluate", EVALUATION_FIGURES),
        ("--search", args.search, "search.json", "diffscm search-scale", SEARCH_FIGURES),
    ):
        users = [name for name in args.figures if name in users]
        if users and folder is None:
            raise ValueError(f"`{flag}` is needed for {users}: the folder that `{command}` wrote.")
        if users and not Path(folder, file).is_file():
            raise ValueError(f"`{flag}` expects a folder that `{command}` wrote, but {folder!r} holds no {file!r}.")
    users = [name for name in args.figures if name in DATA_FIGURES]
    if users and args.dataset_name is None and args.train_data_dir is None:
        raise ValueError(f"`--dataset_name` or `--train_data_dir` is needed for {users}.")
    if args.dataset_name is not None or args.train_data_dir is not None:
        check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    check_checkpoint(args.pretrained_model_name_or_path)
    check_output_dir(args.output_dir)


def main(argv=None):
    args = parse_args(argv)
    check_args(args)

    # 1. Load everything before anything is computed
    device = get_device()
    with value_of_checkpoint(args.pretrained_model_name_or_path):
        pipe = DiffSCMCounterfactualPipeline.from_pretrained(
            args.pretrained_model_name_or_path, cache_dir=args.cache_dir, use_safetensors=True
        ).to(device)
    pipe.set_progress_bar_config(leave=False)
    names = unique_names(pipe.classifier.id2label)
    classes = spread(len(names), NUM_ROWS)
    scales = args.guidance_scales
    if scales is None:
        scales = [factor * pipe.config.default_guidance_scale for factor in (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)]
    if set(args.figures) & set(EVALUATION_FIGURES):
        evaluated, images, effective = read_evaluation(Path(args.evaluation), names, NUM_ROWS)
        factual_names = [names[c] for c in evaluated.factual_class.tolist()]
        target_names = [names[c] for c in evaluated.intervention.tolist()]
    if set(args.figures) & set(DATA_FIGURES):
        splits = load_flagged_dataset(args, label_column=args.label_column)
        channels, height, _ = pipe.image_shape
        collate = ImageCollator(height, channels, args.image_column, args.label_column)
        pairs, factual = read_factuals(select_rows(splits, args.split), collate, names, args.seed, NUM_ROWS)
        factual = factual.images(slice(None))
    if "latents" in args.figures:
        try:
            vae = load_whole(LatentVAE, args.metric_models, subfolder="vae", cache_dir=args.cache_dir).to(device)
        except OSError as error:
            raise ValueError(
                f"`--metric_models` expects what train_metric_models.py wrote, got {args.metric_models!r}: {error}"
            ) from error
        shown = [evaluated.factual_class[0].item(), evaluated.intervention[0].item()]
        rows = select_rows(splits, args.train_split, "train_split")
        reference = read_references(rows, collate, names, shown, NUM_REFERENCES, args.seed)
    if "scale_search" in args.figures:
        search = json.loads(Path(args.search, "search.json").read_text())

    # 2. Draw
    settings = {"num_inference_steps": args.num_inference_steps, "batch_size": args.batch_size}
    with locked(args.output_dir), matplotlib.rc_context(figures.STYLE):
        for name in tqdm(dict.fromkeys(args.figures), "Figures"):
            if name == "latents":
                figure = figures.draw_latents(
                    vae,
                    reference.images(slice(None)),
                    reference.classes,
                    images["factual"][0],
                    images["diff-scm"][0],
                    *shown,
                    names,
                    args.seed,
                )
            elif name == "methods":
                counterfactuals = {METHODS[method].label: images[method] for method in images if method != "factual"}
                figure = figures.draw_methods(images["factual"], counterfactuals, target_names, effective)
            elif name == "scale_search":
                figure = figures.draw_scale_search(search)
            elif name == "one_noise":
                figure = figures.draw_one_noise(pipe, NUM_NOISES, classes, args.seed, **settings)
            elif name == "targets":
                figure = figures.draw_targets(pipe, factual, pairs.factual_class, classes, **settings)
            elif name == "scales":
                figure = figures.draw_scales(pipe, factual, pairs.intervention, scales, **settings)
            elif name == "difference":
                figure = figures.draw_difference(
                    images["factual"],
                    images["diff-scm"],
                    [f"{f} → {target}" for f, target in zip(factual_names, target_names, strict=True)],
                )
            figures.save_figure(figure, args.output_dir, name)
