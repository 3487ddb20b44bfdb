# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Estimates the total, direct and indirect effect of an intervention, on attributes and images.

    diffscm effects --pretrained_model_name_or_path outputs/thickness \
        --dataset_name outputs/morpho-mnist --split test --do thickness=4.0 \
        --max_samples 6 --output_dir outputs/effects

Factuals are images with their attributes, in columns named as the graph's nodes; parents of the image without a column
are read off it. Writes `effects.json`, with the mean over draws and the interval that holds 95 % of them, and the
pictures `effects.png` and `effects.pdf`.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import torch
from datasets import ClassLabel
from diffusers.utils.torch_utils import get_device

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.image_files import NumberedRow
from diffscm_diffusers.data.images import ImageCollator, load_flagged_dataset, read_attributes
from diffscm_diffusers.data.splits import select_rows
from diffscm_diffusers.evaluation.effects import estimate_effects
from diffscm_diffusers.figures import STYLE, draw_effects, save_figure
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.finite import check_finite_numbers
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_data_arguments,
    non_negative_int,
    positive_int,
    value_of_checkpoint,
)
from diffscm_diffusers.refusals import check_checkpoint, check_data_source, check_output_dir


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm effects", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = add_data_arguments(parser, labels=False)
    data.add_argument(
        "--split", default="test", help="Split of the factuals, or slices of splits, such as `train[55000:]`."
    )
    data.add_argument("--max_samples", type=positive_int, default=6, help="How many factuals at most. Default: all.")

    model = parser.add_argument_group("causal model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        required=True,
        help="`DiffSCMGraphCounterfactualPipeline`: a Hub name or a local folder.",
    )
    model.add_argument(
        "--do",
        required=True,
        nargs="+",
        help="The intervention: one or several of `attribute=value`, in the graph's units.",
    )
    model.add_argument("--num_draws", type=positive_int, default=8, help="Draws of each factual's exogenous noise.")
    model.add_argument(
        "--num_inference_steps", type=positive_int, help="Steps in each direction. Default: the checkpoint's."
    )
    model.add_argument("--seed", type=non_negative_int, default=0, help="Seed of the draws.")
    model.add_argument("--batch_size", type=positive_int, default=100, help="Images that the networks see at once.")
    parser.add_argument("--output_dir", required=True, help="Where the effects are written.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used."""
    check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    check_checkpoint(args.pretrained_model_name_or_path)
    check_output_dir(args.output_dir)
    split_intervention(args.do)


def split_intervention(texts: list[str]) -> dict[str, str]:
    """Splits each `attribute=value`."""
    do = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name in do:
            raise ValueError(f"`--do` expects `attribute=value`, each attribute once, got {text!r}.")
        do[name] = value
    return do


def read_intervention(texts: list[str], graph: CausalGraph) -> dict[str, float | str]:
    """Reads `attribute=value`; the values of categories stay text, their labels."""
    do = split_intervention(texts)
    for name, value in do.items():
        graph.check_names(name, "--do")
        try:
            do[name] = float(value) if graph.nodes[name].kind == "continuous" else value
        except ValueError as error:
            raise ValueError(f"`--do` expects a number as value of {name!r}, got {value!r}.") from error
    graph.check_values(do, 1, "do")
    return do


def describe(draws: torch.Tensor) -> dict[str, float]:
    """Mean and 95 % interval over draws, the first axis."""
    low, high = torch.quantile(draws.double(), torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0).tolist()
    return {"mean": draws.double().mean(dim=0).item(), "low": low, "high": high}


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    with value_of_checkpoint(args.pretrained_model_name_or_path):
        pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(
            args.pretrained_model_name_or_path, cache_dir=args.cache_dir, use_safetensors=True
        ).to(get_device())
    pipe.set_progress_bar_config(leave=False)
    graph = pipe.scm.graph
    do = read_intervention(args.do, graph)

    # 1. Factuals
    splits = load_flagged_dataset(args)
    rows = select_rows(splits, args.split)
    rows = rows.select(range(min(len(rows), args.max_samples)))
    channels, height, _ = pipe.image_shape
    collate = ImageCollator(height, channels, args.image_column)
    images = collate([NumberedRow(row, f"row {i}") for i, row in enumerate(rows)])["pixel_values"] / 2 + 0.5
    columns = {}
    for name in graph.attributes:
        if name in rows.features:
            feature = rows.features[name]
            # By name, as the graph may list the classes in another order.
            columns[name] = [feature.int2str(c) if isinstance(feature, ClassLabel) else c for c in rows[name]]
    attributes = read_attributes(columns, graph, f"the split {args.split!r}")

    with locked(args.output_dir):
        # 2. Effects
        factual, effects = estimate_effects(
            pipe,
            images,
            attributes,
            do,
            num_draws=args.num_draws,
            num_inference_steps=args.num_inference_steps,
            generator=torch.Generator().manual_seed(args.seed),
            batch_size=args.batch_size,
        )
        is_number = {name: graph.nodes[name].labels is None for name in graph.attributes}

        def read(name, value):
            return value.item() if is_number[name] else graph.nodes[name].labels[value.item()]

        results = []
        for i in range(len(images)):
            result = {"factual": {name: read(name, value[i]) for name, value in factual.items()}}
            for kind, effect in effects.items():
                changes = {}
                for name, values in effect.attributes.items():
                    if is_number[name]:
                        changes[name] = describe(values[:, i] - factual[name][i])
                    else:  # how often the draws have each category
                        drawn = [read(name, value) for value in values[:, i]]
                        changes[name] = {label: drawn.count(label) / len(drawn) for label in sorted(set(drawn))}
                difference = (effect.images[:, i].cpu() - images[i]).abs().mean(dim=(1, 2, 3))
                result[kind] = {"attributes": changes, "image": describe(difference)}
            results.append(result)
        check_finite_numbers(results, "factuals")

        # 3. Files
        title = ", ".join(
            f"{name} = {value:g}" if is_number[name] else f"{name} = {value}" for name, value in do.items()
        )
        notes = {
            kind: "\n".join(
                f"{name} {(effect.attributes[name] - factual[name]).mean():+.3g}"
                for name in graph.attributes
                if is_number[name] and name not in do and name in graph.descendants(do)
            )
            for kind, effect in effects.items()
        }
        labels = [
            "\n".join(f"{value:.3g}" if is_number[name] else value for name, value in result["factual"].items())
            for result in results
        ]
        summary = {
            "model": args.pretrained_model_name_or_path,
            "do": do,
            "num_draws": args.num_draws,
            "num_inference_steps": args.num_inference_steps or pipe.config.default_num_inference_steps,
            "seed": args.seed,
            "units": {name: graph.nodes[name].unit for name in graph.attributes if is_number[name]},
            "factuals": results,
        }
        with matplotlib.rc_context(STYLE):
            # An interruption leaves the figure alone or nothing, never a new one beside old numbers.
            path = Path(args.output_dir, "effects.json")
            path.unlink(missing_ok=True)
            figure = draw_effects(
                images,
                {kind: effect.images.mean(dim=0).cpu() for kind, effect in effects.items()},
                f"Effects of do({title}), mean of {args.num_draws} draw(s)",
                labels,
                notes,
            )
            save_figure(figure, args.output_dir, "effects")
            with written_whole(path) as unfinished:
                unfinished.write_text(json.dumps(summary, indent=2) + "\n")
