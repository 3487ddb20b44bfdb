# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pandas as pd
import pytest

from diffscm_diffusers.evaluation.summary import SCORES, make_table, summarize


def draw_samples(num_pairs: int) -> pd.DataFrame:
    """Every score is normal with mean 2 and standard deviation 3, but for a constant one."""
    values = np.random.default_rng(0).normal(2, 3, (num_pairs, len(SCORES)))
    return pd.DataFrame(values, columns=SCORES).assign(effectiveness=1.0)


@pytest.mark.parametrize("num_pairs", [50, 5000])
def test_interval_is_that_of_a_normal_mean(num_pairs):
    summary = summarize(draw_samples(num_pairs), seed=0)
    half_width = 1.96 * 3 / num_pairs**0.5
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


def test_table_has_a_row_per_method():
    scores = {name: {"mean": 0.5, "low": 0.25, "high": 0.75} for name in SCORES}
    scores["im2"] = {"mean": 0.04321, "low": 0.04, "high": 0.05}
    methods = {name: {"scores": scores, "seconds": 0.1234} for name in ("schut", "factual")}
    lines = make_table(methods, {"schut": "Schut et al.", "factual": "*factual*"}).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| Schut et al.", "| *factual*"]
    assert "0.500 [0.250, 0.750]" in lines[2] and "0.0432 [0.0400, 0.0500]" in lines[2] and "| 0.12 |" in lines[2]
