# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Means with bootstrap intervals, and the table of all scores."""

import numpy as np
import pandas as pd
from scipy.stats import bootstrap


# Columns of samples that are no scores.
KEYS = ["method", "guidance_scale", "index", "row", "factual_class", "intervention", "seconds"]
# The table's rows, and the number of decimals: what is known by the truth, what needs none, and what is typical.
TRUTH = {
    "error_l1": ("error to the true counterfactual, L1 ↓", 4),
    "error_rms": ("error to the true counterfactual, RMS ↓", 4),
    "error_of_one_draw": ("error of one draw, L1 ↓", 4),
    "error_of_mean": ("error of the mean of the draws, L1 ↓", 4),
}
DRAWS = {
    "coverage": ("coverage of the draws' 90 % interval, where they or the truth differ (0.9)", 3),
    "coverage_of_ink": ("the same, where there is ink (0.9)", 3),
    "crps": ("CRPS of the draws ↓", 4),
}
CRITERIA = {
    "null_intervention": ("null intervention, L1 ↓", 4),
    "there_and_back": ("there and back, L1 ↓", 4),
    "ten_times_there_and_back": ("ten times there and back, L1 ↓", 4),
}
TYPICALITY = {
    "effectiveness": ("effectiveness ↑", 3),
    "im1": ("IM1 ↓", 3),
    "im2": ("IM2 ↓", 4),
    "cld": ("CLD ↓", 3),
    "cld_excess": ("CLD - floor ↓", 3),
    "l1": ("L1 from the factual ↓", 4),
}
PARTS = {"noise": "exogenous noise", "code": "code"}


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
    samples = samples.drop(columns=KEYS, errors="ignore")
    values = samples.to_numpy(dtype=np.float64).T
    for name, row in zip(samples.columns, values, strict=True):
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
            samples.columns, values.mean(axis=1).tolist(), interval.low.tolist(), interval.high.tolist(), strict=True
        )
    }


def make_table(methods: dict[str, dict], labels: dict[str, str], attributes: dict[str, str] | None = None) -> str:
    """
    Sets a summary as a Markdown table: a column for each method, a row for each score that one of them has, with
    `mean [low, high]` in its cells. Scores by the truth come first, then the criteria that need none, then the
    paper's, which ask how typical an image is.

    Args:
        methods (`dict`): By name what `summary.json` has of each method.
        labels (`dict[str, str]`): The methods' names as the table shows them.
        attributes (`dict[str, str]`, *optional*): Scores of measured attributes, and what the table calls them.
    """
    attribute_rows = {score: (f"{label} ↓", 3) for score, label in (attributes or {}).items()}
    rows = {}
    for score, (label, decimals) in {**TRUTH, **attribute_rows, **DRAWS, **CRITERIA}.items():
        rows[label] = [format_score(method["scores"].get(score), decimals) for method in methods.values()]
    for part, title in PARTS.items():
        noises = [method.get("noise", {}).get(part, {}) for method in methods.values()]
        chances = {f"{noise['probe_chance']:.3f}" for noise in noises if "probe_chance" in noise}
        rows[f"class read from the {title} (chance {', '.join(sorted(chances))}) ↓"] = [
            f"{noise['probe_accuracy']:.3f}" if "probe_accuracy" in noise else "" for noise in noises
        ]
        rows[f"distance correlation of {title} and class (p-value)"] = [
            "{distance_correlation:.4f} ({p_value:.3f})".format(**noise) if "p_value" in noise else ""
            for noise in noises
        ]
        for score, expected in (("std", 1), ("kurtosis", 3)):
            rows[f"{score} of the {title} ({expected})"] = [
                f"{noise[score]:.3f}" if score in noise else "" for noise in noises
            ]
    for score, (label, decimals) in TYPICALITY.items():
        rows[label] = [format_score(method["scores"].get(score), decimals) for method in methods.values()]
    rows["seconds"] = [f"{method['seconds']:.2g}" for method in methods.values()]
    lines = ["| | " + " | ".join(labels[name] for name in methods) + " |", "| --- " * (len(methods) + 1) + "|"]
    lines += [f"| {label} | " + " | ".join(cells) + " |" for label, cells in rows.items() if any(cells)]
    return "\n".join(lines) + "\n"


def format_score(score: dict[str, float] | None, decimals: int) -> str:
    """A cell of the table: the mean and its interval, or nothing."""
    return "" if score is None else "{mean:.{n}f} [{low:.{n}f}, {high:.{n}f}]".format(**score, n=decimals)
