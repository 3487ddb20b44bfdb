# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .checks import check_flags, check_sizes


class ImageAutoencoder(ModelMixin, ConfigMixin):
    r"""
    A convolutional autoencoder for images without noise. [`IM1`] and [`IM2`] compare autoencoders trained on single
    classes and on all classes (paper, App. G). [`VanLooverenKlaisePipeline`] uses one trained on all classes.

    The layers are listed as in [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584): a number `n`
    is a 3 x 3 convolution with `n` output channels and a ReLU, `"pool"` is 2 x 2 max pooling, and `"up"` is 2 x 2
    nearest-neighbour upsampling. A final convolution without activation returns the image. The defaults are their
    autoencoder of all classes.

    Parameters:
        sample_size (`int`): Height and width of the images. Must be divisible by 2 for each pooling layer.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        encoder_layers (`tuple[int | str]`, *optional*, defaults to `(16, 16, "pool", 1)`):
            The encoder's layers: output channels or `"pool"`.
        decoder_layers (`tuple[int | str]`, *optional*, defaults to `(16, "up", 16)`):
            The decoder's layers without the final convolution: output channels or `"up"`.
        linear_encoding (`bool`, *optional*, defaults to `True`):
            Whether the encoder's last convolution has no activation.

    Raises:
        ValueError: If a layer is unknown, the encoder does not end in a convolution, `"pool"` and `"up"` differ in
            number, or `sample_size` is not divisible by 2 for each pooling layer.
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
        check_sizes(sample_size=sample_size, in_channels=in_channels)
        check_flags(linear_encoding=linear_encoding)
        for name, layers, resampling in (
            ("encoder_layers", encoder_layers, "pool"),
            ("decoder_layers", decoder_layers, "up"),
        ):
            if not isinstance(layers, (list, tuple)):
                raise TypeError(f"`{name}` expects a tuple of layers, got {layers!r}.")
            unknown = [layer for layer in layers if layer != resampling and (type(layer) is not int or layer < 1)]
            if unknown:
                raise ValueError(f"`{name}` expects numbers of channels and {resampling!r}, got {unknown}.")
        if not encoder_layers or not isinstance(encoder_layers[-1], int):
            raise ValueError(f"`encoder_layers` expects a number of channels at its end, got {list(encoder_layers)}.")
        num_poolings, num_upsamplings = encoder_layers.count("pool"), decoder_layers.count("up")
        if num_poolings != num_upsamplings:
            raise ValueError(
                f"`decoder_layers` expects as many 'up' as `encoder_layers` has 'pool', {num_poolings}, got "
                f"{num_upsamplings}."
            )
        if sample_size % 2**num_poolings != 0:
            raise ValueError(
                f"`sample_size` expects a multiple of {2**num_poolings} with {num_poolings} poolings, got "
                f"{sample_size}."
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
            `torch.Tensor` of shape `(batch, channels, height, width)`: Encodings, with the channels of the encoder's
            last convolution. Every pooling halves height and width.

        Raises:
            ValueError: If the images have another shape.
        """
        if not torch.is_tensor(image):
            raise TypeError(f"`image` expects a tensor, got {type(image).__name__}.")
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(f"`image` expects shape (batch, {', '.join(map(str, shape))}), got {tuple(image.shape)}.")
        return self.encoder(image)

    def decode(self, encoding: torch.Tensor) -> torch.Tensor:
        """
        Args:
            encoding (`torch.Tensor` of shape `(batch, channels, height, width)`):
                Encodings from [`~ImageAutoencoder.encode`].

        Returns:
            `torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`: Reconstructions. They are not
            limited to [0, 1].
        """
        return self.decoder(encoding)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor` of the same shape: Reconstructions. They are not limited to [0, 1].

        Raises:
            ValueError: If the images have another shape.
        """
        return self.decode(self.encode(image))
