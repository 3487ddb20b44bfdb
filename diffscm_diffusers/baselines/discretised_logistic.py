# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F


# Half the distance of two of the 256 values of a pixel, of images in [-1, 1].
HALF_BIN = 1 / 255

# A smaller scale than a 20th of a bin makes no difference.
MIN_LOG_SCALE = -8.0


def discretised_logistic_log_prob(sample: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """
    Log-probability of each pixel of 8-bit images: the mass that a logistic distribution has in the pixel's bin, that
    of the darkest and the brightest value with all that lies beyond
    ([Salimans et al., 2017](https://huggingface.co/papers/1701.05517)).

    Args:
        sample (`torch.Tensor`): Images in [-1, 1].
        mean (`torch.Tensor`): Of the shape of `sample`.
        scale (`torch.Tensor`): Of the shape of `sample`, positive.

    Returns:
        `torch.Tensor`: nats, of the shape of `sample`.
    """
    above, below = (sample + HALF_BIN - mean) / scale, (sample - HALF_BIN - mean) / scale
    # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)), in which nothing cancels.
    log_prob = F.logsigmoid(above) + F.logsigmoid(-below) + (-torch.expm1(-2 * HALF_BIN / scale)).log()
    log_prob = torch.where(sample < -1 + HALF_BIN, F.logsigmoid(above), log_prob)
    return torch.where(sample > 1 - HALF_BIN, F.logsigmoid(-below), log_prob)


def mean_and_scale(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A decoder's last channels, the means and then the logarithms of the scales, in float32."""
    mean, log_scale = parameters.float().chunk(2, dim=1)
    # Most of an image is background, at -1.
    return mean - 1, (log_scale - 2).clamp_min(MIN_LOG_SCALE).exp()
