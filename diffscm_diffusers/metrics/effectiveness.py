# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable
from typing import Any, Literal

import torch

from .functional.effectiveness import effectiveness
from .per_sample_metric import PerSampleMetric


class Effectiveness(PerSampleMetric):
    r"""
    Effectiveness: how often an oracle, an image classifier, sees the target class in the counterfactual,

    `1 if argmax_y p(y | x_CF) = y_CF else 0`.

    In [0, 1]; higher is better. Any image of the target class scores 1, however far it is from the factual. The oracle
    must not be the classifier that guides the method, and should have another architecture: otherwise adversarial
    images score well, too.

    Source: an axiom of [Galles & Pearl (1998)](https://doi.org/10.1023/A:1009602825894), measured as in
    [Monteiro et al. (2023)](https://huggingface.co/papers/2303.01274).

    Args:
        oracle (callable):
            A classifier in evaluation mode. It maps images in [0, 1] to logits of shape `(batch, num_classes)`. A
            `torch.nn.Module` moves with the metric to its device.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import Effectiveness
        >>> def oracle(image):  # class 1 is bright, class 0 is dark
        ...     brightness = image.mean(dim=(1, 2, 3))
        ...     return torch.stack([1 - brightness, brightness], dim=1)
        >>> metric = Effectiveness(oracle)
        >>> counterfactual = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
        >>> metric.update(counterfactual, intervention=torch.tensor([1, 1]))
        >>> metric.compute()
        tensor(0.5000)
    """

    higher_is_better = True
    plot_upper_bound = 1.0

    def __init__(
        self,
        oracle: Callable[[torch.Tensor], torch.Tensor],
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ):
        super().__init__(reduction, **kwargs)
        self.oracle = oracle

    def update(self, counterfactual: torch.Tensor, intervention: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
                The counterfactual images, floats in [0, 1].
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        """
        self.add(effectiveness(counterfactual, intervention, self.oracle))
