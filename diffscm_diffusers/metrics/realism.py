# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any

import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from .functional.checks import check_evaluation_mode, check_images


class Realism(FrechetInceptionDistance):
    r"""
    Realism: the Fréchet distance between counterfactual and real images in the features of a given model. With means
    `m` and covariances `C` of the features,

    `|m_CF - m_real|_2^2 + tr(C_CF + C_real - 2 (C_CF C_real)^(1/2))`.

    In [0, inf); lower is better. It compares the distributions of two sets, so there is no result for a single sample,
    and copies of real images score well.

    This is [`torchmetrics.image.fid.FrechetInceptionDistance`] with the features of another model than Inception. Its
    values are not the FID of the literature, and only values of the same feature extractor can be compared. The
    distance falls with the number of images: compare sets of equal size, with many more images than features.

    Source: [Heusel et al. (2017)](https://huggingface.co/papers/1706.08500), Eq. 6.

    Args:
        feature_extractor (`torch.nn.Module`):
            A model in evaluation mode. It maps images in [0, 1] to features of shape `(batch, num_features)`.
        image_shape (`tuple[int, int, int]`):
            Channels, height and width of the images. The constructor passes one such image through the feature
            extractor to count the features.
        kwargs: Keyword arguments of [`torchmetrics.image.fid.FrechetInceptionDistance`], like `reset_real_features`.

    Raises:
        ValueError: If the feature extractor is in training mode.
        TypeError: If it is not a `torch.nn.Module`.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Realism
        >>> metric = Realism(torch.nn.Flatten().eval(), image_shape=(1, 1, 1))
        >>> metric.update(torch.tensor([0.0, 0.5]).reshape(2, 1, 1, 1), real=True)
        >>> metric.update(torch.tensor([0.5, 1.0]).reshape(2, 1, 1, 1), real=False)
        >>> metric.compute()  # equal variances, means 1 / 2 apart
        tensor(0.2500)
    """

    def __init__(self, feature_extractor: nn.Module, image_shape: tuple[int, int, int], **kwargs: Any):
        if not isinstance(image_shape, (list, tuple)) or len(image_shape) != 3:
            raise ValueError(f"`image_shape` expects channels, height and width, got {image_shape!r}.")
        if any(type(size) is not int or size < 1 for size in image_shape):
            raise ValueError(f"`image_shape` expects whole numbers of at least 1, got {image_shape!r}.")
        if not isinstance(feature_extractor, nn.Module):
            got = type(feature_extractor).__name__
            raise TypeError(f"`feature_extractor` expects a `torch.nn.Module`, got {got}.")
        check_evaluation_mode("feature_extractor", feature_extractor)
        if not hasattr(feature_extractor, "num_features"):
            # Torchmetrics would count them with an image on the CPU, but the extractor may be on another device.
            tensors = [*feature_extractor.parameters(), *feature_extractor.buffers()]
            device = tensors[0].device if tensors else None
            with torch.no_grad():
                features = feature_extractor(torch.rand(1, *image_shape, device=device))
            feature_extractor.num_features = features.shape[-1]
        super().__init__(feature=feature_extractor, normalize=True, input_img_size=image_shape, **kwargs)
        self.image_shape = tuple(image_shape)

    def update(self, image: torch.Tensor, real: bool) -> None:
        """
        Adds a batch.

        Args:
            image (`torch.Tensor` of shape `(batch, channels, height, width)`): Images, floats in [0, 1].
            real (`bool`): Whether these are real images (`True`) or counterfactuals (`False`).

        Raises:
            ValueError: If images are not in [0, 1] or not of shape `image_shape`, if the feature extractor is in
                training mode, or if it returns features that are not finite.
            TypeError: If images are not floats, or `real` is not a `bool`.
        """
        if not isinstance(real, bool):
            raise TypeError(f"`real` expects a `bool`, got {real!r} of type {type(real).__name__}.")
        check_images(image=image)
        if tuple(image.shape[1:]) != self.image_shape:
            raise ValueError(
                f"`image` expects images of `image_shape` {self.image_shape}, got shape {tuple(image.shape)}."
            )
        check_evaluation_mode("feature_extractor", self.inception)
        # The eigenvalues of what is not finite can end the interpreter.
        states = {name: getattr(self, name).clone() for name in self._defaults}
        super().update(image, real)
        kind = "real" if real else "fake"
        sums = getattr(self, f"{kind}_features_sum"), getattr(self, f"{kind}_features_cov_sum")
        if not all(value.isfinite().all() for value in sums):
            for name, value in states.items():
                setattr(self, name, value)
            raise ValueError("`feature_extractor` expects to return finite features, got NaN or infinity.")

    def compute(self) -> torch.Tensor:
        """
        Returns:
            `torch.Tensor`: the Fréchet distance between the two sets, a scalar.

        Raises:
            RuntimeError: If there are fewer than two real images or fewer than two counterfactuals.
            ValueError: If the distance is not finite.
        """
        counts = self.real_features_num_samples.item(), self.fake_features_num_samples.item()
        if min(counts) < 2:
            raise RuntimeError(
                "`Realism` needs at least two real images and two counterfactuals, "
                f"got {counts[0]} and {counts[1]}: call `update` first."
            )
        distance = super().compute()
        if not distance.isfinite():
            raise ValueError(
                f"`feature_extractor` expects to return features of finite squares, got a distance of {distance}."
            )
        return distance
