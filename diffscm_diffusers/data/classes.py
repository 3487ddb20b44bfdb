# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Classes by name: a data set's and a checkpoint's may differ in number and order."""

import logging
from collections import Counter


logger = logging.getLogger(__name__)


def unique_names(id2label: dict[int, str]) -> list[str]:
    """Names of the classes in order, each once, as `datasets.ClassLabel` asks: `crane` twice gives `crane (134)`."""
    counts = Counter(id2label.values())
    return [name if counts[name] == 1 else f"{name} ({index})" for index, name in id2label.items()]


def match_classes(
    data_names: list[str], names: list[str], source: str = "`label_column`", whole: bool = False
) -> list[int]:
    """
    Finds classes among a checkpoint's by name. There may be fewer of them, in another order.

    Args:
        data_names (`list[str]`): Names of classes, such as the data set's.
        names (`list[str]`): The checkpoint's class names.
        source (`str`, *optional*, defaults to ``"`label_column`"``): Whose classes `data_names` are, for messages.
        whole (`bool`, *optional*, defaults to `False`): Whether none of the checkpoint's classes may be missing.

    Returns:
        `list[int]`: the checkpoint's class index of each class in `data_names`.

    Raises:
        ValueError: if a class is not the checkpoint's, or is the name of several, or is missing.
    """
    unknown = [name for name in data_names if name not in names]
    missing = [name for name in names if name not in data_names] if whole else []
    if unknown or missing:
        raise ValueError(
            f"{source} expects {'the' if whole else 'only'} classes that the checkpoint knows, {abbreviate(names)}, "
            f"got {abbreviate(data_names)}."
        )
    for kind in (data_names, names):
        doubled = [name for name, count in Counter(kind).items() if count > 1]
        if doubled:
            raise ValueError(f"{source} expects classes with names of their own, got {abbreviate(doubled)} twice.")
    return [names.index(name) for name in data_names]


def name_empty_classes(counts: dict[str, int], where: str):
    """Logs a warning that names the classes of which there is no image."""
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        logger.warning("%s has no image of the classes %s.", where, abbreviate(empty))


def check_every_class(labels: list[int], names: list[str], argument: str, split: str):
    """Raises a `ValueError` that names the classes of which there is no image: a network cannot learn them."""
    there = set(labels)
    empty = [name for c, name in enumerate(names) if c not in there]
    if empty:
        raise ValueError(
            f"`{argument}` expects images of every class, got {split!r} without any of {abbreviate(empty)}. Add some, "
            "or take these names out of the data set."
        )


def abbreviate(names: list[str]) -> str:
    """The first ten names, for messages."""
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
