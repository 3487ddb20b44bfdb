# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What keeps a code independent of the causes: an adversary that reads them from it, and a measure of dependence."""

import math

import torch
import torch.nn.functional as F
from torch import nn


# Of the standard deviation of a number, half a percent of its range. A finer one is not worth reading.
MIN_STD = 0.01


class CauseAdversary(nn.Module):
    """
    Reads the causes from the code: a softmax for each categorical one, a Gaussian for each number.

    Args:
        code_dim (`int`): Length of the code.
        condition_widths (`dict[str, int]`):
            The causes, in the order of the condition, and how many of its entries each has: 1 for a number, else the
            number of its one-hot entries.
        hidden_features (`int`, *optional*, defaults to 128): Width of its two hidden layers.
    """

    def __init__(self, code_dim: int, condition_widths: dict[str, int], hidden_features: int = 128):
        super().__init__()
        self.widths = list(condition_widths.values())
        self.layers = nn.Sequential(
            nn.Linear(code_dim, hidden_features),
            nn.SiLU(),
            nn.Linear(hidden_features, hidden_features),
            nn.SiLU(),
            nn.Linear(hidden_features, sum(2 if width == 1 else width for width in self.widths)),
        )

    def forward(self, code: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            code (`torch.Tensor` of shape `(batch, code_dim)`): Drawn codes.
            condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`): The causes.

        Returns:
            `tuple` of three scalars in nats, sums over the causes and means over the batch: the negative
            log-likelihood of the causes given the code, which the adversary minimises; the divergence `KL(p(cause) ||
            p(cause | code))` of what it answers from the batch's marginal, which the encoder minimises; and the
            information that it finds, by how much its answers beat the marginal.
        """
        # In float32, as the terms are differences of numbers of about the same size.
        with torch.autocast(code.device.type, enabled=False):
            answers = self.layers(code.float()).split([2 if width == 1 else width for width in self.widths], dim=1)
        nll = divergence = information = 0
        for answer, value in zip(answers, condition.float().split(self.widths, dim=1), strict=True):
            # Cross-entropies of the answer with the cause and with the marginal, and the marginal's own entropy.
            if value.shape[1] == 1:
                value, mean, std = value[:, 0], answer[:, 0], F.softplus(answer[:, 1]) + MIN_STD
                marginal_mean, marginal_std = value.mean(), value.std(correction=0).clamp(min=MIN_STD)
                log_normaliser = std.log() + math.log(2 * math.pi) / 2
                with_cause = ((value - mean).square() / (2 * std**2) + log_normaliser).mean()
                spread = marginal_std**2 + (marginal_mean - mean).square()
                with_marginal = (spread / (2 * std**2) + log_normaliser).mean()
                entropy = marginal_std.log() + (1 + math.log(2 * math.pi)) / 2
            else:
                log_prob, marginal = answer.log_softmax(dim=1), value.mean(dim=0)
                with_cause = -(value * log_prob).sum(dim=1).mean()
                with_marginal = -(marginal * log_prob).sum(dim=1).mean()
                entropy = torch.special.entr(marginal).sum()
            nll = nll + with_cause
            divergence = divergence + with_marginal - entropy
            information = information + entropy - with_cause
        return nll, divergence, information


def cause_features(condition: torch.Tensor, condition_widths: dict[str, int]) -> torch.Tensor:
    """
    Functions of the causes, orthonormal for each cause under its law: the classes of a categorical one, each over the
    square root of its frequency; of a number the first four cosines of its rank in the batch. So for a categorical
    cause the squared covariances of anything with its features add up to the variance of the conditional mean given
    it, and for a number to that of its smooth part.

    Args:
        condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`): The causes.
        condition_widths (`dict[str, int]`): See [`CauseAdversary`].

    Returns:
        `torch.Tensor` of shape `(batch, number of features)`: float32.
    """
    features = []
    for value in condition.float().split(list(condition_widths.values()), dim=1):
        if value.shape[1] == 1:
            rank = (value[:, 0].argsort().argsort() + 0.5) / len(value)
            frequency = torch.arange(1, 5, device=value.device)
            features.append(math.sqrt(2) * (math.pi * rank[:, None] * frequency).cos())
        else:
            features.append(value * value.mean(dim=0).clamp(min=1 / len(value)).rsqrt())
    return torch.cat(features, dim=1)


def code_kernel(code: torch.Tensor) -> torch.Tensor:
    """
    Similarity of codes, `(batch, batch)`: the mean of Gaussian kernels whose widths are 0.5, 1 and 2 times the square
    root of the code's length. Dependence in it is dependence of any moment.
    """
    distance = (code[:, None] - code[None]).square().mean(dim=2)
    return torch.stack([(-distance / (2 * width**2)).exp() for width in (0.5, 1.0, 2.0)]).mean(dim=0)


def dependence(code_kernel: torch.Tensor, cause_kernel: torch.Tensor) -> torch.Tensor:
    """
    The unbiased estimate of the Hilbert-Schmidt independence criterion ([Song et al.,
    2012](https://jmlr.org/papers/v13/song12a.html)). Its mean is 0 for independent variables, so an estimate can be
    negative; with the kernels `z z^T` and `f f^T` it is that of the sum of squared covariances of `z` and `f`.

    Args:
        code_kernel (`torch.Tensor` of shape `(batch, batch)`): Similarity of the codes. The batch has at least four.
        cause_kernel (`torch.Tensor` of shape `(batch, batch)`): Similarity of the causes.

    Returns:
        `torch.Tensor`: a scalar.
    """
    batch = len(code_kernel)
    # A sample is not compared with itself; that is what makes it unbiased.
    others = 1 - torch.eye(batch, device=code_kernel.device)
    code_kernel, cause_kernel = code_kernel * others, cause_kernel * others
    code_rows, cause_rows = code_kernel.sum(dim=1), cause_kernel.sum(dim=1)
    estimate = (
        (code_kernel * cause_kernel).sum()
        + code_rows.sum() * cause_rows.sum() / ((batch - 1) * (batch - 2))
        - 2 / (batch - 2) * (code_rows @ cause_rows)
    )
    return estimate / (batch * (batch - 3))
