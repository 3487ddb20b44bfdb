# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .checks import check_labels, check_sizes, check_widths


class BatchedLinear(nn.Module):
    """
    One linear layer per member of the ensemble, all computed in one batched matrix product.

    Args:
        num_members (`int`): Number of linear layers.
        in_features (`int`): Length of the input vectors.
        out_features (`int`): Length of the output vectors.
    """

    def __init__(self, num_members: int, in_features: int, out_features: int):
        super().__init__()
        bound = in_features**-0.5  # as in `nn.Linear`
        self.weight = nn.Parameter(torch.empty(num_members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_members, 1, out_features).uniform_(-bound, bound))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, hidden_states, self.weight)


class BatchedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of shape `(num_members, batch, num_features)`, with separate statistics for each member."""

    def __init__(self, num_members: int, num_features: int):
        super().__init__(num_members * num_features)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        num_members, batch, num_features = hidden_states.shape
        hidden_states = hidden_states.transpose(0, 1).reshape(batch, num_members * num_features)
        return super().forward(hidden_states).view(batch, num_members, num_features).transpose(0, 1)


class MLPEnsemble(ModelMixin, ConfigMixin):
    r"""
    The ensemble of multi-layer perceptrons of [Schut et al. (2021)](https://huggingface.co/papers/2103.08951), used by
    [`SchutPipeline`]. Each hidden layer is a linear layer, a ReLU and batch normalisation.

    Parameters:
        sample_size (`int`, *optional*, defaults to 28): Height and width of the images.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        num_classes (`int`, *optional*, defaults to 10): Number of classes.
        id2label (`dict[int, str]`, *optional*):
            Names of the classes. The keys become strings in the saved configuration, because JSON has no integer keys.
        num_members (`int`, *optional*, defaults to 30): Number of networks.
        hidden_features (`tuple[int]`, *optional*, defaults to `(200, 200)`): Width of each hidden layer.

    Raises:
        ValueError: If `id2label` does not name each class.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        num_classes: int = 10,
        id2label: dict[int, str] | None = None,
        num_members: int = 30,
        hidden_features: tuple[int, ...] = (200, 200),
    ):
        super().__init__()
        check_sizes(sample_size=sample_size, in_channels=in_channels, num_classes=num_classes, num_members=num_members)
        if hidden_features not in ((), []):  # none leaves a linear layer
            check_widths(hidden_features=hidden_features)
        check_labels(id2label, num_classes)
        layers = []
        in_features = in_channels * sample_size**2
        for out_features in hidden_features:
            layers += [
                BatchedLinear(num_members, in_features, out_features),
                nn.ReLU(),
                BatchedBatchNorm(num_members, out_features),
            ]
            in_features = out_features
        layers.append(BatchedLinear(num_members, in_features, num_classes))
        self.layers = nn.Sequential(*layers)

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: The name of each class, or its index as a string if the configuration has no names."""
        if self.config.id2label is None:
            return {i: str(i) for i in range(self.config.num_classes)}
        return {int(i): label for i, label in sorted(self.config.id2label.items(), key=lambda item: int(item[0]))}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        r"""
        Args:
            image (`torch.Tensor`):
                Images in [0, 1], of shape `(batch, in_channels, sample_size, sample_size)` for all members, or
                `(num_members, batch, in_channels, sample_size, sample_size)` for a separate batch per member.

        Returns:
            `torch.Tensor` of shape `(num_members, batch, num_classes)`: The logits of each member.

        Raises:
            ValueError: If the images have another shape.
        """
        if not torch.is_tensor(image):
            raise TypeError(f"`image` expects a tensor, got {type(image).__name__}.")
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim < 4 or image.shape[-3:] != shape or image.shape[:-4] not in ((), (self.config.num_members,)):
            dimensions = ", ".join(map(str, shape))
            raise ValueError(
                f"`image` expects shape (batch, {dimensions}) or ({self.config.num_members}, batch, {dimensions}), "
                f"got {tuple(image.shape)}."
            )
        if image.ndim == 4:
            image = image.expand(self.config.num_members, *image.shape)
        return self.layers(image.flatten(2))
