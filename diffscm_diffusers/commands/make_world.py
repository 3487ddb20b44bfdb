# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Makes a data set of a world, which renders images and knows their true counterfactuals.

    diffscm make-world typeface --num_train 60000 --num_test 10000 --output_dir outputs/typeface
    diffscm make-world morpho-mnist --dataset_name ylecun/mnist --output_dir outputs/morpho-mnist

The folder is what `--dataset_name` takes elsewhere: parquet files with the column `image`, one for each variable and
each part of the exogenous noise, the digit once more as `label`, and for the split `test` the true counterfactuals.
Beside them `graph.json` is the causal graph, which `--graph` takes.
Images and counterfactuals have 8 bits per channel, and so have the world's own. The same command makes the same images
again.
"""

import argparse
import inspect
import json
import sys
from pathlib import Path

import PIL.Image
import pyarrow.parquet as pq
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import load_flagged_dataset
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.flags import ArgumentParser, add_data_arguments, non_negative_int, positive_int, rate
from diffscm_diffusers.generation.generator import to_pil
from diffscm_diffusers.hub.cards import make_world_card, save_card
from diffscm_diffusers.refusals import check_data_source, check_output_dir
from diffscm_diffusers.worlds import MorphoMNISTWorld, TypefaceWorld, World


BATCH_SIZE = 1000  # rows in memory
FILE_SIZE = 10000  # rows per file


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm make-world", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "world",
        choices=["typeface", "morpho-mnist"],
        help="`typeface`: printed digits, with the digit as cause. `morpho-mnist`: handwritten digits, with the "
        "thickness and the intensity of their strokes as causes.",
    )
    data = add_data_arguments(parser)
    data.description = "Base digits of 28x28 pixels such as MNIST's, for morpho-mnist. Their classes are the digits."
    data.add_argument("--train_split", default="train", help="Split of the base digits of the training images.")
    data.add_argument("--test_split", default="test", help="Split of the base digits of the test images.")

    world = parser.add_argument_group("world")
    world.add_argument("--num_train", type=positive_int, default=60000, help="Training images.")
    world.add_argument("--num_test", type=positive_int, default=10000, help="Test images.")
    world.add_argument("--image_size", type=positive_int, default=28, help="28, or for typefaces 64.")
    world.add_argument("--color", action="store_true", help="RGB images, with a variable `hue`.")
    world.add_argument("--slant", action="store_true", help="A variable `slant`; for morpho-mnist.")
    world.add_argument(
        "--confounding",
        type=rate,
        help="Strength of a confounder of digit and hue in the training images; it is 0 in the test images. For "
        "typefaces, with `--color`.",
    )
    world.add_argument("--seed", type=non_negative_int, default=0, help="Seed of both splits.")

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", required=True, help="New folder for the data set.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used, or that the world does not have."""
    check_output_dir(args.output_dir, is_new=True)
    if args.world == "typeface":
        for name in ("dataset_name", "train_data_dir", "slant", "skip_broken"):
            if getattr(args, name):
                raise ValueError(f"`--{name}` is expected with morpho-mnist only, got it with {args.world}.")
        if args.confounding is not None and not args.color:
            raise ValueError(f"`--confounding` expects `--color` beside it, got {args.confounding} alone.")
        sizes = (28, 64)
    else:
        check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
        if args.confounding is not None:
            raise ValueError(f"`--confounding` is expected with typeface only, got it with {args.world}.")
        if args.test_split == args.train_split:
            raise ValueError(f"`--test_split` expects another split than `--train_split`, got {args.test_split!r}.")
        sizes = (28,)
    if args.image_size not in sizes:
        expected = " or ".join(map(str, sizes))
        raise ValueError(f"`--image_size` expects {expected} with {args.world}, got {args.image_size}.")


def make_typeface_worlds(args: argparse.Namespace) -> dict[str, World]:
    return {
        "train": TypefaceWorld(args.image_size, args.color, args.confounding),
        # The confounder remains, and without strength it misleads no one.
        "test": TypefaceWorld(args.image_size, args.color, None if args.confounding is None else 0.0),
    }


def make_morpho_mnist_worlds(args: argparse.Namespace) -> dict[str, World]:
    splits = load_flagged_dataset(args, "train_split", args.label_column)
    if args.test_split not in splits:
        others = sorted(splits.keys() - {args.train_split})
        raise ValueError(f"`--test_split` expects one of the other splits, {others}, got {args.test_split!r}.")
    return {
        name: MorphoMNISTWorld.from_dataset(
            splits[split], args.image_column, args.label_column, slant=args.slant, color=args.color
        )
        for name, split in (("train", args.train_split), ("test", args.test_split))
    }


