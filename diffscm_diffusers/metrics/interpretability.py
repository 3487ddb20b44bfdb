# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .functional.interpretability import check_eps, im1, im2
from .per_sample_metric import PerSampleMetric


class InterpretabilityMetric(PerSampleMetric):
    r"""
    How well autoencoders of single classes reconstruct a counterfactual. The base class of [`IM1`] and [`IM2`].

    Args:
        class_autoencoders (sequence of callables):
            At index `c`, an autoencoder trained on class `c` only, in evaluation mode. It maps images in [0, 1] to
            reconstructions of the same shape. A `torch.nn.ModuleList` moves with the metric to its device.
        eps (`float`, *optional*, defaults to `1e-7`): Is added to the denominator. At least 0.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: If `reduction` is unknown, or `eps` is negative or not finite.
        TypeError: If `eps` is not a number.
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


class IM1(InterpretabilityMetric):
    r"""
    IM1, the first interpretability metric: the reconstruction error of the target class's autoencoder on the
    counterfactual, relative to that of the factual class's autoencoder,

    `|x_CF - AE_{y_CF}(x_CF)|_2^2 / (|x_CF - AE_{y_F}(x_CF)|_2^2 + eps)`.

    In [0, inf); lower is better. Below 1, the counterfactual is more typical of its target class than of the factual
    class. Any image of the target class scores well, however far it is from the factual.

    Source: [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584); paper, Eq. 19. The denominator
    uses the autoencoder of the factual class, as the original and the paper's formula do. The paper's text names that
    of all classes.

    Arguments: `class_autoencoders`, `eps` and `reduction`, as in [`InterpretabilityMetric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import IM1
        >>> metric = IM1([lambda image: 0.5 * image, lambda image: 0.75 * image])
        >>> metric.update(torch.ones(1, 1, 2, 2), factual_class=torch.tensor([0]), intervention=torch.tensor([1]))
        >>> metric.compute()
        tensor(0.2500)
    """

    def update(self, counterfactual: torch.Tensor, factual_class: torch.Tensor, intervention: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
                The counterfactual images, floats in [0, 1].
            factual_class (`torch.Tensor` of shape `(batch,)`): The class indices of the factual images.
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        """
        self.add(im1(counterfactual, factual_class, intervention, self.class_autoencoders, self.eps))


class IM2(InterpretabilityMetric):
    r"""
    IM2, the second interpretability metric: the difference between the reconstructions of the counterfactual by the
    autoencoder of its target class and by the autoencoder of all classes, relative to the L1 norm of the image,

    `|AE_{y_CF}(x_CF) - AE(x_CF)|_2^2 / (|x_CF|_1 + eps)`.

    In [0, inf); lower is better. Any clean image of the target class scores well. Background noise, which one
    autoencoder removes and the other keeps, raises IM2; bright images lower it by their norm alone.

    Source: [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584); paper, Eq. 20. The numerator uses
    the autoencoder of the target class, as the original and the paper's text do. The paper's formula has that of the
    factual class.

    Args:
        class_autoencoders (sequence of callables): As in [`InterpretabilityMetric`].
        autoencoder (callable): An autoencoder trained on all classes, in evaluation mode.
        eps, reduction, kwargs: As in [`InterpretabilityMetric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import IM2
        >>> metric = IM2([lambda image: 0.5 * image, lambda image: 0.75 * image], lambda image: 0.25 * image)
        >>> metric.update(torch.ones(1, 1, 2, 2), intervention=torch.tensor([1]))
        >>> metric.compute()
        tensor(0.2500)
    """

    def __init__(
        self,
        class_autoencoders: Sequence[Callable[[torch.Tensor], torch.Tensor]],
        autoencoder: Callable[[torch.Tensor], torch.Tensor],
        eps: float = 1e-7,
        reduction: Literal["mean", "none"] = "mean",
        **kwargs: Any,
    ):
        super().__init__(class_autoencoders, eps, reduction, **kwargs)
        self.autoencoder = autoencoder

    def update(self, counterfactual: torch.Tensor, intervention: torch.Tensor) -> None:
        """
        Adds a batch.

        Args:
            counterfactual (`torch.Tensor` of shape `(batch, channels, height, width)`):
                The counterfactual images, floats in [0, 1].
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        """
        self.add(im2(counterfactual, intervention, self.class_autoencoders, self.autoencoder, self.eps))
