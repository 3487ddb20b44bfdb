# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from diffscm_diffusers.metrics import Realism


def make_metric(**kwargs) -> Realism:
    return Realism(nn.Flatten().eval(), image_shape=(1, 2, 2), **kwargs)


def test_equals_the_formula():
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(40, 1, 2, 2, generator=generator)
    counterfactual = 0.5 * torch.rand(30, 1, 2, 2, generator=generator) + 0.3 * real[:30].flip(-1)
    metric = make_metric()
    for image, is_real in ((real[:9], True), (counterfactual, False), (real[9:], True)):
        metric.update(image, real=is_real)

    (m, c), (n, d) = ((x.flatten(1).double().mean(0), x.flatten(1).double().T.cov()) for x in (counterfactual, real))
    expected = (m - n).square().sum() + (c + d).trace() - 2 * sqrtm((c @ d).numpy()).real.trace()
    torch.testing.assert_close(metric.compute(), expected.float(), rtol=1e-4, atol=0)


def test_real_images_score_zero():
    real = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    metric = make_metric()
    metric.update(real, real=True)
    metric.update(real.flip(0), real=False)
    assert metric.compute().item() == pytest.approx(0, abs=1e-6)


def test_counts_the_features_where_the_extractor_is():
    extractor = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, device="meta")).eval()
    assert Realism(extractor, image_shape=(1, 2, 2)).real_features_sum.shape == (3,)


def test_bad_input():
    metric = make_metric()
    with pytest.raises(RuntimeError, match="at least two real images.*got 0 and 0"), pytest.warns(UserWarning):
        metric.compute()
    metric.update(torch.rand(4, 1, 2, 2), real=True)
    metric.update(torch.rand(1, 1, 2, 2), real=False)
    with pytest.raises(RuntimeError, match="at least two real images.*got 4 and 1"):
        metric.compute()
    with pytest.raises(ValueError, match=r"expects values in \[0, 1\]"):
        metric.update(torch.rand(4, 1, 2, 2) + 1, real=True)
    for real in (1, "False", None, torch.tensor(True)):
        with pytest.raises(TypeError, match="`real` expects a `bool`"):
            metric.update(torch.rand(4, 1, 2, 2), real=real)
    # The features of these would be as many.
    with pytest.raises(ValueError, match=r"`image_shape` \(1, 2, 2\), got shape \(4, 1, 1, 4\)"):
        metric.update(torch.rand(4, 1, 1, 4), real=True)
    with pytest.raises(ValueError, match="training mode"):
        Realism(nn.Flatten(), image_shape=(1, 2, 2))
    with pytest.raises(TypeError, match="feature_extractor"):
        Realism(64, image_shape=(1, 2, 2))
