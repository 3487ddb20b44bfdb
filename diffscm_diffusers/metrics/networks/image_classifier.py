# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .checks import check_dropout, check_flags, check_labels, check_sizes, check_widths


class ImageClassifier(ModelMixin, ConfigMixin):
    r"""
    A plain convolutional classifier for images without noise. It is the oracle of [`Effectiveness`]. Its architecture
    differs on purpose from the anti-causal predictor's: no timestep, no residual connections, no group normalisation.

    Each block is a convolution, optional batch normalisation, a ReLU, 2 x 2 max pooling and dropout. A hidden linear
    layer with ReLU and dropout and a linear layer for the logits follow. It is the classifier of
    [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584) with `block_kernel_sizes=(2, 2)`,
    `block_dropouts=(0.3, 0.3)`, `hidden_features=256`, `hidden_dropout=0.5` and `batch_norm=False`.

    Parameters:
        sample_size (`int`): Height and width of the images. Every block halves them and rounds down.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        num_classes (`int`, *optional*, defaults to 10): Number of classes.
        id2label (`dict[int, str]`, *optional*):
            Names of the classes. The keys become strings in the saved configuration, because JSON has no integer keys.
        block_out_channels (`tuple[int]`, *optional*, defaults to `(32, 64)`): Output channels of each block.
        block_kernel_sizes (`tuple[int]`, *optional*, defaults to `(5, 3)`): Kernel size of each block's convolution.
        block_dropouts (`tuple[float]`, *optional*, defaults to `(0.0, 0.4)`): Dropout at the end of each block.
        hidden_features (`int`, *optional*, defaults to 128): Width of the hidden linear layer.
        hidden_dropout (`float`, *optional*, defaults to 0.4): Dropout after the hidden linear layer.
        batch_norm (`bool`, *optional*, defaults to `True`): Whether the blocks have batch normalisation.

    Raises:
        ValueError: If the settings of the blocks differ in length, `sample_size` is too small for so many blocks, or
            `id2label` does not name each class.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        in_channels: int = 1,
        num_classes: int = 10,
        id2label: dict[int, str] | None = None,
        block_out_channels: tuple[int, ...] = (32, 64),
        block_kernel_sizes: tuple[int, ...] = (5, 3),
        block_dropouts: tuple[float, ...] = (0.0, 0.4),
        hidden_features: int = 128,
        hidden_dropout: float = 0.4,
        batch_norm: bool = True,
    ):
        super().__init__()
        check_sizes(
            sample_size=sample_size, in_channels=in_channels, num_classes=num_classes, hidden_features=hidden_features
        )
        check_widths(block_out_channels=block_out_channels, block_kernel_sizes=block_kernel_sizes)
        if not isinstance(block_dropouts, (list, tuple)):
            raise TypeError(f"`block_dropouts` expects one number per block, got {block_dropouts!r}.")
        for dropout in block_dropouts:
            check_dropout(block_dropouts=dropout)
        check_dropout(hidden_dropout=hidden_dropout)
        check_flags(batch_norm=batch_norm)
        check_labels(id2label, num_classes)
        if not len(block_out_channels) == len(block_kernel_sizes) == len(block_dropouts):
            raise ValueError(
                "`block_out_channels`, `block_kernel_sizes` and `block_dropouts` expects one entry per block, got "
                f"{len(block_out_channels)}, {len(block_kernel_sizes)} and {len(block_dropouts)}."
            )
        size = sample_size // 2 ** len(block_out_channels)
        if size == 0:
            raise ValueError(
                f"`sample_size` expects at least {2 ** len(block_out_channels)} with {len(block_out_channels)} "
                f"blocks, got {sample_size}."
            )

        channels = in_channels
        self.blocks = nn.Sequential()
        for out_channels, kernel_size, dropout in zip(
            block_out_channels, block_kernel_sizes, block_dropouts, strict=True
        ):
            self.blocks.append(nn.Conv2d(channels, out_channels, kernel_size, padding="same"))
            if batch_norm:
                self.blocks.append(nn.BatchNorm2d(out_channels))
            self.blocks.extend([nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(dropout)])
            channels = out_channels
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * size**2, hidden_features),
            nn.ReLU(),
            nn.Dropout(hidden_dropout),
            nn.Linear(hidden_features, num_classes),
        )

    @property
    def num_classes(self) -> int:
        """`int`: The number of classes."""
        return self.config.num_classes

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: The name of each class, or its index as a string if the configuration has no names."""
        if self.config.id2label is None:
            return {i: str(i) for i in range(self.config.num_classes)}
        return {int(i): label for i, label in sorted(self.config.id2label.items(), key=lambda item: int(item[0]))}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor` of shape `(batch, num_classes)`: Logits.

        Raises:
            ValueError: If the images have another shape.
        """
        if not torch.is_tensor(image):
            raise TypeError(f"`image` expects a tensor, got {type(image).__name__}.")
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(f"`image` expects shape (batch, {', '.join(map(str, shape))}), got {tuple(image.shape)}.")
        return self.head(self.blocks(image))
