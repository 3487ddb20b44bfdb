# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
The criteria that a causal model is held to beside its counterfactuals: the null intervention, there and back,
exogenous noise that has the model's law and says nothing of the class, and draws as uncertain as they should be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from diffscm_diffusers.data.images import DecodedImages
from diffscm_diffusers.metrics.functional import (
    composition,
    counterfactual_error,
    coverage,
    crps,
    distance_correlation,
    exogenous_noise_law,
    reversibility,
)
from diffscm_diffusers.metrics.probe import probe_accuracy

from .counterfactual_files import read_chunks
from .methods import Method
from .pairs import Pairs
from .truth import Truth


NUM_CYCLES = 10
# Pixels in [0, 1] brighter than this are ink.
INK = 0.1


@dataclass
class Criterion:
    """
    What is generated for one criterion: a folder of chunks, as for counterfactuals.

    Args:
        folder (`Path`): Where they are kept.
        num_pairs (`int`): Of how many of the first pairs.
        generate (`Callable`): Maps consecutive numbers of pairs, `(batch,)`, to what [`write_chunk`] takes by name.
        settings (`dict`): What they depend on beside the method and the data.
    """

    folder: Path
    num_pairs: int
    generate: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    settings: dict


def list_criteria(
    method: Method,
    folder: Path,
    counterfactuals: Path,
    pairs: Pairs,
    factuals: DecodedImages,
    num_samples: int,
    num_repeated: int,
    num_draws: int,
    seed: int,
    with_draws: bool,
) -> list[Criterion]:
    """
    Lists what is to be generated for a method's criteria.

    Args:
        method ([`Method`]): The method. Of one that only generates, nothing is.
        folder (`Path`): The folder of all its criteria.
        counterfactuals (`Path`): The folder of its counterfactuals, which are there by then.
        pairs (`Pairs`): The pairs.
        factuals (`DecodedImages`): Their factuals.
        num_samples (`int`): How many of the first pairs are taken for the criteria.
        num_repeated (`int`): How many for those that need many counterfactuals of each.
        num_draws (`int`): How many draws each of the latter gets.
        seed (`int`): Seed of the draws.
        with_draws (`bool`): Whether there is a truth that several draws can be compared with.
    """
    num_samples = min(num_samples, len(pairs))
    num_repeated = min(num_repeated, len(pairs))
    criteria = []

    def there_and_back(index, num_cycles):
        factual_class, intervention = pairs.factual_class[index], pairs.intervention[index]
        first, last = index[[0, -1]].tolist()
        images, _ = read_chunks(counterfactuals, last + 1, first=first)
        for cycle in range(num_cycles):
            if cycle > 0:
                images = method.estimate(images, factual_class, intervention)
            images = method.estimate(images, intervention, factual_class)
        return {"counterfactual": images}

    def null_intervention(index):
        factual_class = pairs.factual_class[index]
        return {"counterfactual": method.estimate(factuals.images(index), factual_class, factual_class)}

    def draw(index, num_draws):
        # Every pair's draws are others.
        generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + int(index[0]))
        draws = method.draw(index, num_draws, generator)
        parts = {"counterfactual": draws.images, "noise": draws.noise, "code": draws.code}
        return {name: part.movedim(0, 1) for name, part in parts.items() if part is not None}

    if method.estimate is not None:
        criteria += [
            Criterion(folder / "null-intervention", num_samples, null_intervention, {}),
            Criterion(folder / "there-and-back", num_samples, lambda index: there_and_back(index, 1), {}),
            Criterion(
                folder / "ten-times-there-and-back", num_repeated, lambda index: there_and_back(index, NUM_CYCLES), {}
            ),
        ]
    if method.draw is not None:
        criteria.append(Criterion(folder / "one-draw", num_samples, lambda index: draw(index, 1), {}))
        if with_draws:
            settings = {"num_draws": num_draws}
            criteria.append(Criterion(folder / "draws", num_repeated, lambda index: draw(index, num_draws), settings))
    return criteria


def score_criteria(
    criteria: list[Criterion], pairs: Pairs, factuals: DecodedImages, truth: Truth | None, seed: int
) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, float]]]:
    """
    Scores what was generated for a method's criteria.

    Args:
        criteria (`list[Criterion]`): See [`list_criteria`].
        pairs (`Pairs`): The pairs.
        factuals (`DecodedImages`): Their factuals.
        truth ([`Truth`], *optional*): Their true counterfactuals.
        seed (`int`): Seed of probes and permutations.

    Returns:
        `tuple`: scores of each sample by name, shape `(num_samples,)`; and of each part of the exogenous noise, the
        spatial `"noise"` and the semantic `"code"`, what is known of all samples together: `mean`, `std`, `kurtosis`,
        `distance_correlation` with its `p_value`, and `probe_accuracy` beside `probe_chance`.
    """
    scores, noise = {}, {}
    for criterion in criteria:
        name, first = criterion.folder.name, slice(criterion.num_pairs)
        images, _, *parts = read_chunks(criterion.folder, criterion.num_pairs, ("noise", "code"))
        if name == "null-intervention":
            scores["null_intervention"] = composition(factuals.images(first), images)
        elif name == "there-and-back":
            scores["there_and_back"] = reversibility(factuals.images(first), images)
        elif name == "ten-times-there-and-back":
            scores["ten_times_there_and_back"] = reversibility(factuals.images(first), images)
        elif name == "one-draw":
            if truth is not None:
                scores["error_of_one_draw"] = counterfactual_error(images[:, 0], truth.images.images(first))
            for part, value in zip(("noise", "code"), parts, strict=True):
                if value is not None:
                    noise[part] = score_noise(value[:, 0], pairs.factual_class[first], seed)
        else:
            draws, expected = images.movedim(1, 0), truth.images.images(first)
            scores["error_of_mean"] = counterfactual_error(draws.mean(dim=0), expected)
            scores["crps"] = crps(draws, expected)
            for score, threshold in (("coverage", None), ("coverage_of_ink", INK)):
                covered = coverage(draws, expected, threshold=threshold)
                scores[score] = covered[~covered.isnan()]
    return scores, noise


def score_noise(noise: torch.Tensor, factual_class: torch.Tensor, seed: int) -> dict[str, float]:
    """The law of exogenous noise, and what it tells of the class; see [`score_criteria`]."""
    scores = {name: value.item() for name, value in exogenous_noise_law(noise).items()}
    # Fewer samples, or those of one class alone, tell nothing.
    if len(noise) >= 10 and len(factual_class.unique()) > 1:
        scores |= {name: value.item() for name, value in distance_correlation(noise, factual_class, seed=seed).items()}
        scores |= {f"probe_{name}": value for name, value in probe_accuracy(noise, factual_class, seed).items()}
    return scores
