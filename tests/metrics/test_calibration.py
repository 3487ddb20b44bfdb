# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import numpy as np
import pytest
import torch
from scipy import stats

from diffscm_diffusers.metrics import CRPS, Coverage, functional


def gaussian(*shape: int, std: float = 1.0, mean: float = 0.0, seed: int = 0) -> torch.Tensor:
    return mean + std * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("num_draws, level", [(3, 0.5), (7, 0.6), (8, 0.5), (19, 0.9), (50, 0.9)])
def test_draws_from_the_truths_law_have_the_stated_coverage(num_draws, level):
    draws, truth = gaussian(num_draws, 400, 50, seed=1), gaussian(400, 50)
    assert functional.coverage(draws, truth, level).mean().item() == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_coverage_of_draws_of_another_spread(std):
    """With many draws, the interval is that of the draws' own law, and its coverage a Gaussian's probability."""
    draws, truth = gaussian(400, 5000, std=std, seed=1), gaussian(5000)
    expected = 2 * stats.norm.cdf(std * stats.norm.ppf(0.95)) - 1
    assert functional.coverage(draws, truth, 0.9).mean().item() == pytest.approx(expected, abs=0.01)


def test_coverage_by_hand():
    draws = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None].expand(4, 6)
    truth = torch.tensor([0.0, 1.5, 2.5, 3.5, 5.0, 2.0])
    # Of the five ranks 1.25 on either side are left out: 0.75 of the second is covered. 2 has rank 1 or 2.
    expected = torch.tensor([0, 0.75, 1, 0.75, 0, 0.875])
    torch.testing.assert_close(functional.coverage(draws, truth, 0.5), expected)


def test_ties_leave_the_coverage_as_it_is():
    """Pixels are often black, in the draws and in the truth."""
    draws, truth = gaussian(9, 1000, 50, seed=1).clamp(min=0), gaussian(1000, 50).clamp(min=0)
    assert functional.coverage(draws, truth, 0.8).mean().item() == pytest.approx(0.8, abs=0.01)


def test_elements_that_never_vary_do_not_count():
    draws, truth = gaussian(19, 4, 3, 8, 8), gaussian(4, 3, 8, 8, seed=1)
    expected = functional.coverage(draws[:, :, :1], truth[:, :1])
    draws[:, :, 1:], truth[:, 1:] = 0, 0
    torch.testing.assert_close(functional.coverage(draws, truth), expected)
    # An element that draws agree on, and are wrong about, does.
    truth[:, 1:] = 1
    assert (functional.coverage(draws, truth) < 0.5 * expected).all()

    truth[:], draws[:] = 0, 0
    assert functional.coverage(draws, truth).isnan().all()
    metric = Coverage()
    metric.update(draws, truth)
    metric.update(gaussian(19, 4, 30), gaussian(4, 30, seed=1))
    assert 0 < metric.compute() < 1


def test_a_threshold_leaves_the_coverage_of_the_truths_law_as_it_is():
    """Ink in the draws or in the truth, whichever: by the truth alone, its rank would be a high one."""
    draws, truth = gaussian(19, 4000, 50, seed=1), gaussian(4000, 50)
    assert functional.coverage(draws, truth, threshold=2.2).nanmean().item() == pytest.approx(0.9, abs=0.01)
    covered = functional.coverage(draws.flatten(1), truth.flatten())
    assert covered[truth.flatten() > 2.2].mean() < 0.6

    # What is below it does not count, whatever it covers.
    expected = functional.coverage(draws, truth, threshold=2.2)
    with_background = torch.cat([draws, draws - 9], dim=2), torch.cat([truth, truth - 9], dim=1)
    torch.testing.assert_close(functional.coverage(*with_background, threshold=2.2), expected, equal_nan=True)
    metric = Coverage(threshold=2.2, reduction="none")
    metric.update(draws, truth)
    torch.testing.assert_close(metric.compute(), expected.float(), equal_nan=True)
    with pytest.raises(ValueError, match="`threshold` expects a finite number, got nan"):
        Coverage(threshold=math.nan)
    with pytest.raises(ValueError, match="`threshold` expects a finite number, got nan"):
        functional.coverage(draws, truth, threshold=math.nan)


