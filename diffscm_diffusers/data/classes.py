# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Classes by name: a data set's and a checkpoint's may differ in number and order."""

from collections import Counter


def unique_names(id2label: dict[int, str]) -> list[str]:
    """Names of the classes in order, as a `datasets.ClassLabel` needs them, each once: `crane` twice gives `crane (134)`."""
    counts = Counter(id2label.values())
    return [name if counts[name] == 1 else f"{name} ({index})" for index, name in id2label.items()]


def match_classes(data_names: list[str], names: list[str]) -> list[int]:
    """
    Finds the data set's classes among the checkpoint's. A data set may have fewer, in another order.

    Args:
        data_names (`list[str]`): The data set's class names.
        names (`list[str]`): The checkpoint's class names.

    Returns:
        `list[int]`: the checkpoint's class index of each class of the data set.

    Raises:
        ValueError: if the data set has a class that the checkpoint does not know.
    """
    unknown = [name for name in data_names if name not in names]
    if unknown:
        raise ValueError(
            f"`label_column` expects classes that the checkpoint knows ({abbreviate(names)}), got "
            f"{abbreviate(unknown)} as well."
        )
    return [names.index(name) for name in data_names]


def abbreviate(names: list[str]) -> str:
    """The first ten names, for messages."""
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
