# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from torch import nn
from torchmetrics import Metric

from diffscm_diffusers import metrics
from diffscm_diffusers.metrics import IM1, IM2, Composition, Effectiveness, Minimality, Reversibility, functional


class Scale(nn.Module):
    """An autoencoder that dims its images."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.factor * image


class Brightness(nn.Module):
    """An oracle: the class is the number of the quarter that the mean brightness falls into."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return -(image.mean(dim=(1, 2, 3))[:, None] - torch.tensor([0.125, 0.375, 0.625, 0.875])).abs()


CLASS_AUTOENCODERS = nn.ModuleList([Scale(0.9), Scale(0.5), Scale(0.75)]).eval()
AUTOENCODER = Scale(0.25).eval()
ORACLE = Brightness().eval()

# Each metric with its function and the options of both.
METRICS = {
    "IM1": (IM1, functional.im1, {"class_autoencoders": CLASS_AUTOENCODERS}),
    "IM2": (IM2, functional.im2, {"class_autoencoders": CLASS_AUTOENCODERS, "autoencoder": AUTOENCODER}),
    "Effectiveness": (Effectiveness, functional.effectiveness, {"oracle": ORACLE}),
    "Composition": (Composition, functional.composition, {"norm": "l2"}),
    "Reversibility": (Reversibility, functional.reversibility, {"norm": "l2"}),
    "Minimality": (Minimality, functional.minimality, {"norm": "l2"}),
}


def make_batch(name: str) -> dict[str, torch.Tensor]:
    """Seven samples for the metric of this name, of 2x3x5 pixels and three classes."""
    first, second = torch.rand(2, 7, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    intervention, factual_class = torch.tensor([0, 1, 2, 1, 0, 2, 2]), torch.tensor([1, 2, 0, 0, 2, 1, 0])
    if name in ("Composition", "Reversibility", "Minimality"):
        other = {"Composition": "reconstruction", "Reversibility": "restored", "Minimality": "counterfactual"}[name]
        return {"factual": first, other: second}
    batch = {"counterfactual": second, "intervention": intervention}
    return {**batch, "factual_class": factual_class} if name == "IM1" else batch


def take(batch: dict[str, torch.Tensor], part: slice) -> dict[str, torch.Tensor]:
    return {name: value[part] for name, value in batch.items()}


def test_im1_by_hand():
    batch = make_batch("IM1")
    factors = torch.tensor([0.9, 0.5, 0.75])
    expected = (1 - factors[batch["intervention"]]) ** 2 / (1 - factors[batch["factual_class"]]) ** 2
    torch.testing.assert_close(functional.im1(**batch, class_autoencoders=CLASS_AUTOENCODERS), expected)


def test_im2_by_hand():
    batch = make_batch("IM2")
    factors = torch.tensor([0.9, 0.5, 0.75])
    image = batch["counterfactual"].flatten(1)
    expected = (factors[batch["intervention"]] - 0.25) ** 2 * image.square().sum(1) / image.sum(1)
    result = functional.im2(**batch, class_autoencoders=CLASS_AUTOENCODERS, autoencoder=AUTOENCODER)
    torch.testing.assert_close(result, expected)


def test_black_images_are_finite():
    image, zero, one = torch.zeros(1, 1, 2, 2), torch.tensor([0]), torch.tensor([1])
    assert functional.im1(image, zero, one, CLASS_AUTOENCODERS).item() == 0
    assert functional.im2(image, one, CLASS_AUTOENCODERS, AUTOENCODER).item() == 0


def test_effectiveness_by_hand():
    image = torch.tensor([0.1, 0.3, 0.6, 0.9])[:, None, None, None].expand(4, 1, 2, 2)
    result = functional.effectiveness(image, torch.tensor([0, 1, 1, 3]), ORACLE)
    assert result.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("name", ["Composition", "Reversibility", "Minimality"])
def test_pixel_distances_by_hand(name):
    function = METRICS[name][1]
    first, second = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    second[1, 0, 0, 0], first[1, 0, 1, 1] = 1.0, 0.5
    torch.testing.assert_close(function(first, second), torch.tensor([0, 1.5 / 4]))
    torch.testing.assert_close(function(first, second, norm="l2"), torch.tensor([0, (1.25 / 4) ** 0.5]))


@pytest.mark.parametrize("name", METRICS)
def test_metric_equals_its_function(name):
    metric_class, function, options = METRICS[name]
    batch = make_batch(name)
    expected = function(**batch, **options)
    assert expected.shape == (7,) and expected.unique().numel() > 1

    for reduction, result in (("mean", expected.mean()), ("none", expected)):
        metric = metric_class(**options, reduction=reduction)
        metric.update(**take(batch, slice(0, 5)))
        metric.update(**take(batch, slice(5, 7)))
        torch.testing.assert_close(metric.compute(), result)
        last = metric(**take(batch, slice(2, 4)))  # a batch's own result, on the way
        torch.testing.assert_close(last, expected[2:4].mean() if reduction == "mean" else expected[2:4])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_states_merge(reduction):
    batch = make_batch("Minimality")
    expected = functional.minimality(**batch)
    parts = [Minimality(reduction=reduction) for _ in range(2)]
    parts[0].update(**take(batch, slice(0, 5)))
    parts[1].update(**take(batch, slice(5, 7)))
    parts[1].merge_state(parts[0])
    torch.testing.assert_close(parts[1].compute(), expected.mean() if reduction == "mean" else expected)


def test_direction():
    for name in metrics.__all__:
        metric_class = getattr(metrics, name)
        if issubclass(metric_class, Metric):
            assert metric_class.higher_is_better is (name == "Effectiveness"), name


@pytest.mark.parametrize("name", METRICS)
def test_images_out_of_range(name):
    _, function, options = METRICS[name]
    batch = make_batch(name)
    for key in [key for key, value in batch.items() if value.ndim == 4]:
        for image in (batch[key] * 2 - 1, batch[key] * 255, batch[key] / 0 * 0):
            with pytest.raises(ValueError, match=rf"`{key}` expects values in \[0, 1\]"):
                function(**{**batch, key: image}, **options)
        with pytest.raises(TypeError, match=f"`{key}`.*uint8"):
            function(**{**batch, key: (batch[key] * 255).byte()}, **options)
        with pytest.raises(ValueError, match=f"`{key}` expects at least one image"):
            function(**{**batch, key: batch[key][:0]}, **options)


@pytest.mark.parametrize("name", METRICS)
def test_mismatched_lengths(name):
    _, function, options = METRICS[name]
    batch = make_batch(name)
    for key in batch:
        with pytest.raises(ValueError, match="must have the same shape|one class index for each"):
            function(**{**batch, key: batch[key][:6]}, **options)


@pytest.mark.parametrize("name", ["IM1", "IM2", "Effectiveness"])
def test_unknown_class(name):
    _, function, options = METRICS[name]
    batch = make_batch(name)
    for key in [key for key, value in batch.items() if value.ndim == 1]:
        for unknown in (9, -1):
            with pytest.raises(ValueError, match=rf"`{key}`.*\[{unknown}\]|\[{unknown}\] of `{key}`"):
                function(**{**batch, key: torch.where(batch[key] == 2, unknown, batch[key])}, **options)
        for dtype in (torch.float32, torch.bool):
            with pytest.raises(TypeError, match=f"`{key}` expects a tensor of integers, got {dtype}"):
                function(**{**batch, key: batch[key].to(dtype)}, **options)


@pytest.mark.parametrize(
    ("name", "option", "argument"),
    [
        ("IM1", "class_autoencoders", r"class_autoencoders\[0\]"),
        ("IM2", "class_autoencoders", r"class_autoencoders\[0\]"),
        ("IM2", "autoencoder", "autoencoder"),
        ("Effectiveness", "oracle", "oracle"),
    ],
)
def test_unfit_models(name, option, argument):
    _, function, options = METRICS[name]

    def run(model):
        return function(**make_batch(name), **{**options, option: 3 * [model] if "[" in argument else model})

    with pytest.raises(ValueError, match=f"`{argument}` is in training mode"):
        run(nn.Identity())
    with pytest.raises(TypeError, match=f"`{argument}` must return a tensor of floats, got tuple"):
        run(lambda image: (image,))
    with pytest.raises(ValueError, match=f"`{argument}` must return .* of shape"):
        run(lambda image: image[..., :1])
    fit = {"IM1": Scale(0.5).eval(), "IM2": Scale(0.5).eval(), "Effectiveness": ORACLE}[name]
    for dtype in (torch.int64, torch.bool):
        with pytest.raises(TypeError, match=f"`{argument}` must return a tensor of floats, got {dtype}"):
            run(lambda image, dtype=dtype: fit(image).to(dtype))
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"`{argument}` must return finite"):
            run(lambda image, value=value: fit(image).index_fill(1, torch.tensor([1]), value))


