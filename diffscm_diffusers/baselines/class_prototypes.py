# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

from ..metrics.functional.checks import check_classes
from ..metrics.networks.checks import check_sizes, check_widths


class ClassPrototypes(ModelMixin, ConfigMixin):
    r"""
    The class prototypes of [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584): for each class,
    the mean encoding of its training images. They are zero until [`~ClassPrototypes.fit`] is called.

    Parameters:
        num_classes (`int`): Number of classes.
        encoding_shape (`tuple[int]`): Shape of one encoding.
    """

    @register_to_config
    def __init__(self, num_classes: int, encoding_shape: tuple[int, ...]):
        super().__init__()
        check_sizes(num_classes=num_classes)
        check_widths(encoding_shape=encoding_shape)
        self.register_buffer("encodings", torch.zeros(num_classes, *encoding_shape))

    def fit(self, encodings: torch.Tensor, labels: torch.Tensor):
        """
        Sets the prototype of each class to the mean of its encodings.

        Args:
            encodings (`torch.Tensor` of shape `(num_images, *encoding_shape)`):
                Encodings of the training images, as floats.
            labels (`torch.Tensor` of shape `(num_images,)`): The class indices of the images.

        Raises:
            ValueError: If shapes do not match, encodings are not finite, a label is not a class index, or a class has
                no image.
            TypeError: If `encodings` is not a tensor of floats, or `labels` is not a tensor of integers.
        """
        num_classes, *encoding_shape = self.encodings.shape
        if not isinstance(encodings, torch.Tensor) or not encodings.is_floating_point():
            got = encodings.dtype if isinstance(encodings, torch.Tensor) else type(encodings).__name__
            raise TypeError(f"`encodings` expects a tensor of floats, got {got}.")
        if encodings.ndim == 0 or list(encodings.shape[1:]) != encoding_shape:
            raise ValueError(
                f"`encodings` expects shape (num_images, {', '.join(map(str, encoding_shape))}), got "
                f"{tuple(encodings.shape)}."
            )
        if not encodings.isfinite().all():
            raise ValueError("`encodings` expects finite values, got NaN or infinity.")
        check_classes(len(encodings), labels=labels)
        unknown = sorted({label for label in labels.tolist() if not 0 <= label < num_classes})
        if unknown:
            raise ValueError(f"`labels` expects class indices from 0 to {num_classes - 1}, got {unknown}.")
        labels = labels.long()
        counts = labels.bincount(minlength=num_classes)
        missing = (counts == 0).nonzero().flatten().tolist()
        if missing:
            raise ValueError(f"`labels` expects at least one image of each class, got none of {missing}.")
        sums = torch.zeros_like(self.encodings).index_add_(0, labels, encodings.to(self.encodings.dtype))
        self.encodings = sums / counts.view(-1, *[1] * (encodings.ndim - 1))

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """
        Args:
            labels (`torch.Tensor` of shape `(batch,)`): Class indices.

        Returns:
            `torch.Tensor` of shape `(batch, *encoding_shape)`: The prototypes of the classes.
        """
        check_classes(len(labels) if torch.is_tensor(labels) else 0, labels=labels)
        if not ((labels >= 0) & (labels < len(self.encodings))).all():
            raise ValueError(
                f"`labels` expects class indices from 0 to {len(self.encodings) - 1}, got {labels.tolist()}."
            )
        return self.encodings[labels]
