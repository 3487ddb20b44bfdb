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
import pandas as pd
import torch
from datasets import Dataset
from diffusers.utils.torch_utils import get_device
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline, LatentVAE, figures
from diffscm_diffusers.data.splits import LabelledImages, load_splits, read_images
from diffscm_diffusers.evaluation.counterfactual_files import read_chunks
from diffscm_diffusers.evaluation.methods import METHODS
from diffscm_diffusers.evaluation.pairs import Pairs, draw_pairs
from diffscm_diffusers.training.arguments import (
    add_labelled_data_arguments,
    non_negative_float,
    non_negative_int,
    positive_int,
)


FIGURES = ["latents", "methods", "scale_search", "one_noise", "targets", "scales", "difference"]
EVALUATION_FIGURES = ["latents", "methods", "difference"]
SEARCH_FIGURES = ["scale_search"]
DATA_FIGURES = ["latents", "targets", "scales"]
NUM_ROWS = 10  # also how many classes are shown, where there are more
NUM_NOISES = 6
NUM_REFERENCES = 1000  # points of each class in the t-SNE


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "diffscm figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=FIGURES, help="What to draw. Default: all.")

    data = add_labelled_data_arguments(parser)
    data.add_argument("--split", default="test", help="Split of the factuals, or a slice of one.")
    data.add_argument("--train_split", default="train", help="Split of the real images, or a slice of one.")
    data.add_argument("--evaluation", type=Path, help="Folder that `diffscm evaluate` wrote.")
    data.add_argument("--search", type=Path, help="Folder that `diffscm search-scale` wrote.")

    models = parser.add_argument_group("models")
    models.add_argument(
        "--pretrained_model_name_or_path",
        default="checkpoints/diffscm-mnist",
        help="`DiffSCMCounterfactualPipeline`: a Hub name or a local folder.",
    )
    models.add_argument(
        "--num_inference_steps", type=positive_int, help="DDIM steps in each direction. Default: the checkpoint's."
    )
    models.add_argument(
        "--scales",
        type=non_negative_float,
        nargs="+",
        help="Guidance scales of the figure `scales`. Default: 0, and from 1/16 to 4 times the checkpoint's.",
    )
    models.add_argument(
        "--metric_models",
        default="checkpoints/diffscm-mnist-metrics",
        help="Folder that `train_metric_models.py` wrote.",
    )
    models.add_argument("--batch_size", type=positive_int, default=100, help="Images computed at once.")
    models.add_argument("--seed", type=non_negative_int, default=0, help="Seed of pairs, noises and t-SNE.")
    parser.add_argument("--output_dir", required=True, help="Where the figures are written.")
    return parser.parse_args(argv)


def check_inputs(args: argparse.Namespace):
    """Refuses what a figure lacks before anything is computed."""
    for flag, folder, file, script, users in (
        ("--evaluation", args.evaluation, "samples.csv", "evaluate.py", EVALUATION_FIGURES),
        ("--search", args.search, "search.json", "search_guidance_scale.py", SEARCH_FIGURES),
    ):
        users = [name for name in args.figures if name in users]
        if users and folder is None:
            raise ValueError(f"`{flag}` is needed for {users}: the folder that {script} wrote.")
        if users and not (folder / file).is_file():
            raise ValueError(f"`{flag}` takes a folder that {script} wrote, but {str(folder)!r} holds no {file!r}.")
    users = [name for name in args.figures if name in DATA_FIGURES]
    if users and args.dataset_name is None and args.train_data_dir is None:
        raise ValueError(f"`--dataset_name` or `--train_data_dir` is needed for {users}.")


def select_first_of_each_class(factual_class: torch.Tensor) -> torch.Tensor:
    """The number of the first pair of each class."""
    return torch.stack([torch.nonzero(factual_class == c)[0, 0] for c in factual_class.unique()[:NUM_ROWS]])


def read_evaluation(folder: Path, num_classes: int) -> tuple[Pairs, dict[str, torch.Tensor], torch.Tensor]:
    """
    Reads one pair of each class from an evaluation.

    Returns:
        `tuple`: the pairs; their factuals and every method's counterfactuals, by name; and whether the oracle sees the
        target in the counterfactuals, `(num_pairs, num_methods)`.
    """
    samples = pd.read_csv(folder / "samples.csv").sort_values("index")
    samples = {name: samples[samples["method"] == name] for name in ("factual", *METHODS)}
    missing = [name for name in ("factual", "diffscm") if len(samples[name]) == 0]
    if missing:
        raise ValueError(f"`--evaluation` takes an evaluation of {missing} too, but {str(folder)!r} has none.")
    row, factual_class, intervention = (
        torch.tensor(samples["factual"][name].to_numpy()) for name in ("row", "factual_class", "intervention")
    )
    highest = max(factual_class.max().item(), intervention.max().item())
    if highest >= num_classes:
        raise ValueError(
            f"`--pretrained_model_name_or_path` knows {num_classes} classes, but those in `--evaluation` "
            f"{str(folder)!r} go up to {highest}."
        )
    index = select_first_of_each_class(factual_class)
    pairs = Pairs(row[index], factual_class[index], intervention[index])

    images, effective = {}, []
    for name in samples:
        if len(samples[name]) > 0:
            images[name] = read_chunks(folder / "counterfactuals" / name, index.max().item() + 1)[0][index]
            effective.append(torch.tensor(samples[name]["effectiveness"].to_numpy())[index] == 1)
    return pairs, images, torch.stack(effective[1:], dim=1)