@pytest.mark.parametrize("name", ["IM1", "IM2"])
def test_half_precision(name):
    """The sum over a white image of 512 x 512 pixels is more than float16 holds."""
    batch = {"counterfactual": torch.ones(1, 1, 512, 512), "intervention": torch.tensor([1])}
    batch = {**batch, "factual_class": torch.tensor([2])} if name == "IM1" else batch
    _, function, options = METRICS[name]
    result = function(**{**batch, "counterfactual": batch["counterfactual"].half()}, **options)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, function(**batch, **options))


@pytest.mark.parametrize("name", ["IM1", "IM2"])
@pytest.mark.parametrize(
    ("eps", "error"), [(-1e-7, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("0", TypeError)]
)
def test_eps(name, eps, error):
    metric_class, function, options = METRICS[name]
    with pytest.raises(error, match="`eps` expects"):
        function(**make_batch(name), **options, eps=eps)
    with pytest.raises(error, match="`eps` expects"):
        metric_class(**options, eps=eps)
    assert function(**make_batch(name), **options, eps=0).isfinite().all()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_no_samples(reduction):
    with pytest.raises(RuntimeError, match="`IM1` has no samples yet"), pytest.warns(UserWarning, match="compute"):
        IM1(CLASS_AUTOENCODERS, reduction=reduction).compute()


def test_bad_options():
    with pytest.raises(ValueError, match="`reduction` expects"):
        Minimality(reduction="sum")
    for metric_class in (Composition, Reversibility, Minimality):
        with pytest.raises(ValueError, match="`norm` expects"):
            metric_class(norm="lpips")
