# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Checks of the networks' settings."""


def check_sizes(**sizes: int):
    """Raises a `ValueError` unless each is a whole number of at least 1."""
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"`{name}` expects a whole number of at least 1, got {size!r}.")


def check_widths(**widths: tuple[int, ...]):
    """Raises a `ValueError` unless each is a list of whole numbers of at least 1."""
    for name, values in widths.items():
        if not isinstance(values, (list, tuple)) or not values or any(type(v) is not int or v < 1 for v in values):
            raise ValueError(f"`{name}` expects whole numbers of at least 1, got {values!r}.")


def check_dropout(**dropouts: float):
    """Raises a `ValueError` unless each is a number in [0, 1)."""
    for name, value in dropouts.items():
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"`{name}` expects a number in [0, 1), got {value!r}.")


def check_flags(**flags: bool):
    """Raises a `TypeError` unless each is `True` or `False`."""
    for name, value in flags.items():
        if type(value) is not bool:
            raise TypeError(f"`{name}` expects `True` or `False`, got {value!r}.")


def check_labels(id2label: dict[int, str] | None, num_classes: int):
    """Raises a `ValueError` unless each class has a name, where any has. JSON makes strings of the keys."""
    names = [str(index) for index in range(num_classes)]
    if id2label is not None and (not isinstance(id2label, dict) or sorted(map(str, id2label)) != sorted(names)):
        raise ValueError(f"`id2label` expects a name for each class from 0 to {num_classes - 1}, got {id2label!r}.")
