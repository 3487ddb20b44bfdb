# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Means with bootstrap intervals, and the paper's Table 1."""

import numpy as np
import pandas as pd
from scipy.stats import bootstrap


SCORES = ["im1", "im2", "cld", "cld_floor", "cld_excess", "effectiveness", "l1", "l2"]
# The table's columns: the score, the heading, and its number of decimals.
COLUMNS = [
    ("im1", "IM1 ↓", 3),
    ("im2", "IM2 ↓", 4),
    ("cld", "CLD ↓", 3),
    ("cld_excess", "CLD - floor ↓", 3),
    ("effectiveness", "effectiveness ↑", 3),
    ("l1", "L1 ↓", 4),
]


def summarize(samples: pd.DataFrame, seed: int, num_resamples: int = 1000) -> dict[str, dict[str, float]]:
    """
    The mean of every score, with the percentile bootstrap's 95 % interval: how far it could be off because these
    pairs were drawn and not others.

    Args:
        samples (`pd.DataFrame`): One method's scores, one row per pair.
        seed (`int`): Seed of the resampling.
        num_resamples (`int`, *optional*, defaults to 1000): How often the pairs are drawn anew.

    Returns:
        `dict`: `mean`, `low` and `high` for every score.

    Raises:
        ValueError: if a score is not finite.
    """
    values = samples[SCORES].to_numpy(dtype=np.float64).T
    for name, row in zip(SCORES, values, strict=True):
        if not np.isfinite(row).all():
            first = np.flatnonzero(~np.isfinite(row))[0]
            raise ValueError(f"`{name}` expects finite scores, got {row[first]} for pair {first}.")
    # All scores see the same resamples, a few of them at a time to bound memory.
    interval = bootstrap(
        (values,), np.mean, axis=-1, n_resamples=num_resamples, batch=50, method="percentile", rng=seed
    ).confidence_interval
    return {
        name: {"mean": mean, "low": low, "high": high}
        for name, mean, low, high in zip(
            SCORES, values.mean(axis=1).tolist(), interval.low.tolist(), interval.high.tolist(), strict=True
        )
    }


def make_table(methods: dict[str, dict], labels: dict[str, str]) -> str:
    """
    Sets a summary as a Markdown table in the form of the paper's Table 1, with `mean [low, high]` in its cells.

    Args:
        methods (`dict`): By name what `summary.json` has of each method: `scores` and `seconds`.
        labels (`dict[str, str]`): The names as the table shows them.
    """
    lines = [
        "| method | " + " | ".join(heading for _, heading, _ in COLUMNS) + " | seconds |",
        "| --- " * (len(COLUMNS) + 2) + "|",
    ]
    for name, method in methods.items():
        cells = [
            "{mean:.{n}f} [{low:.{n}f}, {high:.{n}f}]".format(**method["scores"][score], n=decimals)
            for score, _, decimals in COLUMNS
        ]
        lines.append("| " + " | ".join([labels[name], *cells, f"{method['seconds']:.2g}"]) + " |")
    return "\n".join(lines) + "\n"
