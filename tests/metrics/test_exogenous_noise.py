# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from diffscm_diffusers.metrics import DistanceCorrelation, ExogenousNoiseLaw, functional, probe_accuracy, probe_r2


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def correlation(noise: torch.Tensor, cause: torch.Tensor, **options) -> tuple[float, float]:
    result = functional.distance_correlation(noise, cause, **options)
    return result["distance_correlation"].item(), result["p_value"].item()


@pytest.mark.parametrize(
    "noise, std, kurtosis",
    [
        (gaussian(200, 1, 28, 28), 1, 3),
        (3 * gaussian(200, 1, 28, 28) + 5, 3, 3),
        (uniform(200, 1, 28, 28), 1 / math.sqrt(12), 1.8),
        (-uniform(200, 1, 28, 28).log(), 1, 9),
    ],
)
def test_law_of_known_noise(noise, std, kurtosis):
    law = functional.exogenous_noise_law(noise)
    assert law["std"].item() == pytest.approx(std, rel=0.01)
    assert law["kurtosis"].item() == pytest.approx(kurtosis, rel=0.05)


def test_law_of_all_batches_together():
    noise = 2 * uniform(10, 3, 4) + 7
    metric = ExogenousNoiseLaw()
    for part in (noise[:4], noise[4:]):
        metric.update(part)
    law = metric.compute()
    assert law["mean"].item() == pytest.approx(noise.mean().item(), rel=1e-6)
    assert law["std"].item() == pytest.approx(noise.std(correction=0).item(), rel=1e-5)
    expected = stats.kurtosis(noise.double().flatten().numpy(), fisher=False)
    assert law["kurtosis"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_distance_correlation_of_a_bivariate_gaussian(rho):
    """Székely et al. (2007), Theorem 7: the squared distance correlation as a function of the correlation."""
    x, e = gaussian(1500), gaussian(1500, seed=1)
    y = rho * x + math.sqrt(1 - rho**2) * e
    expected = (
        rho * math.asin(rho) + math.sqrt(1 - rho**2) - rho * math.asin(rho / 2) - math.sqrt(4 - rho**2) + 1
    ) / (1 + math.pi / 3 - math.sqrt(3))
    assert correlation(x[:, None], y, num_permutations=1)[0] == pytest.approx(expected, abs=0.03)


def double_centred(noise: np.ndarray, cause_distance: np.ndarray) -> float:
    """The definition of Székely & Rizzo (2013), eqs. 2.5 to 2.8, from double-centred distances, as there."""
    n = len(noise)

    def modified(a):
        centred = a - a.mean(axis=0) - a.mean(axis=1)[:, None] + a.mean()
        result = n / (n - 1) * (centred - a / n)
        np.fill_diagonal(result, n / (n - 1) * (a.mean(axis=0) - a.mean()))
        return result

    def product(a, b):
        off_diagonal = (a * b).sum() - (np.diag(a) * np.diag(b)).sum()
        return off_diagonal - 2 / (n - 2) * (np.diag(a) * np.diag(b)).sum()

    a, b = modified(squareform(pdist(noise))), modified(cause_distance)
    return product(a, b) / math.sqrt(product(a, a) * product(b, b))


def test_distance_correlation_by_its_definition():
    noise, number, label = gaussian(12, 2, 3), gaussian(12, seed=1) + gaussian(12, 2, 3)[:, 0, 0], torch.arange(12) % 3
    flat = noise.flatten(1).double().numpy()
    expected = double_centred(flat, squareform(pdist(number.double().numpy()[:, None])))
    assert correlation(noise, number)[0] == pytest.approx(expected, rel=1e-5)
    expected = double_centred(flat, (label[:, None] != label).double().numpy())
    assert correlation(noise, label)[0] == pytest.approx(expected, rel=1e-5)


def test_independent_noise_of_many_dimensions_has_no_correlation():
    results = [
        correlation(gaussian(60, 784, seed=2 * s), torch.arange(60) % 10, num_permutations=19) for s in range(40)
    ]
    correlations, p_values = np.array(results).T
    assert abs(correlations.mean()) < 3 * correlations.std() / math.sqrt(40)
    # Under independence each of the 20 ranks is as likely.
    assert stats.kstest(p_values - uniform(40).numpy() / 20, "uniform").pvalue > 0.01


def test_dependence_beyond_correlation_is_seen():
    noise = gaussian(300, 2)
    angle = torch.atan2(noise[:, 0], noise[:, 1])
    assert correlation(noise, noise.norm(dim=1))[1] == pytest.approx(1 / 201)
    assert correlation(noise, (4 * angle).cos())[1] < 0.1
    assert correlation(noise, gaussian(300, seed=1))[1] > 0.1


def test_distance_correlation_of_all_batches_together():
    noise, cause = gaussian(40, 1, 3, 3), torch.arange(40) % 4
    metric = DistanceCorrelation(num_permutations=30, seed=3)
    metric.update(noise[:15], cause[:15])
    metric.update(noise[15:], cause[15:])
    assert metric.compute() == functional.distance_correlation(noise, cause, num_permutations=30, seed=3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (16,)], ids=["image", "code"])
