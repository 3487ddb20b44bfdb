# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from dataclasses import dataclass

import torch


@dataclass
class Pairs:
    """
    Which factual meets which intervention.

    Args:
        row (`torch.Tensor` of shape `(num_pairs,)`): The factuals' rows in their split.
        factual_class (`torch.Tensor` of shape `(num_pairs,)`): Their class indices.
        intervention (`torch.Tensor` of shape `(num_pairs,)`): The target class indices.
    """

    row: torch.Tensor
    factual_class: torch.Tensor
    intervention: torch.Tensor

    def __len__(self) -> int:
        return len(self.row)


def draw_pairs(classes: torch.Tensor, num_classes: int, seed: int, max_samples: int | None = None) -> Pairs:
    """
    Draws the pairs of the evaluation: every factual once, in random order because image folders are sorted by class,
    with one target drawn uniformly from the other classes. All of them are drawn before any is left out, so a pair
    does not depend on `max_samples`.

    Args:
        classes (`torch.Tensor` of shape `(num_rows,)`): The class index of every row of the split.
        num_classes (`int`): How many classes the targets are drawn from.
        seed (`int`): Seed of order and targets.
        max_samples (`int`, *optional*): How many pairs to return. Default: one per row.

    Raises:
        ValueError: if there are fewer than two classes or pairs, or rows without a class.
    """
    if num_classes < 2:
        raise ValueError(f"An intervention takes a data set of at least two classes, got {num_classes}.")
    if classes.min() < 0 or classes.max() >= num_classes:
        raise ValueError(f"The factuals take classes from 0 to {num_classes - 1}, got rows without a label (-1).")
    generator = torch.Generator().manual_seed(seed)
    row = torch.randperm(len(classes), generator=generator)
    shift = torch.randint(1, num_classes, (len(classes),), generator=generator)

    row, shift = row[:max_samples], shift[:max_samples]
    if len(row) < 2:
        raise ValueError(
            f"An interval takes at least two pairs: raise `--max_samples` or take more rows, got {len(row)}."
        )
    return Pairs(row, classes[row], (classes[row] + shift) % num_classes)
