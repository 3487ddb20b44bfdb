# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Which classes each factual is to have been caused by instead."""

import logging

import numpy as np

from diffscm_diffusers.data.classes import abbreviate


logger = logging.getLogger(__name__)

MODES = ("all", "other", "random")
# What follows it is always the name of a class, even if that is called like a mode or begins with a dash.
PREFIX = "class:"


class Interventions:
    """
    Chooses the targets of each factual.

    Args:
        interventions (`list[str]`):
            `["all"]` (every class), `["other"]` (every class but the factual's), `["random"]` (one of the others,
            drawn uniformly), or names of classes, which every factual meets. A class that is called like one of these
            words, or whose name begins with a dash, is named with the prefix `class:`.
        names (`list[str]`): The checkpoint's class names.
        has_classes (`bool`): Whether the factuals' classes are known.
        seed (`int`): Seed of `"random"`. A draw depends on the seed and the factual's row alone.

    Raises:
        ValueError: if a class is unknown or named twice, or if the factuals' classes are needed and not known.
    """

    def __init__(self, interventions: list[str], names: list[str], has_classes: bool, seed: int):
        self.mode = interventions[0] if len(interventions) == 1 and interventions[0] in MODES else None
        if self.mode in names:
            logger.warning(
                "`interventions` %r is the word of the interface, not the class of this name: write %r for the class.",
                self.mode,
                PREFIX + self.mode,
            )
        self.num_classes = len(names)
        self.seed = seed
        if self.mode is None:
            interventions = [name.removeprefix(PREFIX) for name in interventions]
            unknown = [name for name in interventions if name not in names]
            if unknown:
                raise ValueError(
                    f"`interventions` expects one of {', '.join(MODES)}, or names of classes ({abbreviate(names)}), "
                    f"got {abbreviate(unknown)}."
                )
            if len(set(interventions)) < len(interventions):
                raise ValueError(f"`interventions` expects each class once, got {interventions}.")
            self.named = [names.index(name) for name in interventions]
        elif self.mode in ("other", "random"):
            if not has_classes:
                raise ValueError(
                    f"`interventions` {self.mode!r} expects factuals of known classes: name their `label_column`."
                )
            if self.num_classes < 2:
                raise ValueError(
                    f"`interventions` {self.mode!r} expects a checkpoint of at least two classes, got {names}."
                )

    @property
    def per_factual(self) -> int:
        """`int`: how many targets each factual has."""
        if self.mode is None:
            return len(self.named)
        return {"all": self.num_classes, "other": self.num_classes - 1, "random": 1}[self.mode]

    def targets(self, row: int, factual_class: int | None) -> list[int]:
        """The class indices that the factual in this row of the data set meets."""
        if self.mode is None:
            return self.named
        if self.mode == "random":
            shift = np.random.default_rng([self.seed, row]).integers(1, self.num_classes).item()
            return [(factual_class + shift) % self.num_classes]
        return [c for c in range(self.num_classes) if self.mode == "all" or c != factual_class]
