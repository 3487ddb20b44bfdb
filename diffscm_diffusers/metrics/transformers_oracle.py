# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .functional.checks import check_images


class TransformersOracle(nn.Module):
    r"""
    An image classifier of `transformers` as an oracle. It maps images in [0, 1] of any size to logits.

    Images are resized to the size of the classifier's image processor, repeated along the channels if they are
    greyscale and the classifier expects colour, and normalised with the processor's mean and standard deviation. They
    are never cropped, even if the processor crops, so that a change at the edge of an image counts.

    Args:
        name_or_path (`str` or `Path`): A repository on the Hub or a local folder, with weights in safetensors.
        cache_dir (`str` or `Path`, *optional*): The folder in which files from the Hub are cached.

    Raises:
        ImportError: If `transformers` is not installed.
        ValueError: If the image processor has neither height and width nor a shortest edge.

    Example:
        >>> from diffscm_diffusers.metrics import Effectiveness, TransformersOracle
        >>> oracle = TransformersOracle("google/vit-base-patch16-224")  # doctest: +SKIP
        >>> effectiveness = Effectiveness(oracle)  # doctest: +SKIP
    """

    def __init__(self, name_or_path: str | Path, cache_dir: str | Path | None = None):
        super().__init__()
        try:
            from transformers import AutoImageProcessor, AutoModelForImageClassification
        except ImportError as error:
            raise ImportError("`TransformersOracle` needs `transformers`: `pip install transformers`.") from error
        # Without `trust_remote_code`, transformers would ask on the terminal.
        options = {"cache_dir": cache_dir, "trust_remote_code": False}
        self.model = AutoModelForImageClassification.from_pretrained(
            name_or_path, use_safetensors=True, **options
        ).eval()
        processor = AutoImageProcessor.from_pretrained(name_or_path, **options)
        size = dict((processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size) or {})
        self.size = (size.get("height") or size.get("shortest_edge"), size.get("width") or size.get("shortest_edge"))
        if None in self.size:
            raise ValueError(
                "`name_or_path` expects a classifier whose image processor has height and width or a shortest edge, "
                f"got {str(name_or_path)!r} with size {size}."
            )
        self.num_channels = getattr(self.model.config, "num_channels", 3)
        mean, std = torch.zeros(self.num_channels), torch.ones(self.num_channels)
        if processor.do_normalize:
            mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
        self.register_buffer("mean", mean.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", std.reshape(-1, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        """`int`: the number of classes."""
        return self.model.config.num_labels

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: the name of each class."""
        return {
            int(i): label for i, label in sorted(self.model.config.id2label.items(), key=lambda item: int(item[0]))
        }

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image (`torch.Tensor` of shape `(batch, channels, height, width)`): Images, floats in [0, 1].

        Returns:
            `torch.Tensor` of shape `(batch, num_classes)`: logits.

        Raises:
            ValueError: If images are not in [0, 1], or have neither one channel nor as many as the classifier expects.
            TypeError: If images are not floats.
        """
        check_images(image=image)
        if image.shape[1] not in (1, self.num_channels):
            raise ValueError(f"`image` expects 1 or {self.num_channels} channels, got {image.shape[1]}.")
        image = F.interpolate(image, self.size, mode="bilinear", antialias=True)
        image = image.expand(-1, self.num_channels, -1, -1)
        return self.model((image - self.mean) / self.std).logits