def test_probe_reads_what_is_there_and_nothing_else(shape):
    cause = torch.arange(1000) % 4
    noise = gaussian(1000, *shape)
    blind = probe_accuracy(noise, cause)
    assert 0.25 <= blind["chance"] < 0.32
    assert blind["accuracy"] == pytest.approx(0.25, abs=3.5 * math.sqrt(0.25 * 0.75 / 200))
    # The class moves a quarter of the noise's elements.
    leaking = noise.clone()
    leaking.flatten(1).unflatten(1, (4, -1))[torch.arange(1000), cause] += 1.0
    seen = probe_accuracy(leaking, cause)
    assert seen["accuracy"] > 0.6
    assert probe_accuracy(leaking, cause) == seen


@pytest.mark.parametrize("shape", [(1, 8, 8), (16,)], ids=["image", "code"])
def test_probe_reads_a_number(shape):
    noise = gaussian(1000, *shape)
    thickness = 2.5 + 0.5 * gaussian(1000, seed=1)
    # A probe that learned its samples by heart would be far below 0.
    assert -0.1 < probe_r2(noise, thickness) < 0.05
    assert probe_r2(noise + thickness.view(-1, *[1] * len(shape)), thickness) > 0.5


def test_probe_works_without_gradients_and_leaves_the_random_state():
    state = torch.get_rng_state()
    with torch.inference_mode():
        inside = probe_accuracy(gaussian(50, 4), torch.arange(50) % 2)
    assert inside == probe_accuracy(gaussian(50, 4), torch.arange(50) % 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "function", [functional.distance_correlation, probe_accuracy, probe_r2], ids=lambda function: function.__name__
)
def test_wrong_noise_and_causes_are_refused(function):
    noise, cause = gaussian(20, 3), torch.arange(20)
    if function is probe_r2:
        cause = cause.float()
    for wrong, error, message in (
        ((noise.int(), cause), TypeError, "`noise` expects a tensor of floats, got torch.int32"),
        ((noise[:, 0], cause), ValueError, r"`noise` expects .* shape \(batch, ...\), got \(20,\)"),
        ((noise / 0, cause), ValueError, "`noise` expects finite values"),
        ((noise, cause[:3]), ValueError, r"`cause` expects one value for each of the 20 samples, got shape \(3,\)"),
        ((noise, cause > 3), TypeError, "`cause` expects .*, got torch.bool"),
        ((noise, cause.tolist()), TypeError, "`cause` expects .*, got list"),
        ((noise[:3], cause[:3]), ValueError, "`noise` expects at least .* samples, got 3"),
        ((noise, cause.float() / 0), (ValueError, TypeError), "`cause` expects"),
    ):
        with pytest.raises(error, match=message):
            function(*wrong)


def test_values_that_never_change_are_refused():
    with pytest.raises(ValueError, match="expect values that differ"):
        functional.distance_correlation(torch.ones(20, 3), torch.arange(20))
    with pytest.raises(ValueError, match="`cause` expects values that differ, got 2.0 for all"):
        probe_r2(gaussian(20, 3), torch.full((20,), 2.0))
    with pytest.raises(ValueError, match="`num_permutations` expects a positive number, got 0"):
        DistanceCorrelation(num_permutations=0)
    with pytest.raises(ValueError, match="`num_permutations` expects a positive number, got 0"):
        functional.distance_correlation(gaussian(20, 3), torch.arange(20), num_permutations=0)
    with pytest.raises(TypeError, match="`cause` expects a tensor of floats, got torch.int64"):
        probe_r2(gaussian(20, 3), torch.arange(20))
    with pytest.raises(ValueError, match="`cause` expects class indices from 0, got -1"):
        probe_accuracy(gaussian(20, 3), torch.arange(20) - 1)
    with pytest.raises(ValueError, match="`noise` expects at least one sample"):
        functional.exogenous_noise_law(torch.zeros(0, 3))
    with pytest.raises(RuntimeError, match="no samples yet"), pytest.warns(UserWarning):
        ExogenousNoiseLaw().compute()
    with pytest.raises(RuntimeError, match="`DistanceCorrelation` has no samples yet"), pytest.warns(UserWarning):
        DistanceCorrelation().compute()
