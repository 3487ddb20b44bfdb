# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .functional.checks import check_eps
from .functional.im1 import im1
from .per_sample_metric import PerSampleMetric


class IM1(PerSampleMetric):
    r"""
    IM1: how much better the autoencoder of the counterfactual class reconstructs the counterfactual than that of the
    factual class does,

    `|x_CF - AE_{y_CF}(x_CF)|_2^2 / (|x_CF - AE_{y_F}(x_CF)|_2^2 + eps)`,

    in [0, inf); lower is better. [`~diffscm_diffusers.metrics.functional.im1`] says more.

    Source: [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584); paper, Eq. 19.

    Args:
        class_autoencoders (sequence of callables):
            At index `c` an autoencoder trained on class `c` only, in evaluation mode. It maps images in [0, 1] to
            their reconstructions, a tensor of the same shape. A `torch.nn.ModuleList` follows the metric's device.
        eps (`float`, *optional*, defaults to `1e-7`): Keeps the ratio finite. At least 0.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: if `reduction` is unknown, or `eps` is negative or not finite.
        TypeError: if `eps` is no number.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import IM1
        >>> metric = IM1([lambda image: 0.5 * image, lambda image: 0.75 * image])
        >>> metric.update(torch.ones(1, 1, 2, 2), factual_class=torch.tensor([0]), intervention=torch.tensor([1]))
        >>> metric.compute()
        tensor(0.2500)
    """

    higher_is_better = False

    def __init__(
        self,
        class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
        eps: float = 1e-7,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ):
        super().__init__(reduction, **kwargs)
        check_eps(eps)
        self.class_autoencoders = class_autoencoders
        self.eps = eps

    def update(self, counterfactual: torch.Tensor, factual_class: torch.Tensor, intervention: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
                The counterfactual images, floats in [0, 1].
            factual_class (`torch.Tensor` of shape `(batch,)`): The factual images' class indices.
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        """
        self.add(im1(counterfactual, factual_class, intervention, self.class_autoencoders, self.eps))
