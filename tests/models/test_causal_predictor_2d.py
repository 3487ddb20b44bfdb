# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import inspect

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from diffscm_diffusers import AntiCausalClassifier2DModel, CausalPredictor2DModel


# Not in alphabetical order, which is that of a saved configuration's keys.
WIDTHS = {"thickness": 1, "digit": 3, "intensity": 1}
TINY = {
    "condition_widths": WIDTHS,
    "sample_size": 8,
    "in_channels": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "add_attention": False,
    "head_features": 16,
}
CONDITION = torch.tensor([[0.5, 0, 1, 0, -0.3], [-0.2, 0, 0, 1, 0.4]])


def get_model(**changes) -> CausalPredictor2DModel:
    torch.manual_seed(0)
    return CausalPredictor2DModel(**{**TINY, **changes}).eval()


@pytest.fixture
def sample() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class TestHeads:
    def test_later_heads_change_with_earlier_parents_only_when_chained(self, sample):
        other = CONDITION.clone()
        other[:, 1:4] = torch.tensor([1.0, 0, 0])
        for chained in (True, False):
            model = get_model(chained=chained)
            first, second = (model.log_prob(sample, 7, condition) for condition in (CONDITION, other))
            assert first.shape == (2, 3)
            torch.testing.assert_close(first[:, 0], second[:, 0], atol=0, rtol=0)
            assert (first[:, 1] - second[:, 1]).abs().min() > 1e-4
            assert ((first[:, 2] - second[:, 2]).abs() > 1e-5).all() == chained

    def test_are_distributions(self, sample):
        model = get_model(condition_widths={"digit": 3, "thickness": 1})
        totals = torch.zeros(2)
        grid = torch.linspace(-8, 8, 801)
        for digit in torch.eye(3):
            conditions = torch.cat([digit.expand(801, -1), grid[:, None]], dim=1)
            for i in range(2):
                log_prob = model.log_prob(sample[i : i + 1].expand(801, -1, -1, -1), 7, conditions)
                totals[i] += log_prob.sum(dim=1).exp().sum().item() * 0.02
        torch.testing.assert_close(totals, torch.ones(2), atol=2e-3, rtol=0)

    def test_sum_is_the_joint_density_of_gaussians(self, sample):
        """Heads that hold the conditionals of a bivariate Gaussian give its joint log density."""

        class LinearHead(nn.Module):
            def __init__(self, mean, std, slope=0.0):
                super().__init__()
                self.mean, self.slope = mean, slope
                self.spread = torch.tensor(std - CausalPredictor2DModel.min_std).expm1().log()

            def forward(self, features):
                told = features[:, 16:].sum(dim=1)
                mean = self.mean + features[:, 0] + self.slope * told
                return torch.stack([torch.zeros_like(mean), mean, self.spread.expand_as(mean)], dim=1)

        model = get_model(condition_widths={"a": 1, "b": 1}, num_components=1)
        # b | a has the regression's slope and the residual's variance; the body's first feature moves both means.
        variance_a, covariance, variance_b = 0.09, 0.06, 0.16
        slope = covariance / variance_a
        residual = variance_b - covariance * slope
        model.heads = nn.ModuleList([LinearHead(0.2, 0.3), LinearHead(-0.2 * slope, residual**0.5, slope)])
        condition = torch.tensor([[0.1, 0.4], [-0.3, 0.2]])
        log_prob = model.log_prob(sample, 7, condition)

        feature = model._features(sample, 7)[:, 0].detach()
        # The mean of b holds the feature once by itself and once through a.
        mean = torch.stack([0.2 + feature, feature + slope * feature], dim=1)
        joint = MultivariateNormal(mean, torch.tensor([[variance_a, covariance], [covariance, variance_b]]))
        torch.testing.assert_close(log_prob.sum(dim=1), joint.log_prob(condition), atol=1e-4, rtol=1e-4)

    def test_agree_with_torch(self, sample):
        model = get_model()
        features = model._features(sample, 7)
        log_prob = model.log_prob(sample, 7, CONDITION)
        logits, mean, spread = model.heads[0](features).unflatten(1, (3, 8)).unbind(dim=1)
        components = Normal(mean, nn.functional.softplus(spread) + 0.01)
        expected = MixtureSameFamily(Categorical(logits=logits), components).log_prob(CONDITION[:, 0])
        torch.testing.assert_close(log_prob[:, 0], expected)
        logits = model.heads[1](torch.cat([features, CONDITION[:, :1]], dim=1))
        expected = Categorical(logits=logits).log_prob(CONDITION[:, 1:4].argmax(dim=1))
        torch.testing.assert_close(log_prob[:, 1], expected)

    def test_weight_makes_the_gradient_of_a_mean_the_error_whatever_the_spread(self, sample):
        class ConstantHead(nn.Module):
            def __init__(self, spread):
                super().__init__()
                self.parameters_ = nn.Parameter(torch.tensor([[0.0, 0.1, spread]] * 2))

            def forward(self, features):
                return self.parameters_

        for spread in (-9.0, 0.0, 2.0):
            model = get_model(condition_widths={"thickness": 1, "digit": 4}, num_components=1)
            model.heads[0] = ConstantHead(spread)
            log_prob, weight = model(sample, 7, CONDITION)
            torch.testing.assert_close(log_prob, model.log_prob(sample, 7, CONDITION))
            (weight * log_prob).sum().backward()
            torch.testing.assert_close(model.heads[0].parameters_.grad[:, 1], CONDITION[:, 0] - 0.1)
            assert not weight.requires_grad and torch.equal(weight[:, 1], torch.ones(2))

    def test_weight_is_the_variance_of_the_mixture(self, sample):
        model = get_model()
        logits, mean, spread = model.heads[0](model._features(sample, 7)).unflatten(1, (3, 8)).unbind(dim=1)
        components = Normal(mean, nn.functional.softplus(spread) + 0.01)
        expected = MixtureSameFamily(Categorical(logits=logits), components).variance
        torch.testing.assert_close(model(sample, 7, CONDITION)[1][:, 0], expected.detach())

    def test_a_rare_value_has_a_gradient_of_its_own(self, sample):
        """Far from the common values, that of the component that holds it; a single Gaussian's is in between."""

        class TwoClusters(nn.Module):
            def forward(self, features):
                shift = features[:, :1]
                logits, spread = torch.tensor([[3.0, 0.0]]), torch.tensor([[-3.0, -3.0]])
                mean = torch.tensor([[-0.5, 0.5]]) + shift
                return torch.cat([logits.expand(len(shift), 2), mean, spread.expand(len(shift), 2)], dim=1)

        model = get_model(condition_widths={"hue": 1}, num_components=2)
        model.heads[0] = TwoClusters()
        features = model._features(sample, 7).detach()
        std = nn.functional.softplus(torch.tensor(-3.0)) + 0.01
        rare = 0.5 + features[:, :1] + 0.02
        log_prob = model.log_prob(sample, 7, rare)
        expected = Normal(0.0, std).log_prob(torch.tensor(0.02)) - torch.tensor(3.0).exp().log1p()
        torch.testing.assert_close(log_prob[:, 0], expected.expand(2))

    def test_prediction_tells_each_head_what_was_predicted(self, sample):
        model = get_model(num_components=1)
        prediction = model.predict(sample, 7)
        assert prediction.shape == CONDITION.shape and (prediction[:, 1:4].sum(dim=1) == 1).all()
        # No other value of a parent is more probable, given the ones before it.
        best = model.log_prob(sample, 7, prediction)
        for column in (0, 4):
            for step in (-0.01, 0.01):
                other = prediction.clone()
                other[:, column] += step
                assert (model.log_prob(sample, 7, other)[:, min(column, 2)] < best[:, min(column, 2)]).all()
        for digit in torch.eye(3):
            other = prediction.clone()
            other[:, 1:4] = digit
            assert (model.log_prob(sample, 7, other)[:, 1] <= best[:, 1]).all()

    def test_prediction_takes_what_is_known(self, sample):
        known = torch.tensor([[True, False, False], [False, True, False]])
        for chained in (True, False):
            model = get_model(chained=chained)
            blind, told = model.predict(sample, 7), model.predict(sample, 7, CONDITION, known)
            assert told[0, 0] == CONDITION[0, 0] and torch.equal(told[1, 1:4], CONDITION[1, 1:4])
            assert told[1, 0] == blind[1, 0]
            # Only a chained model reads the rest in the light of it.
            assert (told[0, 4] != blind[0, 4]) == chained

    def test_numbers_are_read_within_their_range(self, sample):
        model = get_model()
        torch.nn.init.constant_(model.heads[0][2].bias, 5.0)
        assert (model.predict(sample)[:, 0] == 1).all()

    def test_time_matters(self, sample):
        model = get_model()
        one, other = (model.log_prob(sample, t, CONDITION) for t in (7, 700))
        assert (one - other).abs().max() > 1e-3
        both = model.log_prob(sample, torch.tensor([7, 700]), CONDITION)
        torch.testing.assert_close(both, torch.stack([one[0], other[1]]))


