# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Whether probabilities are what they say, and the temperature that makes them so."""

import math

import torch
import torch.nn.functional as F


# No fit goes beyond these: the likelihood of samples that are all classified right rises for ever towards 0, and where
# nothing tells the class, towards infinity.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0


def _check(logits: torch.Tensor, classes: torch.Tensor):
    if not torch.is_tensor(logits) or not logits.is_floating_point():
        got = logits.dtype if torch.is_tensor(logits) else type(logits).__name__
        raise TypeError(f"`logits` expects a tensor of floats, got {got}.")
    if logits.ndim != 2 or len(logits) == 0 or not logits.isfinite().all():
        raise ValueError(
            f"`logits` expects finite values of shape (num_samples, num_classes), got shape {tuple(logits.shape)}."
        )
    if not torch.is_tensor(classes) or classes.is_floating_point() or classes.dtype == torch.bool:
        got = classes.dtype if torch.is_tensor(classes) else type(classes).__name__
        raise TypeError(f"`classes` expects a tensor of integers, got {got}.")
    if classes.shape != logits.shape[:1] or not ((classes >= 0) & (classes < logits.shape[1])).all():
        raise ValueError(
            f"`classes` expects a class from 0 to {logits.shape[1] - 1} for each of {len(logits)} samples, got shape "
            f"{tuple(classes.shape)}."
        )


def fit_temperature(logits: torch.Tensor, classes: torch.Tensor) -> float:
    """
    The temperature `T` of the highest likelihood of `softmax(logits / T)` ([Guo et al.,
    2017](https://huggingface.co/papers/1706.04599)).

    The negative log likelihood is convex in `1 / T`, so its slope is bisected. `T` is sought from 0.05 to 20: where it
    is one of these, the likelihood rises up to there.

    Args:
        logits (`torch.Tensor` of shape `(num_samples, num_classes)`): Floats.
        classes (`torch.Tensor` of shape `(num_samples,)`): The class of each sample.

    Returns:
        `float`: above 1 if the probabilities are too sure of themselves, below 1 if they are not sure enough.

    Raises:
        ValueError: if the shapes do not match, or values are out of their range.
        TypeError: if `logits` are no floats or `classes` no integers.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.evaluation.temperatures import fit_temperature
        >>> logits = 2 * torch.tensor([[0.75, 0.25]]).log().expand(4, 2)  # twice those of a class seen in 3 of 4
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 6)
        2.0
    """
    _check(logits, classes)
    logits = logits.double()
    seen = logits.gather(1, classes[:, None]).mean()
    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    for _ in range(50):
        middle = (low + high) / 2
        expected = ((logits / math.exp(middle)).softmax(dim=1) * logits).sum(dim=1).mean()
        # Surer than the classes are seen: the temperature has to rise.
        low, high = (middle, high) if expected > seen else (low, middle)
    return math.exp((low + high) / 2)


def measure_reliability(logits: torch.Tensor, classes: torch.Tensor, num_bins: int = 15) -> dict:
    """
    How far probabilities are what they say: the highest one of each sample, its confidence, beside how often its class
    is the right one, in bins of equal width.

    Args:
        logits (`torch.Tensor` of shape `(num_samples, num_classes)`): Floats.
        classes (`torch.Tensor` of shape `(num_samples,)`): The class of each sample.
        num_bins (`int`, *optional*, defaults to 15): Number of bins from 0 to 1.

    Returns:
        `dict`: `"ece"`, the expected calibration error, the mean over samples of their bin's difference of confidence
        and accuracy; `"nll"`, the mean negative log likelihood in nats; `"accuracy"`; and `"bins"`, a list of
        `{"bin", "count", "confidence", "accuracy"}` of those with samples.

    Raises:
        ValueError: if the shapes do not match, values are out of their range, or `num_bins` is below 1.
        TypeError: if `logits` are no floats or `classes` no integers.

    Source: [Guo et al. (2017)](https://huggingface.co/papers/1706.04599), Sec. 2.
    """
    _check(logits, classes)
    if type(num_bins) is not int or num_bins < 1:
        raise ValueError(f"`num_bins` expects a whole number of at least 1, got {num_bins!r}.")
    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    right = (predicted == classes).double()
    index = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    count = torch.zeros(num_bins, dtype=torch.float64).index_add(0, index, torch.ones_like(right))
    sums = [torch.zeros_like(count).index_add(0, index, part) for part in (confidence, right)]
    filled = count.nonzero().flatten()
    count, confidence, accuracy = count[filled], *(total[filled] / count[filled] for total in sums)
    columns = zip(filled.tolist(), count.tolist(), confidence.tolist(), accuracy.tolist(), strict=True)
    return {
        "ece": (count * (confidence - accuracy).abs()).sum().item() / len(logits),
        "nll": F.cross_entropy(logits.double(), classes).item(),
        "accuracy": right.mean().item(),
        "bins": [
            {"bin": number, "count": int(n), "confidence": mean, "accuracy": rate} for number, n, mean, rate in columns
        ],
    }
