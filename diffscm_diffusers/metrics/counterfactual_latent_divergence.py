# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any, Literal

import torch

from .functional.counterfactual_latent_divergence import (
    check_reference,
    counterfactual_latent_divergence,
    counterfactual_latent_divergence_floor,
)
from .per_sample_metric import PerSampleMetric


class CounterfactualLatentDivergence(PerSampleMetric):
    r"""
    Counterfactual latent divergence (CLD): whether the counterfactual is nearer to its factual than other images of
    the target class are, and farther than other images of the factual class are,

    `CLD = log(exp(P(S_CF <= div)) + exp(P(S_F >= div)))`,

    between log 2 = 0.693 and log(2 e) = 1.693; lower is better. [`counterfactual_latent_divergence`] says more.

    The reference set is given once with `fit`, as the latents that the encoder of a variational autoencoder gives for
    it. `update` takes the latents of counterfactuals and factuals by the same encoder.

    Source: paper, Eq. 8 to 10.

    Args:
        chunk_size (`int`, *optional*, defaults to 16):
            How many factuals are compared with the reference set at once. Memory grows as `chunk_size` times the
            reference images of a class; the result doesn't depend on it. On a CPU small chunks, which fit its cache,
            are the fastest; a GPU takes larger ones.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import CounterfactualLatentDivergence
        >>> metric = CounterfactualLatentDivergence()
        >>> reference_mean = torch.tensor([[-1.0], [1.0], [4.0], [6.0]])
        >>> _ = metric.fit(reference_mean, torch.ones(4, 1), torch.tensor([0, 0, 1, 1]))
        >>> counterfactual = torch.tensor([[3.0], [0.0]]), torch.ones(2, 1)
        >>> factual = torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0, 0])
        >>> metric.update(*counterfactual, *factual, intervention=torch.tensor([1, 1]))
        >>> metric.compute()  # the mean of log 2 and, for the factual itself, log(1 + e)
        tensor(1.0032)
        >>> metric.floor(*factual, intervention=torch.tensor([1, 1]))
        tensor([0.6931, 0.6931])
    """

    higher_is_better = False
    plot_lower_bound = 0.6931
    plot_upper_bound = 1.6932

    def __init__(self, chunk_size: int = 16, reduction: Literal["mean", "none"] = "mean", **kwargs: Any):
        super().__init__(reduction, **kwargs)
        if not isinstance(chunk_size, int) or chunk_size < 1:
            raise ValueError(f"`chunk_size` takes an integer above 0, got {chunk_size!r}.")
        self.chunk_size = chunk_size
        # Buffers, not states: they follow the metric to its device, but a reset or a merge leaves them alone.
        for name in ("reference_mean", "reference_variance", "reference_class"):
            self.register_buffer(name, None, persistent=False)

    def fit(
        self, reference_mean: torch.Tensor, reference_variance: torch.Tensor, reference_class: torch.Tensor
    ) -> "CounterfactualLatentDivergence":
        """
        Takes the latents to compare with, in place of any earlier ones. Each of several processes needs them all.

        Args:
            reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`): Means of the latents.
            reference_variance (`torch.Tensor` of shape `(num_references, latent_dim)`): Their variances, above 0.
            reference_class (`torch.Tensor` of shape `(num_references,)`): The class indices, at least two of a class.
        """
        check_reference(reference_mean, reference_variance, reference_class)
        self.reference_mean = reference_mean.to(self.device)
        self.reference_variance = reference_variance.to(self.device)
        self.reference_class = reference_class.to(self.device)
        return self

    @property
    def reference(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means, variances and classes of the reference set."""
        if self.reference_mean is None:
            raise RuntimeError("`CounterfactualLatentDivergence` has no reference set yet: call `fit` first.")
        return self.reference_mean, self.reference_variance, self.reference_class

    def update(
        self,
        counterfactual_mean: torch.Tensor,
        counterfactual_variance: torch.Tensor,
        factual_mean: torch.Tensor,
        factual_variance: torch.Tensor,
        factual_class: torch.Tensor,
        intervention: torch.Tensor,
    ) -> None:
        """
        Adds a batch.

        Args:
            counterfactual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the counterfactuals' latents.
            counterfactual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances, above 0.
            factual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the factuals' latents.
            factual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances, above 0.
            factual_class (`torch.Tensor` of shape `(batch,)`): The factual images' class indices.
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        """
        self.add(
            counterfactual_latent_divergence(
                counterfactual_mean,
                counterfactual_variance,
                factual_mean,
                factual_variance,
                factual_class,
                intervention,
                *self.reference,
                chunk_size=self.chunk_size,
            )
        )

    def floor(
        self,
        factual_mean: torch.Tensor,
        factual_variance: torch.Tensor,
        factual_class: torch.Tensor,
        intervention: torch.Tensor,
    ) -> torch.Tensor:
        """
        The lowest CLD that any counterfactual of each factual could reach, of shape `(batch,)`: see
        [`counterfactual_latent_divergence_floor`]. It leaves the metric's state as it is.
        """
        return counterfactual_latent_divergence_floor(
            factual_mean,
            factual_variance,
            factual_class,
            intervention,
            *self.reference,
            chunk_size=self.chunk_size,
        )
