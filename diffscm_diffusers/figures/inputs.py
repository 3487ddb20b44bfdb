# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the figures show: one pair of each class, from an evaluation or from a data set, and real images."""

import json
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset

from diffscm_diffusers.data.classes import match_classes
from diffscm_diffusers.data.images import DecodedImages, ImageCollator
from diffscm_diffusers.evaluation.counterfactual_files import read_chunks
from diffscm_diffusers.evaluation.methods import METHODS
from diffscm_diffusers.evaluation.pairs import Pairs, draw_pairs, read_classes


def spread(number: int, limit: int) -> list[int]:
    """At most `limit` of the indices below `number`, at equal distances."""
    return [i * number // min(number, limit) for i in range(min(number, limit))]


def first_of_each_class(factual_class: torch.Tensor, max_classes: int) -> torch.Tensor:
    """The number of the first pair of each class or, where there are more, of `max_classes` among all of them."""
    classes = factual_class.unique()
    classes = classes[spread(len(classes), max_classes)]
    return torch.stack([torch.nonzero(factual_class == c)[0, 0] for c in classes])


def read_evaluation(
    folder: Path, class_names: list[str], max_classes: int
) -> tuple[Pairs, dict[str, torch.Tensor], torch.Tensor]:
    """
    Reads one pair of each class from an evaluation.

    Args:
        folder (`Path`): What `diffscm evaluate` wrote.
        class_names (`list[str]`): The checkpoint's classes. Those of the evaluation are found among them by name.
        max_classes (`int`): How many pairs are read at most.

    Returns:
        `tuple`: the pairs; by name their factuals and the counterfactuals of every method that is no control; and
        whether the oracle sees the target in the counterfactuals, `(num_pairs, num_methods)`.

    Raises:
        ValueError: if the evaluation lacks factuals or Diff-SCM's counterfactuals, or has other classes.
    """
    samples = pd.read_csv(folder / "samples.csv").sort_values("index")
    names = ["factual", *(name for name, method in METHODS.items() if not method.is_control)]
    samples = {name: samples[samples["method"] == name] for name in names}
    missing = [name for name in ("factual", "diff-scm") if len(samples[name]) == 0]
    if missing:
        raise ValueError(f"`--evaluation` expects an evaluation of {missing} too, but {str(folder)!r} has none.")
    if "effectiveness" not in samples["diff-scm"]:
        raise ValueError(
            f"`--evaluation` expects an evaluation with metric models, but {str(folder)!r} is one with none."
        )
    row, factual_class, intervention = (
        torch.tensor(samples["factual"][name].to_numpy()) for name in ("row", "factual_class", "intervention")
    )
    evaluated_names = json.loads((folder / "summary.json").read_text())["class_names"]
    classes = torch.tensor(match_classes(evaluated_names, class_names, f"`--evaluation` {str(folder)!r}", whole=True))
    factual_class, intervention = classes[factual_class], classes[intervention]
    index = first_of_each_class(factual_class, max_classes)
    pairs = Pairs(row[index], factual_class[index], intervention[index])

    images, effective = {}, []
    for name in samples:
        if len(samples[name]) > 0:
            images[name] = read_chunks(folder / "counterfactuals" / name, index.max().item() + 1)[0][index]
            effective.append(torch.tensor(samples[name]["effectiveness"].to_numpy())[index] == 1)
    return pairs, images, torch.stack(effective[1:], dim=1)


def read_factuals(
    rows: Dataset, collate: ImageCollator, class_names: list[str], seed: int, max_classes: int
) -> tuple[Pairs, DecodedImages]:
    """
    Reads the first factual of each class, in the order that an evaluation with this seed has.

    Args:
        rows (`datasets.Dataset`): Where they are.
        collate (`ImageCollator`): Made for the size of the checkpoint's images, with a `label_column`.
        class_names (`list[str]`): The checkpoint's classes. Those of the data are found among them by name.
        seed (`int`): See [`draw_pairs`].
        max_classes (`int`): How many pairs are read at most.

    Raises:
        ValueError: if the data set has other classes.
    """
    pairs = draw_pairs(read_classes(rows, collate, class_names), len(class_names), seed)
    index = first_of_each_class(pairs.factual_class, max_classes)
    pairs = Pairs(pairs.row[index], pairs.factual_class[index], pairs.intervention[index])
    factuals = DecodedImages(rows.select(pairs.row), collate, show_progress=False, numbers=pairs.row.tolist())
    factuals.classes = pairs.factual_class
    return pairs, factuals


def read_references(
    rows: Dataset, collate: ImageCollator, class_names: list[str], classes: list[int], max_images: int, seed: int
) -> DecodedImages:
    """
    Reads real images of some classes, drawn at random where there are more than `max_images` of one.

    Raises:
        ValueError: if there is no image of a class.
    """
    row_class = read_classes(rows, collate, class_names)
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for c in classes:
        of_class = torch.nonzero(row_class == c).squeeze(1)
        if len(of_class) == 0:
            raise ValueError(f"`train_split` expects images of the class {class_names[c]!r}, but has none.")
        drawn.append(of_class[torch.randperm(len(of_class), generator=generator)[:max_images]])
    numbers = torch.cat(drawn).tolist()
    images = DecodedImages(rows.select(numbers), collate, "Reading references", numbers=numbers)
    images.classes = row_class[numbers]
    return images
