# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diffscm_diffusers import LatentVAE


CONFIGS = Path(__file__).resolve().parents[3] / "train_scripts" / "configs"


def get_dummy_vae(**config) -> LatentVAE:
    torch.manual_seed(0)
    dummy = {"sample_size": 8, "latent_dim": 3, "block_out_channels": (4, 6), "hidden_features": 5}
    return LatentVAE(**{**dummy, **config}).eval()


def get_dummy_images(batch=2, channels=1, size=8) -> torch.Tensor:
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def set_posterior(vae: LatentVAE, mean: torch.Tensor, variance: torch.Tensor):
    """Makes the encoder give the same posterior for every image."""
    torch.nn.init.zeros_(vae.encoder[-1].weight)
    vae.encoder[-1].bias.data = torch.cat([mean, variance.log()])


@pytest.mark.parametrize("channels, size, blocks", [(1, 8, (4, 6)), (3, 12, (4,))])
def test_shapes_and_ranges(channels, size, blocks):
    vae = get_dummy_vae(sample_size=size, in_channels=channels, block_out_channels=blocks)
    image = get_dummy_images(channels=channels, size=size)
    mean, variance = vae.encode(image)
    assert mean.shape == variance.shape == (2, 3) and (variance > 0).all()
    decoded = vae.decode(50 * torch.randn(2, 3))
    assert decoded.shape == image.shape and decoded.min() >= 0 and decoded.max() <= 1
    assert vae.elbo(image).shape == (2,)


def test_reconstructs_from_the_mean():
    vae, image = get_dummy_vae(), get_dummy_images()
    torch.testing.assert_close(vae(image), vae.decode(vae.encode(image)[0]))
    assert not torch.equal(vae(image)[0], vae(image)[1])


def test_encodes_to_the_posteriors_mean_and_variance():
    vae = get_dummy_vae()
    mean, variance = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.1, 1.0, 3.0])
    set_posterior(vae, mean, variance)
    encoded_mean, encoded_variance = vae.encode(get_dummy_images())
    torch.testing.assert_close(encoded_mean, mean.expand(2, 3))
    torch.testing.assert_close(encoded_variance, variance.expand(2, 3))


def test_bound_is_likelihood_less_divergence():
    vae, image = get_dummy_vae(), get_dummy_images()
    mean, variance = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.1, 1.0, 3.0])
    set_posterior(vae, mean, variance)
    # Pixels that are 0 or 1 with equal probability, whatever the latent.
    torch.nn.init.zeros_(vae.decoder[-1].weight)
    torch.nn.init.zeros_(vae.decoder[-1].bias)
    divergence = kl_divergence(Normal(mean, variance.sqrt()), Normal(torch.zeros(3), torch.ones(3))).sum()
    torch.testing.assert_close(vae.elbo(image), (-64 * math.log(2) - divergence).expand(2))


def test_bound_takes_grey_values_as_probabilities():
    vae, image = get_dummy_vae(), get_dummy_images()
    set_posterior(vae, torch.zeros(3), torch.ones(3))
    torch.nn.init.zeros_(vae.decoder[-1].weight)
    torch.nn.init.constant_(vae.decoder[-1].bias, 1.5)
    p = torch.tensor(1.5).sigmoid()
    expected = (image * p.log() + (1 - image) * (1 - p).log()).sum(dim=(1, 2, 3))
    torch.testing.assert_close(vae.elbo(image), expected)


def test_bound_draws_latents_from_the_posterior():
    vae, image = get_dummy_vae(), get_dummy_images(batch=1)
    set_posterior(vae, torch.full((3,), 2.0), torch.full((3,), 0.25))
    latents = []
    vae.decoder.register_forward_pre_hook(lambda module, args: latents.append(args[0]))
    vae.elbo(image.expand(4000, -1, -1, -1), torch.Generator().manual_seed(0))
    assert abs(latents[0].mean() - 2) < 0.03 and abs(latents[0].std() - 0.5) < 0.02


def test_generator_decides_the_draw():
    vae, image = get_dummy_vae(), get_dummy_images()
    first, again, other = (vae.elbo(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_saved_and_loaded_again_it_is_the_same(tmp_path):
    vae, image = get_dummy_vae(), get_dummy_images()
    vae.save_pretrained(tmp_path)
    loaded = LatentVAE.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(image)[1], vae.encode(image)[1])
    assert torch.equal(loaded(image), vae(image))


def test_mnist_config_has_the_papers_latent_dimensions():
    vae = LatentVAE.from_config(LatentVAE.load_config(CONFIGS / "vae_mnist.json"))
    mean, variance = vae.encode(torch.zeros(1, 1, 28, 28))
    assert mean.shape == variance.shape == (1, 20)
    assert vae.num_parameters() == 880_617


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 4), (1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`image` expects shape \(batch, 1, 8, 8\), got"):
        get_dummy_vae().encode(torch.zeros(shape))


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_values_out_of_range_are_refused(value):
    image = get_dummy_images()
    image[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"`image` expects values in \[0, 1\] without NaN, got"):
        get_dummy_vae().encode(image)


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="`sample_size` expects a multiple of 4 with 2 convolutions, got 10"):
        get_dummy_vae(sample_size=10)
