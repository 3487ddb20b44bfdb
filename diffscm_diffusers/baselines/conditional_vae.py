# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from ..models.semantic_encoder_2d import ConditionedConvolution
from .discretised_logistic import discretised_logistic_log_prob, mean_and_scale


def check_vae_config(sample_size: int, block_out_channels: tuple[int, ...], **sizes: int):
    """Raises a `ValueError` if a network of these sizes cannot be built."""
    widths = block_out_channels
    if not isinstance(widths, (list, tuple)) or any(type(width) is not int or width < 1 for width in widths):
        raise ValueError(f"`block_out_channels` expects whole numbers of at least 1, got {widths!r}.")
    for name, value in {"sample_size": sample_size, **sizes}.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
    if len(widths) < 2 or sample_size % 2 ** (len(widths) - 1) != 0:
        raise ValueError(
            "`block_out_channels` expects at least 2 levels, each of half the size of the one before it, got "
            f"{len(widths)} for a `sample_size` of {sample_size}."
        )


def check_vae_inputs(vae: ModelMixin, **inputs: torch.Tensor | None):
    """Raises a `TypeError` or `ValueError` if a network's inputs are no tensors of the shapes that it expects."""
    shapes = {
        "sample": (vae.config.in_channels, vae.config.sample_size, vae.config.sample_size),
        "condition": (vae.config.condition_dim,),
        "latents": (vae.latent_dim,),
        "noise": (vae.latent_dim,),
    }
    batch_size = None
    for name, value in inputs.items():
        if value is None:
            continue
        if not torch.is_tensor(value):
            raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        batch_size = len(value) if batch_size is None and value.ndim > 0 else batch_size
        if value.shape != (batch_size, *shapes[name]):
            expected = ", ".join(map(str, (batch_size or "batch", *shapes[name])))
            raise ValueError(f"`{name}` expects shape ({expected}), got {tuple(value.shape)}.")


