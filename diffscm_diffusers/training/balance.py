# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Draws training rows as if the causes of the image were independent of each other."""

import math
from itertools import combinations

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import read_attributes
from diffscm_diffusers.models import StructuralCausalModel

from .trainer import on_main_process


# Of the mean weight. A row that would count for more is too rare to stand for its kind.
MAX_WEIGHT = 20.0


def truncate(weights: torch.Tensor) -> torch.Tensor:
    """
    Lowers the largest weights to one value, 20 times the mean of all that come out.

    So the effective sample size is at least a twentieth of the rows. The mean before would be that of the largest
    weights themselves, which a density that is too small in its tail makes as large as one likes.
    """
    num_rows = len(weights)
    descending = weights.sort(descending=True).values
    # With the k largest ones lowered to c, c = MAX_WEIGHT * (k * c + rest) / num_rows; k is the first that fits.
    num_lowered = torch.arange(math.ceil(num_rows / MAX_WEIGHT), dtype=weights.dtype)
    largest = descending[: len(num_lowered)]
    rest = descending.flip(0).cumsum(dim=0).flip(0)[: len(num_lowered)]
    limits = MAX_WEIGHT * rest / (num_rows - MAX_WEIGHT * num_lowered)
    return weights.clamp(max=limits[largest <= limits][0])


def independence_weights(
    graph: CausalGraph, attributes: dict[str, torch.Tensor], seed: int = 0, num_steps: int = 500
) -> torch.Tensor:
    r"""
    Weights of rows under which the image's parents are independent of each other, while each keeps its own law:

    `w = p(pa_1) p(pa_2) ... / p(pa_1, pa_2, ...)`,

    the stabilised inverse probability weights of [Robins et al. (2000)](https://doi.org/10.1097/00001648-200009000-00011).
    Both densities are those of [`StructuralCausalModel`]s that are fitted to the rows, one without edges between the
    parents, one with all. No weight is above 20 times the mean: the largest are truncated there.

    Args:
        graph ([`CausalGraph`]): Its image's parents are the causes. How they cause each other does not matter.
        attributes (`dict[str, torch.Tensor]`): Their values, as [`CausalGraph.check_values`] gives them.
        seed (`int`, *optional*, defaults to 0): Seed of both fits.
        num_steps (`int`, *optional*, defaults to 500): Steps of each fit.

    Returns:
        `torch.Tensor` of shape `(num_rows,)`: float64 with mean 1.

    Raises:
        ValueError: if the image has one parent only, or a parent has one value only.
    """
    if len(graph.image_parents) < 2:
        raise ValueError(
            f"`graph` expects at least two parents of the image to balance, got {list(graph.image_parents)}."
        )
    nodes = {name: graph.nodes[name] for name in graph.image_parents}
    log_probs = []
    for edges in ([], combinations(nodes, 2)):
        law = CausalGraph(nodes, [*edges, *((name, graph.image) for name in nodes)], graph.image)
        scm = StructuralCausalModel(law).fit(attributes, num_steps, seed=seed)
        log_probs.append(scm.log_prob(attributes))
    log_weights = log_probs[0] - log_probs[1]
    # Whatever the densities say in their tails, the sum is finite and no weight vanishes.
    weights = truncate((log_weights - log_weights.median()).clamp(-200, 200).exp())
    return weights / weights.mean()


def draw_by_weight(weights: torch.Tensor, generator: np.random.Generator) -> list[int]:
    """Draws as many rows as there are weights, each as often as its weight says, rounded down or up."""
    # Systematic resampling: evenly spaced positions on the line of all weights.
    edges = weights.cumsum(dim=0).numpy()
    positions = (np.arange(len(edges)) + generator.random()) * edges[-1] / len(edges)
    # Rounding must not lead beyond the last row.
    return np.searchsorted(edges, positions, side="right").clip(max=len(edges) - 1).tolist()


def balance_causes(
    accelerator: Accelerator,
    dataset: Dataset | IterableDataset,
    graph: CausalGraph | None,
    share: float | None,
    seed: int,
) -> list[int] | None:
    """
    Draws the rows to train on, as many as there are, a share of them as if the image's causes were independent.

    The mechanism `p(image | causes)` does not depend on the law of the causes. But what a network learns of it does:
    where the causes go together in the data, it sees few of the combinations that an intervention asks for, and a
    predictor leans on one cause to read another.

    Args:
        accelerator (`Accelerator`): The processes get the same rows.
        dataset (`datasets.Dataset`): With a column for each parent of the image.
        graph ([`CausalGraph`], *optional*): The causes are its image's parents.
        share (`float`, *optional*):
            From 0 to 1: how much weight the independent causes have, beside those of the data. `None`: all rows are
            trained on as they are.
        seed (`int`): Seed of the weights and of the draw.

    Returns:
        `list[int]`: the numbers of the rows, in their order, some several times. `None` where `share` is.

    Raises:
        ValueError: if the data set is streamed, or as in [`independence_weights`].
    """
    if share is None:
        return None
    if isinstance(dataset, IterableDataset):
        raise ValueError("`--balance_causes` expects a data set that is not streamed, got a streamed one.")

    def draw() -> list[int]:
        columns = {name: dataset[name][:] for name in graph.image_parents}
        weights = independence_weights(graph, read_attributes(columns, graph, "the data set"), seed)
        weights = 1 - share + share * weights
        effective = len(weights) / weights.square().mean().item()
        tqdm.write(
            f"Causes balanced: a share of {share:g} of the weight is on independent causes; effective sample size "
            f"{effective:.0f} of {len(weights)} rows."
        )
        return draw_by_weight(weights, np.random.default_rng(seed))

    return on_main_process(accelerator, draw)