class TestGradient:
    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_agrees_with_finite_differences(self, sample, context):
        model = get_model()
        weights = torch.tensor([[1.0, 0.5, 2.0], [0.0, 3.0, 1.0]])
        with context():
            gradient, log_prob = model.log_prob_gradient(sample * 1, 7, CONDITION * 1, weights * 1)
        assert gradient.dtype == torch.float32 and not log_prob.requires_grad
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
        model, x = model.double(), sample.double()
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        up, down = (
            (weights * model.log_prob(x + step * direction, 7, CONDITION)).sum(dim=1) for step in (1e-3, -1e-3)
        )
        slope = (gradient.double() * direction).sum(dim=(1, 2, 3))
        torch.testing.assert_close(slope, ((up - down) / 2e-3).double(), atol=2e-3, rtol=2e-3)

    def test_float16_loses_nothing_small(self, sample):
        model = get_model()
        expected, _ = model.log_prob_gradient(sample, 7, CONDITION)
        gradient, _ = model.to(torch.bfloat16).log_prob_gradient(sample, 7, CONDITION)
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.1 * expected.norm()

    def test_reaches_every_parameter(self, sample):
        model = get_model()
        (-model.log_prob(sample, 7, CONDITION).mean()).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_save_and_load_keep_the_order_of_the_parents(sample, tmp_path):
    model = get_model()
    model.save_pretrained(tmp_path)
    loaded = CausalPredictor2DModel.from_pretrained(tmp_path)
    assert list(loaded.condition_widths.items()) == list(WIDTHS.items())
    torch.testing.assert_close(loaded.log_prob(sample, 7, CONDITION), model.log_prob(sample, 7, CONDITION))


