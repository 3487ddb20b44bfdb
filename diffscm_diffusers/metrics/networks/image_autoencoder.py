# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class ImageAutoencoder(ModelMixin, ConfigMixin):
    r"""
    A convolutional autoencoder of clean images. What one that knows a single class, or all of them, makes of a
    counterfactual is what IM1 and IM2 measure (paper, App. G); the counterfactuals of Van Looveren & Klaise use one as
    well ([2021](https://huggingface.co/papers/1907.02584)).

    Layers are listed as in that paper: a number is a 3 x 3 convolution with so many output channels and a ReLU,
    `"pool"` a 2 x 2 maximum pooling and `"up"` its counterpart, which doubles the size by repeating pixels. A last
    convolution without activation gives the image. The defaults are the autoencoder of all classes.

    Parameters:
        sample_size (`int`): Height and width of the images; halved, without a rest, at every pooling.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        encoder_layers (`tuple[int | str]`, *optional*, defaults to `(16, 16, "pool", 1)`):
            The encoder's layers: output channels or `"pool"`.
        decoder_layers (`tuple[int | str]`, *optional*, defaults to `(16, "up", 16)`):
            The decoder's layers, but the last convolution: output channels or `"up"`.
        linear_encoding (`bool`, *optional*, defaults to `True`):
            Whether the encoder's last convolution has no activation.

    Raises:
        ValueError: if a layer is unknown, if the encoder does not end in a convolution, if the decoder does not double
            the size as often as the encoder halves it, or if `sample_size` cannot be halved so often.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        in_channels: int = 1,
        encoder_layers: tuple[int | str, ...] = (16, 16, "pool", 1),
        decoder_layers: tuple[int | str, ...] = (16, "up", 16),
        linear_encoding: bool = True,
    ):
        super().__init__()
        for name, layers, resampling in (
            ("encoder_layers", encoder_layers, "pool"),
            ("decoder_layers", decoder_layers, "up"),
        ):
            unknown = [layer for layer in layers if not isinstance(layer, int) and layer != resampling]
            if unknown:
                raise ValueError(f"`{name}` takes numbers of channels and {resampling!r}, got {unknown}.")
        if not encoder_layers or not isinstance(encoder_layers[-1], int):
            raise ValueError(f"`encoder_layers` takes a number of channels at its end, got {list(encoder_layers)}.")
        num_poolings, num_upsamplings = encoder_layers.count("pool"), decoder_layers.count("up")
        if num_poolings != num_upsamplings:
            raise ValueError(
                f"`decoder_layers` takes as many 'up' as `encoder_layers` has 'pool', {num_poolings}, got "
                f"{num_upsamplings}."
            )
        if sample_size % 2**num_poolings != 0:
            raise ValueError(
                f"`sample_size` takes a multiple of {2**num_poolings} with {num_poolings} poolings, got {sample_size}."
            )

        channels = in_channels
        self.encoder = nn.Sequential()
        for layer in encoder_layers:
            if layer == "pool":
                self.encoder.append(nn.MaxPool2d(2))
            else:
                self.encoder.append(nn.Conv2d(channels, layer, kernel_size=3, padding=1))
                self.encoder.append(nn.ReLU())
                channels = layer
        if linear_encoding:
            self.encoder.pop(-1)

        self.decoder = nn.Sequential()
        for layer in decoder_layers:
            if layer == "up":
                self.decoder.append(nn.Upsample(scale_factor=2))
            else:
                self.decoder.append(nn.Conv2d(channels, layer, kernel_size=3, padding=1))
                self.decoder.append(nn.ReLU())
                channels = layer
        self.decoder.append(nn.Conv2d(channels, in_channels, kernel_size=3, padding=1))

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor` of shape `(batch, channels, height, width)`: encodings, of the last convolution's channels
            and half the size after every pooling.

        Raises:
            ValueError: if the images have another shape.
        """
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(f"`image` takes shape (batch, {', '.join(map(str, shape))}), got {tuple(image.shape)}.")
        return self.encoder(image)

    def decode(self, encoding: torch.Tensor) -> torch.Tensor:
        """
        Args:
            encoding (`torch.Tensor`): What [`~ImageAutoencoder.encode`] returned.

        Returns:
            `torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`:
            reconstructions, near [0, 1] but not bound to it.
        """
        return self.decoder(encoding)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor`: reconstructions of the images' shape, near [0, 1] but not bound to it.
        """
        return self.decode(self.encode(image))
