# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
What the parsers of commands and training scripts share: the types of values, and flags that several of them have.

Every command and training script has `parse_args(argv=None)`, which makes one `ArgumentParser` and returns what it
parses, `check_args(args)`, which refuses what the flags alone show to be wrong, and `main(argv=None)`. Flags are
spelled with underscores, as in diffusers' own examples. A flag has the same type and the same meaning wherever it
occurs; only its default may differ. What `parse_args` returns stays in its module: functions elsewhere get the values
that they use.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class ArgumentParser(argparse.ArgumentParser):
    """A parser that says what is wrong with a flag in one line, and takes no empty name and no empty path."""

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        for i, text in enumerate(args):
            flag, is_flag, value = text.partition("=")
            if text == "" or (is_flag and flag.startswith("--") and value == ""):
                flags = [flag, *(other for other in args[:i][::-1] if other.startswith("--")), "command"]
                flag = next(filter(None, flags))
                # Other types say themselves what an empty text is to them.
                if getattr(self._option_string_actions.get(flag), "type", None) in (None, str, Path):
                    self.error(f"argument {flag}: expects a value, got ''")
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())} (`{self.prog} --help` lists all flags)\n")


@contextmanager
def bad_input_in_one_line(name: str) -> Iterator[None]:
    """
    Ends the process with status 2 and one line on stderr where the block raises an error of input; with the traceback
    where the environment variable `DIFFUSERS_VERBOSITY` is `debug`.

    Args:
        name (`str`): What the line calls the command or the script.
    """
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        if os.environ.get("DIFFUSERS_VERBOSITY") == "debug":
            raise
        # Messages of other libraries have several lines.
        sys.stderr.write(f"{name}: error: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from error


@contextmanager
def value_of(flag: str, value: str | list, expected: str) -> Iterator[None]:
    """
    Says which flag an error of input is about, where what raises it cannot know.

    Args:
        flag (`str`): The flag, without dashes.
        value (`str` or `list`): What it got.
        expected (`str`): What it expects.

    Raises:
        ValueError: if the block raises a `ValueError` or an `OSError`.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"`--{flag}` expects {expected}, got {value!r}: {error}") from error


@contextmanager
def value_of_checkpoint(name_or_path: str) -> Iterator[None]:
    """[`value_of`] where the block loads the pipeline of `--pretrained_model_name_or_path`."""
    with value_of("pretrained_model_name_or_path", name_or_path, "the Hub name or folder of a pipeline's checkpoint"):
        yield


def _number(convert: Callable, text: str, expected: str, is_allowed: Callable) -> int | float:
    try:
        value = convert(text)
    except ValueError:
        value = None
    if value is None or not is_allowed(value):
        raise argparse.ArgumentTypeError(f"expects {expected}, got {text!r}")
    return value


def positive_int(text: str) -> int:
    return _number(int, text, "a whole number of at least 1", lambda value: value >= 1)


def non_negative_int(text: str) -> int:
    return _number(int, text, "a whole number of at least 0", lambda value: value >= 0)


def positive_float(text: str) -> float:
    return _number(float, text, "a finite number greater than 0", lambda value: 0 < value < float("inf"))


def non_negative_float(text: str) -> float:
    return _number(float, text, "a finite number of at least 0", lambda value: 0 <= value < float("inf"))


def fraction(text: str) -> float:
    return _number(float, text, "a number in [0, 1]", lambda value: 0 <= value <= 1)


def rate(text: str) -> float:
    return _number(float, text, "a number in [0, 1)", lambda value: 0 <= value < 1)


def add_data_arguments(parser: argparse.ArgumentParser, labels: bool = True) -> argparse._ArgumentGroup:
    """
    Adds the flags that say which data set is read, under the names of `load_image_dataset`'s arguments.

    Args:
        parser (`argparse.ArgumentParser`): The parser to add them to.
        labels (`bool`, *optional*, defaults to `True`): Whether to add `--label_column`, with the default `label`.

    Returns:
        `argparse._ArgumentGroup`: the group of these flags, for further ones.
    """
    data = parser.add_argument_group("data")
    data.add_argument("--dataset_name", help="Data set: a Hub name or a local folder that `datasets` loads.")
    data.add_argument("--dataset_config_name", help="Configuration of the data set, where it has several.")
    data.add_argument(
        "--train_data_dir", help="Folder of images: a folder per split, or none, and in it a subfolder per class."
    )
    data.add_argument(
        "--skip_broken", action="store_true", help="Leave out images that cannot be used, and count and list them."
    )
    data.add_argument("--image_column", default="image", help="Column with the images, the effect.")
    if labels:
        data.add_argument("--label_column", default="label", help="Column with the class labels, the cause.")
    data.add_argument("--cache_dir", help="Where data sets and pretrained weights are cached.")
    return data


def add_publication_arguments(output: argparse._ArgumentGroup):
    """Adds the flags of training scripts that publish the model, to those that say where it is written."""
    output.add_argument(
        "--push_to_hub", action="store_true", help="Publish the model at the end, after `hf auth login`."
    )
    output.add_argument("--hub_model_id", help="Repository to publish to. Default: the output folder's name.")


def add_evaluation_arguments(
    parser: argparse.ArgumentParser, split: str, train_split: str, max_samples: int | None = None
):
    """Adds the flags of commands that score counterfactuals; the other arguments are defaults of flags."""
    data = add_data_arguments(parser)
    data.add_argument(
        "--split", default=split, help="Split of the factuals, or slices of splits, such as `train[55000:]`."
    )
    data.add_argument(
        "--train_split", default=train_split, help="Split of the real images to compare with, or slices of splits."
    )
    data.add_argument(
        "--max_samples", type=positive_int, default=max_samples, help="How many factuals at most. Default: all."
    )
    data.add_argument("--seed", type=non_negative_int, default=0, help="Seed of pairs, random images and intervals.")

    model = parser.add_argument_group("causal model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        default="checkpoints/diffscm-mnist",
        help="`DiffSCMCounterfactualPipeline`, or for `evaluate` `DiffSCMSemanticCounterfactualPipeline` as well: a "
        "Hub name or a local folder.",
    )
    model.add_argument("--preset", help="Settings of the checkpoint, by name, instead of its defaults.")
    model.add_argument(
        "--num_inference_steps",
        type=positive_int,
        help="Steps in each direction. Default: the preset's or the checkpoint's.",
    )
    model.add_argument(
        "--guidance_interval",
        type=non_negative_int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="Lowest and highest timestep with guidance. Default: the preset's or the checkpoint's.",
    )
    model.add_argument(
        "--abduction",
        choices=["source", "destination", "implicit"],
        help="How abduction's moves are made. Default: the preset's or the checkpoint's.",
    )
    model.add_argument(
        "--scheduler",
        choices=["checkpoint", "belm", "quadratic"],
        default="checkpoint",
        help="Which moves are made: the checkpoint's, O-BELM's, which are inverted exactly, or DDIM's on "
        "quadratically spaced timesteps, which `--abduction implicit` inverts at few steps as well.",
    )
    model.add_argument(
        "--mixed_precision",
        choices=["no", "bf16"],
        default="no",
        help="`bf16` runs Diff-SCM's networks under autocast. The metric models always compute in float32.",
    )

    metrics = parser.add_argument_group("metrics")
    metrics.add_argument(
        "--metric_models",
        default="checkpoints/diffscm-mnist-metrics",
        help="VAE, autoencoders and oracle that `train_metric_models.py` wrote: a Hub name or a local folder. "
        "`evaluate` takes `none` as well, and leaves out what they score.",
    )
    metrics.add_argument("--oracle", help="Image classifier of transformers to use as oracle: a Hub name or a folder.")

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", required=True, help="Where everything is written; a restart goes on there.")
    output.add_argument(
        "--batch_size", type=positive_int, default=100, help="Images that the networks see at once, and per file."
    )