def test_copy_is_equal():
    def body(model_class):
        source = inspect.getsource(model_class._frozen)
        return [line for line in source.splitlines() if "# Copied from" not in line]

    assert body(CausalPredictor2DModel) == body(AntiCausalClassifier2DModel)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layers_per_block": 0}, "`layers_per_block` expects a whole number of at least 1, got 0"),
        ({"attention_head_dim": 0}, "`attention_head_dim` expects a whole number of at least 1, got 0"),
        ({"block_out_channels": (8, 0)}, r"`block_out_channels` expects whole numbers of at least 1, got \(8, 0\)"),
        (
            {"block_out_channels": (8, 18)},
            r"`block_out_channels` expects multiples of `norm_num_groups`, 4, got \(8, 18",
        ),
        ({"down_block_types": ("DownBlock2D", "UpBlock2D")}, "`down_block_types` expects some of .*'UpBlock2D'"),
        ({"downsample_type": "pool"}, r"`downsample_type` expects one of \['conv', 'resnet'\], got 'pool'"),
        ({"resnet_time_scale_shift": "shift"}, "`resnet_time_scale_shift` expects one of .* got 'shift'"),
        ({"add_attention": 1}, "`add_attention` expects `True` or `False`, got 1"),
        ({"chained": None}, "`chained` expects `True` or `False`, got None"),
        ({"norm_eps": 0}, "`norm_eps` expects a finite number above 0, got 0"),
        ({"dropout": 1}, r"`dropout` expects a number in \[0, 1\), got 1"),
        ({"condition_widths": 3}, "`condition_widths` expects a width for each parent, got 3"),
        ({"condition_widths": {}}, "`condition_widths` expects at least one parent"),
        ({"condition_widths": {"a": 0}}, "`condition_widths` expects .* got {'a': 0}"),
        ({"block_out_channels": (8,)}, "`block_out_channels` expects one entry for each of `down_block_types`"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        get_model(**options)


def test_bad_inputs_are_refused(sample):
    model = get_model()
    with pytest.raises(ValueError, match=r"`condition` expects shape \(2, 5\), of .*'digit': 3.*, got \(2, 3\)"):
        model.log_prob(sample, 7, CONDITION[:, :3])
    with pytest.raises(ValueError, match=r"`condition` expects shape \(2, 5\)"):
        model.log_prob_gradient(sample, 7, CONDITION[:1])
    with pytest.raises(ValueError, match=r"`known` expects shape \(2, 3\), got \(2, 5\)"):
        model.predict(sample, 7, CONDITION, CONDITION > 0)
    with pytest.raises(ValueError, match=r"`sample` expects shape \(batch, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        model.predict(sample.expand(-1, 3, -1, -1))
