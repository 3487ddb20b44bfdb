# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class ImageClassifier(ModelMixin, ConfigMixin):
    r"""
    A plain convolutional classifier of clean images. It serves as the oracle, which says what class a counterfactual
    shows, so with the defaults it resembles the anti-causal predictor that guides as little as it can: it has no time,
    no residuals, no group normalisation.

    Each block is a convolution, batch normalisation if asked for, a ReLU, a 2 x 2 maximum pooling and dropout. A
    hidden linear layer with a ReLU and dropout follows, then the logits. With `block_kernel_sizes=(2, 2)`,
    `block_dropouts=(0.3, 0.3)`, `hidden_features=256`, `hidden_dropout=0.5` and `batch_norm=False` it is the
    classifier that [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584) explain.

    Parameters:
        sample_size (`int`): Height and width of the images; halved, rounded down, in every block.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        num_classes (`int`, *optional*, defaults to 10): Number of classes.
        id2label (`dict[int, str]`, *optional*):
            Names of the classes. Keys become strings in the saved configuration, as JSON has no others.
        block_out_channels (`tuple[int]`, *optional*, defaults to `(32, 64)`): Output channels of each block.
        block_kernel_sizes (`tuple[int]`, *optional*, defaults to `(5, 3)`): Kernel size of each block's convolution.
        block_dropouts (`tuple[float]`, *optional*, defaults to `(0.0, 0.4)`): Dropout at the end of each block.
        hidden_features (`int`, *optional*, defaults to 128): Width of the hidden linear layer.
        hidden_dropout (`float`, *optional*, defaults to 0.4): Dropout after the hidden linear layer.
        batch_norm (`bool`, *optional*, defaults to `True`): Whether the blocks have batch normalisation.

    Raises:
        ValueError: if the blocks' settings differ in number, if the blocks leave nothing of the images, or if
            `id2label` does not name `num_classes` classes.
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
        if not len(block_out_channels) == len(block_kernel_sizes) == len(block_dropouts):
            raise ValueError(
                "`block_out_channels`, `block_kernel_sizes` and `block_dropouts` take one entry per block, got "
                f"{len(block_out_channels)}, {len(block_kernel_sizes)} and {len(block_dropouts)}."
            )
        size = sample_size // 2 ** len(block_out_channels)
        if size == 0:
            raise ValueError(
                f"`sample_size` takes at least {2 ** len(block_out_channels)} with {len(block_out_channels)} blocks, "
                f"got {sample_size}."
            )
        if id2label is not None and sorted(map(int, id2label)) != list(range(num_classes)):
            raise ValueError(
                f"`id2label` takes a name for each class from 0 to {num_classes - 1}, got the keys {list(id2label)}."
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
        """`int`: the number of classes."""
        return self.config.num_classes

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: the name of each class; its number where the configuration names none."""
        if self.config.id2label is None:
            return {i: str(i) for i in range(self.config.num_classes)}
        return {int(i): label for i, label in sorted(self.config.id2label.items(), key=lambda item: int(item[0]))}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor` of shape `(batch, num_classes)`: logits.

        Raises:
            ValueError: if the images have another shape.
        """
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(f"`image` takes shape (batch, {', '.join(map(str, shape))}), got {tuple(image.shape)}.")
        return self.head(self.blocks(image))
