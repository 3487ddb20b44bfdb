# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .functional.checks import check_eps
from .functional.im2 import im2
from .per_sample_metric import PerSampleMetric


class IM2(PerSampleMetric):
    r"""
    IM2: how far the autoencoder of the counterfactual class and that of all classes disagree on the counterfactual,

    `|AE_{y_CF}(x_CF) - AE(x_CF)|_2^2 / (|x_CF|_1 + eps)`,

    in [0, inf); lower is better. [`~diffscm_diffusers.metrics.functional.im2`] says more.

    Source: [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584); paper, Eq. 20 with the
    counterfactual class's autoencoder, as in its text, in place of the factual class's.

    Args:
        class_autoencoders (sequence of callables):
            At index `c` an autoencoder trained on class `c` only, in evaluation mode. It maps images in [0, 1] to
            their reconstructions, a tensor of the same shape. A `torch.nn.ModuleList` follows the metric's device.
        autoencoder (callable): An autoencoder trained on all classes, otherwise as these.
        eps (`float`, *optional*, defaults to `1e-7`): Keeps the ratio finite. At least 0.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: if `reduction` is unknown, or `eps` is negative or not finite.
        TypeError: if `eps` is no number.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import IM2
        >>> metric = IM2([lambda image: 0.5 * image, lambda image: 0.75 * image], lambda image: 0.25 * image)
        >>> metric.update(torch.ones(1, 1, 2, 2), intervention=torch.tensor([1]))
        >>> metric.compute()
        tensor(0.2500)
    """

    higher_is_better = False

    def __init__(
        self,
        class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
        autoencoder: Callable[[torch.Tensor], torch.Tensor],
        eps: float = 1e-7,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ):
        super().__init__(reduction, **kwargs)
        check_eps(eps)
        self.class_autoencoders = class_autoencoders
        self.autoencoder = autoencoder
        self.eps = eps

    def update(self, counterfactual: torch.Tensor, intervention: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
                The counterfactual images, floats in [0, 1].
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        """
        self.add(im2(counterfactual, intervention, self.class_autoencoders, self.autoencoder, self.eps))
