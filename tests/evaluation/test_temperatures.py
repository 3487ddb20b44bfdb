# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from diffscm_diffusers.evaluation.temperatures import fit_temperature, measure_reliability


def calibrated_samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and classes that come exactly as often as they say."""
    logits, classes = [], []
    for counts in ([6, 3, 1], [1, 1, 2], [2, 9, 9]):
        counts = torch.tensor(counts)
        logits.append((counts.double() / counts.sum()).log().expand(counts.sum(), 3))
        classes.append(torch.arange(3).repeat_interleave(counts))
    return torch.cat(logits) + 5, torch.cat(classes)


@pytest.mark.parametrize("multiple", (0.25, 0.8, 1.0, 3.0))
def test_the_multiple_of_the_true_posterior_is_found(multiple):
    logits, classes = calibrated_samples()
    assert fit_temperature(multiple * logits, classes) == pytest.approx(multiple, rel=1e-9)


def test_no_maximum_gives_the_end_of_the_range():
    logits = torch.eye(3)
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(0.05)  # all right: the surer, the better
    assert fit_temperature(logits, torch.tensor([1, 2, 0])) == pytest.approx(20)  # all wrong


def test_reliability_is_that_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    logits, classes = torch.randn(500, 4, generator=generator), torch.randint(4, (500,), generator=generator)
    reliability = measure_reliability(3 * logits, classes, num_bins=10)
    probabilities = (3 * logits).softmax(dim=1)
    expected = multiclass_calibration_error(probabilities, classes, num_classes=4, n_bins=10)
    assert reliability["ece"] == pytest.approx(expected.item(), abs=1e-6)
    assert reliability["nll"] == pytest.approx(-probabilities[range(500), classes].log().mean().item(), rel=1e-5)
    assert reliability["accuracy"] == (logits.argmax(dim=1) == classes).float().mean()
    assert sum(part["count"] for part in reliability["bins"]) == 500
    for part in reliability["bins"]:
        assert part["bin"] / 10 < part["confidence"] <= (part["bin"] + 1) / 10


def test_calibrated_samples_have_no_error():
    logits, classes = calibrated_samples()
    assert measure_reliability(logits, classes, num_bins=20)["ece"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("logits", "classes", "error", "message"),
    [
        ([[1.0]], torch.tensor([0]), TypeError, "`logits` expects a tensor of floats, got list"),
        (torch.ones(2, 3, dtype=torch.int64), torch.tensor([0, 1]), TypeError, "`logits` expects a tensor of floats"),
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), ValueError, "`logits` expects finite values"),
        (torch.ones(2), torch.tensor([0, 1]), ValueError, r"got shape \(2,\)"),
        (torch.ones(2, 3), torch.tensor([0.0, 1.0]), TypeError, "`classes` expects a tensor of integers"),
        (torch.ones(2, 3), torch.tensor([0, 3]), ValueError, "`classes` expects a class from 0 to 2"),
        (torch.ones(2, 3), torch.tensor([0]), ValueError, r"for each of 2 samples, got shape \(1,\)"),
    ],
)
def test_bad_input_is_refused(logits, classes, error, message):
    for function in (fit_temperature, measure_reliability):
        with pytest.raises(error, match=message):
            function(logits, classes)


def test_bad_bins_are_refused():
    with pytest.raises(ValueError, match="`num_bins` expects a whole number of at least 1, got 0"):
        measure_reliability(*calibrated_samples(), num_bins=0)
