# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from pathlib import Path

import pytest
import torch
from torch import nn

from diffscm_diffusers import ImageAutoencoder


CONFIGS = Path(__file__).resolve().parents[3] / "train_scripts" / "configs"


def get_dummy_autoencoder(**config) -> ImageAutoencoder:
    torch.manual_seed(0)
    dummy = {"sample_size": 8, "encoder_layers": (3, "pool", 2), "decoder_layers": (3, "up")}
    return ImageAutoencoder(**{**dummy, **config}).eval()


def conv(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def published_autoencoder(kind) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder as Van Looveren & Klaise describe them, written out."""
    if kind == "autoencoder":
        encoder = (conv(1, 16), nn.ReLU(), conv(16, 16), nn.ReLU(), nn.MaxPool2d(2), conv(16, 1))
        decoder = (conv(1, 16), nn.ReLU(), nn.UpsamplingNearest2d(scale_factor=2), conv(16, 16), nn.ReLU())
        return nn.Sequential(*encoder), nn.Sequential(*decoder, conv(16, 1))
    encoder = (conv(1, 16), nn.ReLU(), nn.MaxPool2d(2), conv(16, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8), nn.ReLU())
    decoder = (conv(8, 8), nn.ReLU(), nn.UpsamplingNearest2d(scale_factor=2))
    decoder += (conv(8, 16), nn.ReLU(), nn.UpsamplingNearest2d(scale_factor=2))
    return nn.Sequential(*encoder), nn.Sequential(*decoder, conv(16, 1))


@pytest.mark.parametrize(
    "kind, num_parameters, encoding_shape",
    [("autoencoder", 5_250, (1, 14, 14)), ("class_autoencoder", 3_801, (8, 7, 7))],
)
def test_mnist_configs_are_the_published_architectures(kind, num_parameters, encoding_shape):
    torch.manual_seed(0)
    model = ImageAutoencoder.from_config(ImageAutoencoder.load_config(CONFIGS / f"{kind}_mnist.json"))
    encoder, decoder = published_autoencoder(kind)
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.encoder.parameters()), encoder.parameters())
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.decoder.parameters()), decoder.parameters())
    assert model.num_parameters() == num_parameters

    image = torch.rand(2, 1, 28, 28)
    encoding = model.encode(image)
    assert encoding.shape == (2, *encoding_shape)
    torch.testing.assert_close(encoding, encoder(image))
    torch.testing.assert_close(model.decode(encoding), decoder(encoding))
    torch.testing.assert_close(model(image), decoder(encoder(image)))


def test_defaults_are_the_autoencoder_of_all_classes():
    config = ImageAutoencoder.load_config(CONFIGS / "autoencoder_mnist.json")
    default = ImageAutoencoder(28).config
    for name in ("in_channels", "encoder_layers", "decoder_layers", "linear_encoding"):
        assert default[name] == (tuple(config[name]) if isinstance(config[name], list) else config[name])


def test_colour_images():
    model = get_dummy_autoencoder(in_channels=3)
    image = torch.rand(2, 3, 8, 8)
    assert model(image).shape == image.shape


def test_saved_and_loaded_again_it_is_the_same(tmp_path):
    model = get_dummy_autoencoder(linear_encoding=False)
    model.save_pretrained(tmp_path)
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(ImageAutoencoder.from_pretrained(tmp_path)(image), model(image))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 4), (1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`image` expects shape \(batch, 1, 8, 8\), got"):
        get_dummy_autoencoder()(torch.zeros(shape))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"encoder_layers": (3, "up", 2)}, r"`encoder_layers` expects numbers of channels and 'pool', got \['up'\]"),
        ({"decoder_layers": (3, "pool")}, r"`decoder_layers` expects numbers of channels and 'up', got \['pool'\]"),
        ({"encoder_layers": (3, "pool")}, "`encoder_layers` expects a number of channels at its end"),
        ({"encoder_layers": ()}, "`encoder_layers` expects a number of channels at its end"),
        ({"decoder_layers": (3,)}, "`decoder_layers` expects as many 'up' as `encoder_layers` has 'pool', 1, got 0"),
        ({"sample_size": 7}, "`sample_size` expects a multiple of 2 with 1 poolings, got 7"),
    ],
)
def test_architectures_that_do_not_close_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        get_dummy_autoencoder(**config)