def list_interventions(world: World) -> dict[str, tuple[str, str]]:
    """The variables that the test split intervenes on, with the columns of their values and counterfactuals."""
    if isinstance(world, TypefaceWorld):
        return {"digit": ("intervention", "counterfactual")}
    return {name: (f"do_{name}", f"counterfactual_do_{name}") for name in world.graph["nodes"] if name != "digit"}


def make_features(world: World) -> Features:
    """The columns' types. Those of the counterfactuals are there in both splits, as `datasets` wants it."""
    sample = world.sample(1, torch.Generator().manual_seed(0))
    nodes = {**world.graph["nodes"], **world.graph["exogenous_noise"]}
    types = {}
    for name, value in {**sample.variables, **sample.exogenous_noise}.items():
        if "labels" in nodes.get(name, {}):
            types[name] = ClassLabel(names=nodes[name]["labels"])
        else:
            types[name] = Value("float32" if value.is_floating_point() else "int64")
    features = {"image": Image(), "label": types["digit"], **types}
    for name, (value_column, image_column) in list_interventions(world).items():
        features |= {value_column: types[name], image_column: Image()}
    return Features(features)


def draw_values(node: dict, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Values to intervene with: another label, drawn uniformly, or the number that the sample before has."""
    if node["kind"] == "categorical":
        num_labels = len(node["labels"])
        return (values + torch.randint(1, num_labels, values.shape, generator=generator)) % num_labels
    return values.roll(1)  # a draw from the variable's own law


def encode(images: torch.Tensor) -> list[PIL.Image.Image]:
    return to_pil((images * 255).round().byte())


def make_rows(world: World, num_rows: int, generator: torch.Generator, with_counterfactuals: bool) -> dict[str, list]:
    """Columns by name, of consecutive samples."""
    sample = world.sample(num_rows, generator)
    columns = {"image": encode(sample.images), "label": sample.variables["digit"].tolist()}
    for name, value in {**sample.variables, **sample.exogenous_noise}.items():
        columns[name] = value.tolist()
    for name, (value_column, image_column) in list_interventions(world).items():
        if with_counterfactuals:
            value = draw_values(world.graph["nodes"][name], sample.variables[name], generator)
            counterfactual = world.counterfactual(sample, do={name: value})
            columns |= {value_column: value.tolist(), image_column: encode(counterfactual.images)}
        else:
            columns |= {value_column: [None] * num_rows, image_column: [None] * num_rows}
    return columns


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    folder = Path(args.output_dir)
    worlds = make_typeface_worlds(args) if args.world == "typeface" else make_morpho_mnist_worlds(args)
    num_rows = {"train": args.num_train, "test": args.num_test}
    features = make_features(worlds["train"])

    with (
        locked(folder, is_new=True),
        written_whole(folder) as unfinished,
        tqdm(total=sum(num_rows.values()), desc="Images", unit=" images") as progress_bar,
    ):
        (unfinished / "data").mkdir(parents=True)
        data_files = {split: [] for split in worlds}
        for index, (split, world) in enumerate(worlds.items()):
            # A stream of its own for each split of each seed.
            generator = torch.Generator().manual_seed(2 * args.seed + index)
            for start in range(0, num_rows[split], FILE_SIZE):
                stop = min(start + FILE_SIZE, num_rows[split])
                path = unfinished / "data" / f"{split}-{start:08d}.parquet"
                data_files[split].append(path.relative_to(unfinished).as_posix())
                with pq.ParquetWriter(path, features.arrow_schema) as writer:
                    for first in range(start, stop, BATCH_SIZE):
                        size = min(BATCH_SIZE, stop - first)
                        rows = make_rows(world, size, generator, with_counterfactuals=split == "test")
                        writer.write_table(Dataset.from_dict(rows, features).with_format("arrow")[:])
                        progress_bar.update(size)
        card = make_world_card(
            args.output_dir,
            world=type(world).__name__,
            description=inspect.getdoc(type(world)).split("Args:")[0],
            graph=worlds["train"].graph,
            interventions=list_interventions(world),
            # All that the images depend on.
            settings={name: value for name, value in vars(args).items() if name not in ("output_dir", "cache_dir")},
            command=["diffscm", "make-world", *(sys.argv[1:] if argv is None else argv)],
            data_files=data_files,
        )
        save_card(card, unfinished)
        # With the noise that has a meaning of its own, by which counterfactuals are measured.
        (unfinished / "graph.json").write_text(json.dumps(worlds["train"].graph, indent=2) + "\n")
