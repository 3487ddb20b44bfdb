# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from diffscm_diffusers.training.independence import CauseAdversary, cause_features, code_kernel, dependence


WIDTHS = {"shade": 3, "level": 1}


def make_condition(num_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shade = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), num_samples, replacement=True, generator=generator)
    level = torch.randn(num_samples, 1, generator=generator)
    return torch.cat([F.one_hot(shade, 3).float(), level], dim=1)


def test_adversary_that_answers_the_marginals_finds_nothing():
    condition = make_condition(200)
    adversary = CauseAdversary(4, WIDTHS).requires_grad_(False)
    adversary.layers[-1].weight.zero_()
    level = condition[:, 3]
    # softplus is inverted; the smallest standard deviation is added to it.
    std = math.log(math.expm1(level.std(correction=0) - 0.01))
    adversary.layers[-1].bias.copy_(torch.tensor([*condition[:, :3].mean(dim=0).log(), level.mean(), std]))
    nll, divergence, information = adversary(torch.randn(200, 4), condition)

    marginal = condition[:, :3].mean(dim=0)
    entropy = -(marginal * marginal.log()).sum() + torch.distributions.Normal(0, level.std(correction=0)).entropy()
    torch.testing.assert_close(nll, entropy)
    torch.testing.assert_close(divergence, torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(information, torch.tensor(0.0), atol=1e-5, rtol=0)


def test_terms_of_the_adversary_are_torch_distributions_own():
    condition, code = make_condition(50), torch.randn(50, 4)
    adversary = CauseAdversary(4, WIDTHS).requires_grad_(False)
    nll, divergence, information = adversary(code, condition)

    answer = adversary.layers(code)
    shades = torch.distributions.Categorical(logits=answer[:, :3])
    levels = torch.distributions.Normal(answer[:, 3], F.softplus(answer[:, 4]) + 0.01)
    log_prob = shades.log_prob(condition[:, :3].argmax(dim=1)) + levels.log_prob(condition[:, 3])
    torch.testing.assert_close(nll, -log_prob.mean())
    marginal_shades = torch.distributions.Categorical(condition[:, :3].mean(dim=0))
    marginal_levels = torch.distributions.Normal(condition[:, 3].mean(), condition[:, 3].std(correction=0))
    expected = torch.distributions.kl_divergence(marginal_shades, shades).mean()
    expected += torch.distributions.kl_divergence(marginal_levels, levels).mean()
    torch.testing.assert_close(divergence, expected)
    torch.testing.assert_close(information, marginal_shades.entropy() + marginal_levels.entropy() - nll)


def test_features_of_the_causes_are_orthonormal_and_tell_all_that_classes_tell():
    condition = make_condition(500)
    features = cause_features(condition, WIDTHS)
    moments = features.T @ features / len(features)
    for block in (slice(0, 3), slice(3, 7)):
        torch.testing.assert_close(moments[block, block], torch.eye(len(moments))[block, block], atol=1e-5, rtol=0)

    # Squared covariances with the classes add up to the variance of the conditional mean.
    values = condition[:, :3] @ torch.tensor([[1.0, 0.0], [-2.0, 1.0], [0.5, 3.0]])
    covariance = (values - values.mean(dim=0)).T @ features[:, :3] / len(values)
    torch.testing.assert_close(covariance.square().sum(), values.var(dim=0, correction=0).sum())


def test_dependence_is_unbiased():
    """Its mean over all samples of five from a population is that of the kernels' covariance in the population."""
    generator = torch.Generator().manual_seed(0)
    code, cause = torch.randn(4, 2, generator=generator).double(), torch.randn(4, 3, generator=generator).double()
    cause[:, 0] += code[:, 0]
    # Drawn with replacement, so that draws are independent.
    estimates = [
        dependence(code[rows] @ code[rows].T, cause[rows] @ cause[rows].T)
        for rows in map(list, itertools.product(range(4), repeat=5))
    ]
    covariance = (code - code.mean(dim=0)).T @ (cause - cause.mean(dim=0)) / 4
    torch.testing.assert_close(torch.stack(estimates).mean(), covariance.square().sum())


@pytest.mark.parametrize("moment", ["mean", "spread"])
def test_kernel_sees_any_moment_and_means_their_own(moment):
    generator = torch.Generator().manual_seed(0)
    condition = F.one_hot(torch.arange(256) % 2, 2).float()
    code = torch.randn(256, 6, generator=generator)
    code = code + 0.5 * condition[:, :1] if moment == "mean" else code * (1 + condition[:, :1])
    features = cause_features(condition, {"shade": 2})

    def estimates(rows):
        cause_kernel = features[rows] @ features[rows].T
        return torch.stack([dependence(code @ code.T, cause_kernel), dependence(code_kernel(code), cause_kernel)])

    seen = estimates(torch.arange(256))
    by_chance = torch.stack([estimates(torch.randperm(256, generator=generator)) for _ in range(50)])
    is_seen = (seen - by_chance.mean(dim=0)) / by_chance.std(dim=0) > 5
    assert is_seen.tolist() == [moment == "mean", True]
