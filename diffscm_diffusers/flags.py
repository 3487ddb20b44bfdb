# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
What the parsers of commands and training scripts share: types of values and the flags of a data set.

Every command and training script has `parse_args(argv=None)`, which makes one `argparse.ArgumentParser` and returns
what it parses, and `main(argv=None)`. Flags are spelled with underscores, as in diffusers' own examples. A flag has
the same type and the same meaning wherever it occurs; only its default may differ. What `parse_args` returns stays in
its module: functions elsewhere get the values that they use.
"""

import argparse
from collections.abc import Callable


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
    data.add_argument("--image_column", default="image", help="Column with the images, the effect.")
    if labels:
        data.add_argument("--label_column", default="label", help="Column with the class labels, the cause.")
    data.add_argument("--cache_dir", help="Where data sets and pretrained weights are cached.")
    return data
