# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Weights and results that are not numbers, which must not be saved or shown."""

import math
from collections.abc import Iterable
from typing import Any

import torch


def find_non_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """The names of the tensors that hold NaN or infinity. The device is waited for once."""
    tensors = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point()]
    if not tensors:
        return []
    finite = torch.stack([tensor.isfinite().all().to(tensors[0][1].device) for _, tensor in tensors]).tolist()
    return [name for (name, _), is_finite in zip(tensors, finite, strict=True) if not is_finite]


def check_finite(component, name: str):
    """
    Raises a `ValueError` if a model, or one of a pipeline's, has weights that are not finite.

    Args:
        component (`torch.nn.Module` or `DiffusionPipeline`): What is to be saved.
        name (`str`): What the message calls it.
    """
    for part, model in {"": component, **getattr(component, "components", {})}.items():
        if isinstance(model, torch.nn.Module) and (names := find_non_finite(model.state_dict().items())):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(
                f"`{part or name}` expects finite weights, got NaN or infinity in {', '.join(names[:3])}{more}: it is "
                "not saved."
            )


def check_finite_numbers(value: Any, name: str):
    """
    Raises a `ValueError` if there is a number that is not finite in what is to be JSON, or was.

    Args:
        value: Dictionaries and lists of numbers and text.
        name (`str`): What the message calls it.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"`{name}` expects a finite number, got {value}.")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, part in parts:
        check_finite_numbers(part, f"{name}[{key!r}]")
