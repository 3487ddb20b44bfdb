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
    the target class are, and farther from it than other images of the factual class are,

    `CLD = log(exp(P(S_CF <= div)) + exp(P(S_F >= div)))`.

    Here `div = KL(N_CF || N_F)` is the divergence of the counterfactual's latent Gaussian from the factual's. `S_CF`
    and `S_F` are the divergences `KL(N_i || N_F)` of the reference images `i` of the target class and of the factual
    class from the same factual. The latent Gaussian of an image, with diagonal covariance, comes from the encoder of a
    variational autoencoder.

    In [log 2, log(2 e)] = [0.693, 1.693]; lower is better. The factual itself scores log(1 + e) = 1.313. Any image
    whose `div` lies between the two classes scores well, for instance a random real image of the target class. Where
    the classes overlap, as seen from a factual, no image reaches log 2: [`~CounterfactualLatentDivergence.floor`]
    returns the lowest possible value.

    Call `fit` once with the latents of the reference set, then `update` with the latents of counterfactuals and
    factuals from the same encoder.

    Source: paper, Eq. 8 to 10.

    Args:
        chunk_size (`int`, *optional*, defaults to 16):
            How many factuals are compared with the reference set at once. It changes speed and memory, not the result.
            Small chunks are fastest on a CPU, because they fit its cache; larger ones on a GPU.
        reduction (`str`, *optional*, defaults to `"mean"`):
            `"mean"` for the mean over all samples, `"none"` for the result of every sample.
        kwargs: Keyword arguments of [`torchmetrics.Metric`].

    Raises:
        ValueError: If `reduction` is unknown or `chunk_size` is below 1.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import CounterfactualLatentDivergence
        >>> metric = CounterfactualLatentDivergence()
        >>> reference_mean = torch.tensor([[-1.0], [1.0], [4.0], [6.0]])
        >>> _ = metric.fit(reference_mean, torch.ones(4, 1), torch.tensor([0, 0, 1, 1]))
        >>> counterfactual = torch.tensor([[3.0], [0.0]]), torch.ones(2, 1)
        >>> factual = torch.zeros(2, 1), torch.ones(2, 1), torch.tensor([0, 0])
        >>> metric.update(*counterfactual, *factual, intervention=torch.tensor([1, 1]))
        >>> metric.compute()  # the mean of log 2 and of log(1 + e), the score of the factual itself
        tensor(1.0032)
        >>> metric.floor(*factual, intervention=torch.tensor([1, 1]))
        tensor([0.6931, 0.6931])
    """

    higher_is_better = False
    plot_lower_bound = 0.6931
    plot_upper_bound = 1.6932

    def __init__(self, chunk_size: int = 16, reduction: Literal["mean", "none"] = "mean", **kwargs: Any):
        super().__init__(reduction, **kwargs)
        if type(chunk_size) is not int or chunk_size < 1:
            raise ValueError(f"`chunk_size` expects an integer above 0, got {chunk_size!r}.")
        self.chunk_size = chunk_size
        # Buffers, not states: they move with the metric to its device, but a reset or a merge does not change them.
        for name in ("reference_mean", "reference_variance", "reference_class"):
            self.register_buffer(name, None, persistent=False)

    def fit(
        self, reference_mean: torch.Tensor, reference_variance: torch.Tensor, reference_class: torch.Tensor
    ) -> "CounterfactualLatentDivergence":
        """
        Sets the reference set, and replaces an earlier one. Each of several processes needs the whole set.

        Args:
            reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`):
                Means of the reference images' latents.
            reference_variance (`torch.Tensor` of shape `(num_references, latent_dim)`): Their variances, above 0.
            reference_class (`torch.Tensor` of shape `(num_references,)`):
                The class indices of the reference images, at least two of each class.

        Returns:
            [`CounterfactualLatentDivergence`]: The metric itself.

        Raises:
            ValueError: If shapes do not match, variances are not above 0, latents are not finite, or a class has a
                single image.
            TypeError: If latents are not floats or classes are not integers.
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
            factual_class (`torch.Tensor` of shape `(batch,)`): The class indices of the factual images.
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
        The lowest CLD that any counterfactual of each factual can reach. It does not change the metric's state.

        Args:
            factual_mean (`torch.Tensor` of shape `(batch, latent_dim)`): Means of the factuals' latents.
            factual_variance (`torch.Tensor` of shape `(batch, latent_dim)`): Their variances, above 0.
            factual_class (`torch.Tensor` of shape `(batch,)`): The class indices of the factual images.
            intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.

        Returns:
            `torch.Tensor` of shape `(batch,)`: The floor of each sample, in [0.693, 1.313].
        """
        return counterfactual_latent_divergence_floor(
            factual_mean,
            factual_variance,
            factual_class,
            intervention,
            *self.reference,
            chunk_size=self.chunk_size,
        )
