# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest
import torch

from diffscm_diffusers import CausalPredictor2DModel


@pytest.fixture
def exact_gradients(load_benchmark):
    return load_benchmark("exact_gradients")


def test_gradients_are_those_of_the_probabilities(exact_gradients):
    """By finite differences of `log p(digit | x_t)` and `log p(hue | x_t, digit)` over the same styles and hues."""
    exact = exact_gradients.ExactGradients(0.5, 30, torch.Generator().manual_seed(0))
    exact.ink, exact.color = [ink.double() for ink in exact.ink], exact.color.double()
    generator = torch.Generator().manual_seed(1)
    sample, direction = torch.randn(2, 3, 28, 28, generator=generator, dtype=torch.float64)
    alpha_prod, digit, hue = 0.02, 3, (20 + 0.5) / exact_gradients.NUM_HUES

    def log_probs(x):
        joint = []
        for ink in exact.ink:
            images = 2 * ink.view(-1, 1, 1, 28, 28) * exact.color[None, :, :, None, None] - 1
            distance = (x - alpha_prod**0.5 * images).square().sum(dim=(2, 3, 4))
            joint.append(-distance / (2 * (1 - alpha_prod)))
        joint = torch.stack(joint) + exact.log_law.double()[:, None]
        of_digit = joint[digit].logsumexp(dim=(0, 1))
        return of_digit - joint.logsumexp(dim=(0, 1, 2)), joint[digit][:, 20].logsumexp(dim=0) - of_digit

    of_digit, of_hue, styles = exact(sample, alpha_prod, digit, hue)
    up, down = (log_probs(sample + step * direction) for step in (1e-4, -1e-4))
    for gradient, high, low in zip((of_digit, of_hue), up, down, strict=True):
        torch.testing.assert_close((gradient * direction).sum(), (high - low) / 2e-4, rtol=1e-4, atol=1e-6)
    assert 1 <= styles <= 30


def test_each_network_is_compared_at_each_timestep(exact_gradients, tmp_path):
    predictor = CausalPredictor2DModel(
        {"digit": 10, "hue": 1},
        sample_size=28,
        in_channels=3,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        block_out_channels=(4, 4),
        norm_num_groups=4,
        add_attention=False,
    )
    predictor.save_pretrained(tmp_path / "predictor")
    flags = ["--predictors", str(tmp_path / "predictor"), "--timesteps", "700", "900", "--num_samples", "2"]
    exact_gradients.main([*flags, "--num_styles", "20", "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "exact-gradients.json").read_text())["timesteps"]
    assert list(results) == ["700", "900"]
    measures = results["700"][str(tmp_path / "predictor")]
    assert all(
        -1 <= measures[f"cosine, {part}"] <= 1 < measures[f"norm, {part}"] + 1 for part in ("digit", "hue", "both")
    )
    assert len((tmp_path / "exact-gradients.md").read_text().splitlines()) == 4


def test_an_exact_estimate_has_cosine_and_norm_one(exact_gradients):
    gradients = list(torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    measures = exact_gradients.compare(gradients, gradients)
    assert list(measures.values()) == pytest.approx([1.0] * 6)
    weaker = exact_gradients.compare([gradients[0] / 2, -gradients[1]], gradients)
    assert weaker["norm, digit"] == pytest.approx(0.5) and weaker["cosine, hue"] == pytest.approx(-1)


def test_networks_are_asked_for(exact_gradients, tmp_path, capsys):
    with pytest.raises(SystemExit):
        exact_gradients.parse_args(["--output_dir", str(tmp_path)])
    assert "expects at least one folder" in capsys.readouterr().err