def mean_and_log_std(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's channels as the law of latents: the means and then, within -4 and 4, log standard deviations."""
    mean, log_std = parameters.float().chunk(2, dim=1)
    return mean, 4 * (log_std / 4).tanh()


class ConditionalVAE2DModel(ModelMixin, ConfigMixin):
    r"""
    A conditional variational autoencoder: the image's mechanism in deep structural causal models ([Pawlowski et al.,
    2020](https://huggingface.co/papers/2006.06485)), with which a diffusion causal model is compared.

    The latents `z ~ N(0, I)` and the noise of each pixel are the image's exogenous noise, `x = mean(z, pa) +
    scale(z, pa) * u`. So a counterfactual has the latents that the posterior `q(z | x, pa)` has as its mean under the
    factual parents, and the noise `u = (x - mean(z, pa)) / scale(z, pa)`. See [`VAECounterfactualPipeline`].

    Parameters:
        sample_size (`int`): Height and width of the images, which each level but the first halves.
        condition_dim (`int`): Number of entries of the condition, which tells the image's parents.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        latent_dim (`int`, *optional*, defaults to 16): Number of latents.
        block_out_channels (`tuple[int, ...]`, *optional*, defaults to `(24, 48, 64)`): Channels of each level.
        hidden_features (`int`, *optional*, defaults to 128): Width of the linear layers.
        condition_features (`int`, *optional*, defaults to 64): Width of the embeddings of the condition.

    Raises:
        ValueError: if a size is no whole number of at least 1, or a level cannot halve the images.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        condition_dim: int,
        in_channels: int = 1,
        latent_dim: int = 16,
        block_out_channels: tuple[int, ...] = (24, 48, 64),
        hidden_features: int = 128,
        condition_features: int = 64,
    ):
        super().__init__()
        check_vae_config(
            sample_size,
            block_out_channels,
            condition_dim=condition_dim,
            in_channels=in_channels,
            latent_dim=latent_dim,
            hidden_features=hidden_features,
            condition_features=condition_features,
        )
        widths, self.latent_dim = list(block_out_channels), latent_dim
        self.coarse_shape = (widths[-1], *2 * (sample_size // 2 ** (len(widths) - 1),))
        num_coarse = self.coarse_shape[0] * self.coarse_shape[1] ** 2

        self.condition_embedding = nn.Sequential(nn.Linear(condition_dim, condition_features), nn.SiLU())
        self.conv_in = ConditionedConvolution(in_channels, widths[0], condition_features)
        self.down_blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    ConditionedConvolution(fine, coarse, condition_features, stride=2),
                    ConditionedConvolution(coarse, coarse, condition_features),
                ]
            )
            for fine, coarse in pairwise(widths)
        )
        self.encoder_linear = nn.Linear(num_coarse + condition_features, hidden_features)
        self.latent_out = nn.Linear(hidden_features, 2 * latent_dim)

        # The latents and the parents, together.
        self.style_embedding = nn.Sequential(nn.Linear(latent_dim + condition_dim, condition_features), nn.SiLU())
        self.decoder_linear_1 = nn.Linear(latent_dim + condition_dim, hidden_features)
        self.decoder_linear_2 = nn.Linear(hidden_features, num_coarse)
        self.up_blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    ConditionedConvolution(coarse, coarse, condition_features),
                    ConditionedConvolution(coarse, fine, condition_features),
                ]
            )
            for coarse, fine in pairwise(reversed(widths))
        )
        self.refine = ConditionedConvolution(widths[0], widths[0], condition_features)
        self.conv_out = nn.Conv2d(widths[0], 2 * in_channels, kernel_size=3, padding=1)

    def encode(self, sample: torch.Tensor, condition: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """
        The latents of images, given their parents.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [-1, 1].
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Their parents.
            noise (`torch.Tensor` of shape `(batch, latent_dim)`, *optional*):
                Standard Gaussian noise that makes the latents a draw from their posterior. Default: its mean.

        Returns:
            `torch.Tensor` of shape `(batch, latent_dim)`: the latents, in float32.

        Raises:
            ValueError: if an argument has another shape.
        """
        check_vae_inputs(self, sample=sample, condition=condition, noise=noise)
        mean, std = self._posterior(sample, condition)
        return mean if noise is None else mean + std * noise

    def decode(self, latents: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The distribution of images, given latents and parents: logistic, each pixel by itself.

        Args:
            latents (`torch.Tensor` of shape `(batch, latent_dim)`): Latents.
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Parents, factual or counterfactual.

        Returns:
            `tuple` of two `torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`: means, about in
            [-1, 1], and scales, in float32.

        Raises:
            ValueError: if an argument has another shape.
        """
        check_vae_inputs(self, latents=latents, condition=condition)
        inputs = torch.cat([latents.to(self.dtype), condition.to(self.dtype)], dim=1)
        style = self.style_embedding(inputs)
        hidden = F.silu(self.decoder_linear_2(F.silu(self.decoder_linear_1(inputs)))).unflatten(1, self.coarse_shape)
        for first, second in self.up_blocks:
            hidden = second(F.interpolate(first(hidden, style), scale_factor=2), style)
        return mean_and_scale(self.conv_out(self.refine(hidden, style)))

    def forward(
        self, sample: torch.Tensor, condition: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The two terms of the evidence lower bound, at a draw from the posterior. Training calls it.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [-1, 1].
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Their parents.
            noise (`torch.Tensor` of shape `(batch, latent_dim)`): Standard Gaussian noise of the draw.

        Returns:
            `tuple` of two `torch.Tensor` of shape `(batch,)`: log-likelihood of the image, and divergence of the
            posterior from the prior, in nats.

        Raises:
            ValueError: if an argument has another shape.
        """
        check_vae_inputs(self, sample=sample, condition=condition, noise=noise)
        mean, std = self._posterior(sample, condition)
        log_likelihood = discretised_logistic_log_prob(sample, *self.decode(mean + std * noise, condition))
        divergence = (mean.square() + std.square() - 1 - 2 * std.log()).sum(dim=1) / 2
        return log_likelihood.sum(dim=(1, 2, 3)), divergence

    def _posterior(self, sample: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        condition = self.condition_embedding(condition.to(self.dtype))
        hidden = self.conv_in(sample.to(self.dtype) + 1, condition)
        for first, second in self.down_blocks:
            hidden = second(first(hidden, condition), condition)
        hidden = F.silu(self.encoder_linear(torch.cat([hidden.flatten(1), condition], dim=1)))
        mean, log_std = mean_and_log_std(self.latent_out(hidden))
        return mean, log_std.exp()