def read_factuals(
    args: argparse.Namespace, rows: Dataset, pipe: DiffSCMCounterfactualPipeline
) -> tuple[Pairs, torch.Tensor]:
    """Reads the first factual of each class, in the order in which an evaluation with this seed takes them."""
    num_classes = pipe.classifier.config.num_classes
    names = rows.features[args.label_column].names
    if len(names) != num_classes:
        raise ValueError(
            f"`--pretrained_model_name_or_path` knows {num_classes} classes, but the data set has {len(names)}."
        )
    pairs = draw_pairs(torch.tensor(rows[args.label_column][:]), num_classes, args.seed)
    index = select_first_of_each_class(pairs.factual_class)
    pairs = Pairs(pairs.row[index], pairs.factual_class[index], pairs.intervention[index])
    factuals = read_images(rows.select(pairs.row), pipe.image_shape, args.image_column, args.label_column, False)
    return pairs, factuals.images(slice(None))


def read_references(
    args: argparse.Namespace, rows: Dataset, pipe: DiffSCMCounterfactualPipeline, classes: list[int]
) -> LabelledImages:
    """Reads real images of some classes, drawn at random where there are many."""
    row_class = torch.tensor(rows[args.label_column][:])
    generator = torch.Generator().manual_seed(args.seed)
    drawn = []
    for c in classes:
        of_class = torch.nonzero(row_class == c).squeeze(1)
        if len(of_class) == 0:
            raise ValueError(f"`--train_split` {args.train_split!r} holds no image of class {c}.")
        drawn.append(of_class[torch.randperm(len(of_class), generator=generator)[:NUM_REFERENCES]])
    return read_images(rows.select(torch.cat(drawn)), pipe.image_shape, args.image_column, args.label_column, True)


def load_vae(args: argparse.Namespace) -> LatentVAE:
    try:
        return LatentVAE.from_pretrained(
            args.metric_models, subfolder="vae", cache_dir=args.cache_dir, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(
            f"`--metric_models` takes what train_metric_models.py wrote, got {args.metric_models!r}: {error}"
        ) from error


def main(argv=None):
    args = parse_args(argv)
    check_inputs(args)
    device = get_device()
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(
        args.pretrained_model_name_or_path, cache_dir=args.cache_dir, use_safetensors=True
    ).to(device)
    pipe.set_progress_bar_config(leave=False)
    names = list(pipe.classifier.id2label.values())
    classes = list(range(len(names)))[:NUM_ROWS]
    scales = args.scales
    if scales is None:
        scales = [factor * pipe.config.default_guidance_scale for factor in (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)]
    settings = {"num_inference_steps": args.num_inference_steps, "batch_size": args.batch_size}

    # Everything is read before anything is computed.
    if set(args.figures) & set(EVALUATION_FIGURES):
        evaluated, images, effective = read_evaluation(args.evaluation, len(names))
        factual_names = [names[c] for c in evaluated.factual_class.tolist()]
        target_names = [names[c] for c in evaluated.intervention.tolist()]
    if set(args.figures) & set(DATA_FIGURES):
        factual_rows, reference_rows = load_splits(args)
        pairs, factual = read_factuals(args, factual_rows, pipe)
    if "latents" in args.figures:
        vae = load_vae(args).to(device)
        shown = [evaluated.factual_class[0].item(), evaluated.intervention[0].item()]
        reference = read_references(args, reference_rows, pipe, shown)
    if "scale_search" in args.figures:
        search = json.loads((args.search / "search.json").read_text())

    with matplotlib.rc_context(figures.STYLE):
        for name in tqdm(dict.fromkeys(args.figures), "Figures"):
            if name == "latents":
                figure = figures.draw_latents(
                    vae,
                    reference.images(slice(None)),
                    reference.classes,
                    images["factual"][0],
                    images["diffscm"][0],
                    *shown,
                    names,
                    args.seed,
                )
            elif name == "methods":
                counterfactuals = {METHODS[method]: images[method] for method in METHODS if method in images}
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
                    images["diffscm"],
                    [f"{f} → {target}" for f, target in zip(factual_names, target_names, strict=True)],
                )
            figures.save_figure(figure, args.output_dir, name)
