# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class ClassPrototypes(ModelMixin, ConfigMixin):
    r"""
    The prototype of each class by which [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584) guide
    their search: the mean encoding of the class' training images. Zero until [`~ClassPrototypes.fit`].

    Parameters:
        num_classes (`int`): Number of classes.
        encoding_shape (`tuple[int]`): Shape of one encoding.
    """

    @register_to_config
    def __init__(self, num_classes: int, encoding_shape: tuple[int, ...]):
        super().__init__()
        self.register_buffer("encodings", torch.zeros(num_classes, *encoding_shape))

    def fit(self, encodings: torch.Tensor, labels: torch.Tensor):
        """
        Takes the mean encoding of each class.

        Args:
            encodings (`torch.Tensor` of shape `(num_images, *encoding_shape)`):
                Encodings of the training images, floats.
            labels (`torch.Tensor` of shape `(num_images,)`): The class of each, integers.

        Raises:
            ValueError: if the shapes do not fit, encodings are not finite, a label is no class, or a class has no
                image.
            TypeError: if `encodings` is not a tensor of floats, or `labels` not one of integers.
        """
        num_classes, *encoding_shape = self.encodings.shape
        if not isinstance(encodings, torch.Tensor) or not encodings.is_floating_point():
            got = encodings.dtype if isinstance(encodings, torch.Tensor) else type(encodings).__name__
            raise TypeError(f"`encodings` takes a tensor of floats, got {got}.")
        if encodings.ndim == 0 or list(encodings.shape[1:]) != encoding_shape:
            raise ValueError(
                f"`encodings` takes shape (num_images, {', '.join(map(str, encoding_shape))}), got "
                f"{tuple(encodings.shape)}."
            )
        if not encodings.isfinite().all():
            raise ValueError("`encodings` takes finite values, got NaN or infinity.")
        if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
            got = labels.dtype if isinstance(labels, torch.Tensor) else type(labels).__name__
            raise TypeError(f"`labels` takes a tensor of integers, got {got}.")
        if labels.shape != (len(encodings),):
            raise ValueError(
                f"`labels` takes the class of each of the {len(encodings)} encodings, got shape {tuple(labels.shape)}."
            )
        unknown = sorted({label for label in labels.tolist() if not 0 <= label < num_classes})
        if unknown:
            raise ValueError(f"`labels` takes classes from 0 to {num_classes - 1}, got {unknown}.")
        labels = labels.long()
        counts = labels.bincount(minlength=len(self.encodings))
        if not counts.all():
            missing = (counts == 0).nonzero().flatten().tolist()
            raise ValueError(f"`labels` takes at least one image of each class, got none of {missing}.")
        sums = torch.zeros_like(self.encodings).index_add_(0, labels, encodings.to(self.encodings.dtype))
        self.encodings = sums / counts.view(-1, *[1] * (encodings.ndim - 1))

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """
        Args:
            labels (`torch.Tensor` of shape `(batch,)`): Class indices.

        Returns:
            `torch.Tensor` of shape `(batch, *encoding_shape)`: the prototype of each.
        """
        return self.encodings[labels]
