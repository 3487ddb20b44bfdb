# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
import torch.nn.functional as F

from diffscm_diffusers import SemanticEncoder2DModel
from diffscm_diffusers.training.code_mechanism import fit_code_mechanism, read_codes


@pytest.fixture
def encoder() -> SemanticEncoder2DModel:
    return SemanticEncoder2DModel(8, 2, code_dim=7, block_out_channels=(4, 4, 4)).eval()


def make_codes(num_images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two classes, of which the second shifts the first entry by 2 and turns the sign of a correlation."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(num_images) % 2
    mean = torch.randn(num_images, 7, generator=generator)
    mean[:, 2] = 0.8 * mean[:, 1] * (1 - 2 * label) + 0.6 * mean[:, 2]
    mean[:, 0] += 2 * label
    return mean, torch.full_like(mean, 0.1), F.one_hot(label, 2).float()


SHORT = {"num_steps": 300, "hidden_features": 32, "batch_size": 256, "learning_rate": 5e-3, "progress_bar": False}


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_has_the_same_law_under_all_causes(encoder, seed):
    mean, std, condition = make_codes(4000)
    fit_code_mechanism(encoder, mean, std, condition, displacement_weight=1e-4, seed=seed, **SHORT)
    noise = encoder.abduct(mean, condition)
    first, second = noise[::2], noise[1::2]
    assert (mean[1::2, 0] - mean[::2, 0]).mean() > 1.9
    torch.testing.assert_close(first.mean(dim=0), second.mean(dim=0), atol=0.1, rtol=0)
    torch.testing.assert_close(first.T.cov(), second.T.cov(), atol=0.15, rtol=0)
    # The counterfactual of the first entry, alone: the class' shift.
    other = encoder.predict(noise, condition.flip(1))
    shift = (other - mean)[:, 0] * (condition[:, 0] - condition[:, 1])
    assert shift.mean() == pytest.approx(2, abs=0.15) and shift.std() < 0.3


def test_what_the_causes_do_not_touch_hardly_moves(encoder):
    mean, std, condition = make_codes(2000)
    displacement = fit_code_mechanism(encoder, mean, std, condition, displacement_weight=0.003, **SHORT)
    moved = (encoder.abduct(mean, condition) - mean).square().mean(dim=0).sqrt()
    assert moved[3:].max() < 0.1 < moved[:3].max()
    assert displacement == pytest.approx((moved.square().mean().sqrt() / 0.1).item(), rel=0.2)


def test_causes_that_are_not_told_leave_the_code_alone(encoder):
    mean, std, condition = make_codes(2000)
    condition[:, 1] = torch.randn(2000)  # the first entry says the class, too
    fit_code_mechanism(encoder, mean, std, condition, torch.tensor([True, False]), **SHORT)
    noise = encoder.abduct(mean, condition)
    assert torch.equal(encoder.abduct(mean, condition * torch.tensor([1.0, 7.0])), noise)
    assert (encoder.abduct(mean, 1 - condition) - noise).abs().max() > 0.5
    fit_code_mechanism(encoder, mean, std, condition, torch.tensor([False, True]), **SHORT)
    assert torch.equal(encoder.abduct(mean, condition * torch.tensor([7.0, 1.0])), encoder.abduct(mean, condition))


def test_a_large_weight_keeps_the_codes(encoder):
    mean, std, condition = make_codes(500)
    displacement = fit_code_mechanism(encoder, mean, std, condition, displacement_weight=100.0, **SHORT)
    torch.testing.assert_close(encoder.abduct(mean, condition), mean, atol=0.05, rtol=0)
    assert displacement < 0.5


def test_a_seed_gives_one_mechanism(encoder):
    codes, settings = make_codes(200), {**SHORT, "num_steps": 3}
    random_state = torch.get_rng_state()
    noises = []
    for seed in (0, 0, 1):
        fit_code_mechanism(encoder, *codes, seed=seed, **settings)
        noises.append(encoder.abduct(codes[0], codes[2]))
    assert torch.equal(noises[0], noises[1]) and not torch.equal(noises[0], noises[2])
    assert torch.equal(torch.get_rng_state(), random_state)


def test_loss_that_is_not_finite_is_refused(encoder):
    mean, std, condition = make_codes(50)
    with pytest.raises(
        ValueError, match=r"`learning_rate` expects one at which the loss .*, got 1e\+30: a loss of nan"
    ):
        fit_code_mechanism(encoder, mean, std, condition, **{**SHORT, "learning_rate": 1e30})
    assert encoder.mechanism is None and encoder.config.mechanism_features == 0
    with pytest.raises(ValueError, match="`mean` expects the codes of at least 2 images, got 1"):
        fit_code_mechanism(encoder, mean[:1], std[:1], condition[:1])


def test_codes_are_those_of_all_batches(encoder):
    images, condition = torch.rand(5, 1, 8, 8) * 2 - 1, torch.eye(2)[[0, 1, 1, 0, 1]]
    mean, std, causes = read_codes(encoder, zip(images.split(2), condition.split(2), strict=True))
    expected = encoder.encode(images, condition)
    torch.testing.assert_close(mean, expected.mean.detach())
    torch.testing.assert_close(std, expected.std.detach())
    assert torch.equal(causes, condition) and not mean.requires_grad