@pytest.mark.parametrize("num_draws", [2, 5, 40])
@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (0.7, 1.0), (0.0, 0.3)])
def test_crps_of_gaussian_draws(num_draws, mean, std):
    """Gneiting et al. (2005), eq. 5, the CRPS of a Gaussian, at any number of draws."""
    truth = 0.4
    z = (truth - mean) / std
    expected = std * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi))
    draws = gaussian(num_draws, 40000, mean=mean, std=std, seed=num_draws)
    result = functional.crps(draws, torch.full((40000,), truth, dtype=torch.float64)).mean().item()
    assert result == pytest.approx(expected, abs=0.015)


def test_crps_by_its_definition():
    draws, truth = gaussian(6, 3, 2, 4), gaussian(3, 2, 4, seed=1)
    pairs = (draws[:, None] - draws).abs().sum(dim=(0, 1)) / (2 * 6 * 5)
    expected = ((draws - truth).abs().mean(0) - pairs).mean(dim=(1, 2))
    torch.testing.assert_close(functional.crps(draws, truth), expected)


def test_crps_is_lowest_for_the_truths_own_law():
    truth = gaussian(20000)
    crps = {
        std: functional.crps(gaussian(4, 20000, std=std, seed=1), truth).mean().item()
        for std in (0.5, 0.8, 1, 1.25, 2)
    }
    assert min(crps, key=crps.get) == 1
    torch.testing.assert_close(crps[1], 1 / math.sqrt(math.pi), atol=0.01, rtol=0)


def test_crps_of_equal_draws_is_the_absolute_error():
    draws, truth = torch.full((3, 2), 0.25), torch.tensor([1.0, 0.0])
    torch.testing.assert_close(functional.crps(draws, truth), torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize("metric_class, function", [(Coverage, functional.coverage), (CRPS, functional.crps)])
def test_metrics_gather_batches(metric_class, function):
    draws, truth = gaussian(20, 7, 1, 4, 4).float(), gaussian(7, 1, 4, 4, seed=1).float()
    expected = function(draws, truth)
    mean, samples = metric_class(), metric_class(reduction="none")
    for part in (slice(0, 3), slice(3, 7)):
        mean.update(draws[:, part], truth[part])
        samples.update(draws[:, part], truth[part])
    torch.testing.assert_close(samples.compute(), expected)
    torch.testing.assert_close(mean.compute(), expected.mean())
    with pytest.raises(RuntimeError, match="no samples yet"):
        with pytest.warns(UserWarning):
            metric_class().compute()


@pytest.mark.parametrize("function, fewest", [(functional.coverage, 1), (functional.crps, 2)])
def test_wrong_draws_are_refused(function, fewest):
    draws, truth = torch.zeros(fewest, 3, 2), torch.zeros(3, 2)
    for wrong, error, message in (
        ((draws[1:], truth), ValueError, f"at least {fewest} draws, got shape"),
        ((draws[:, :2], truth), ValueError, r"`draws` expects shape \(num_draws, 3, 2\)"),
        ((truth, truth), ValueError, r"`draws` expects shape \(num_draws, 3, 2\)"),
        ((draws, truth[0, 0]), ValueError, "`truth` expects at least one sample"),
        ((draws, truth * torch.nan), ValueError, "`truth` expects finite values"),
        ((draws / 0, truth), ValueError, "`draws` expects finite values"),
        ((draws.int(), truth), TypeError, "`draws` expects a tensor of floats, got torch.int32"),
        ((draws, np.zeros((3, 2))), TypeError, "`truth` expects a tensor of floats, got ndarray"),
    ):
        with pytest.raises(error, match=message):
            function(*wrong)


@pytest.mark.parametrize("num_draws, level, fewest", [(18, 0.9, 19), (8, 0.8, 9), (2, 0.5, 3)])
def test_an_interval_that_all_ranks_reach_is_refused(num_draws, level, fewest):
    truth = torch.zeros(4)
    with pytest.raises(ValueError, match=f"at least {fewest} draws for a level of {level}, got {num_draws}"):
        functional.coverage(torch.zeros(num_draws, 4), truth, level)
    functional.coverage(torch.zeros(fewest, 4), truth, level)


@pytest.mark.parametrize("level", [0, 1, 1.5, math.nan])
def test_wrong_level_is_refused(level):
    with pytest.raises(ValueError, match="`level` expects a number between 0 and 1"):
        functional.coverage(torch.zeros(2, 3), torch.zeros(3), level)
    with pytest.raises(ValueError, match="`level` expects a number between 0 and 1"):
        Coverage(level)
