# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pandas as pd
import pytest

from diffscm_diffusers.evaluation.summary import make_table, summarize


SCORES = ["error_l1", "im1", "im2", "cld", "cld_excess", "effectiveness", "l1"]


def draw_samples(num_pairs: int) -> pd.DataFrame:
    """Every score is normal with mean 2 and standard deviation 3, but for a constant one."""
    values = np.random.default_rng(0).normal(2, 3, (num_pairs, len(SCORES)))
    scores = pd.DataFrame(values, columns=SCORES).assign(effectiveness=1.0)
    return scores.assign(method="diff-scm", index=0, row=1, factual_class=2, intervention=3, seconds=0.1)


@pytest.mark.parametrize("num_pairs", [50, 5000])
def test_interval_is_that_of_a_normal_mean(num_pairs):
    summary = summarize(draw_samples(num_pairs), seed=0)
    half_width = 1.96 * 3 / num_pairs**0.5
    assert set(summary) == set(SCORES)
    for name in set(SCORES) - {"effectiveness"}:
        mean, low, high = (summary[name][key] for key in ("mean", "low", "high"))
        assert low < mean < high
        assert (high - low) / 2 == pytest.approx(half_width, rel=0.3)
        assert abs(mean - 2) < 3 * half_width


def test_a_constant_has_no_width():
    assert summarize(draw_samples(50), seed=0)["effectiveness"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_the_seed_fixes_the_interval():
    samples = draw_samples(50)
    assert summarize(samples, seed=0) == summarize(samples, seed=0)
    assert summarize(samples, seed=0) != summarize(samples, seed=1)


def read_rows(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len({line.count("|") for line in table.splitlines()}) == 1
    return {label: cells for label, *cells in rows}


def test_table_has_a_column_per_method_and_a_row_per_score():
    scores = {name: {"mean": 0.5, "low": 0.25, "high": 0.75} for name in ("im1", "l1")}
    truth = {"error_l1": {"mean": 0.04321, "low": 0.04, "high": 0.05}, "error_ink": scores["l1"], "crps": scores["l1"]}
    law = {"std": 0.987, "kurtosis": 3.1}
    told = {"distance_correlation": 0.01, "p_value": 0.25, "probe_accuracy": 0.2, "probe_chance": 0.125}
    methods = {
        "diff-scm": {"scores": {**scores, **truth}, "noise": {"noise": {**law, **told}}, "seconds": 0.1234},
        "factual": {"scores": {**scores, "error_l1": scores["l1"]}, "noise": {}, "seconds": 2.0},
    }
    labels = {"diff-scm": "Diff-SCM", "factual": "*factual*"}
    table = make_table(methods, labels, {"error_ink": "error of ink"})
    assert table.splitlines()[0] == "| | Diff-SCM | *factual* |"
    rows = read_rows(table)
    assert rows == {
        "error to the true counterfactual, L1 ↓": ["0.0432 [0.0400, 0.0500]", "0.5000 [0.2500, 0.7500]"],
        "error of ink ↓": ["0.500 [0.250, 0.750]", ""],
        "CRPS of the draws ↓": ["0.5000 [0.2500, 0.7500]", ""],
        "class read from the exogenous noise (chance 0.125) ↓": ["0.200", ""],
        "distance correlation of exogenous noise and class (p-value)": ["0.0100 (0.250)", ""],
        "std of the exogenous noise (1)": ["0.987", ""],
        "kurtosis of the exogenous noise (3)": ["3.100", ""],
        "IM1 ↓": ["0.500 [0.250, 0.750]"] * 2,
        "L1 from the factual ↓": ["0.5000 [0.2500, 0.7500]"] * 2,
        "seconds": ["0.12", "2"],
    }
    # The truth leads, and what is typical comes last.
    assert list(rows)[0].startswith("error to the true") and list(rows)[-3:-1] == ["IM1 ↓", "L1 from the factual ↓"]
