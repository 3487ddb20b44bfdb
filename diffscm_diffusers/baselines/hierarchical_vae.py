# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from ..models.semantic_encoder_2d import ConditionedConvolution
from .conditional_vae import check_vae_config, check_vae_inputs, mean_and_log_std
from .discretised_logistic import discretised_logistic_log_prob, mean_and_scale


class TopDownBlock(nn.Module):
    """Latents of one level: their posterior, their prior given those above, and what they and the parents draw."""

    def __init__(self, channels: int, latent_channels: int, condition_features: int):
        super().__init__()
        self.posterior = ConditionedConvolution(2 * channels, channels, condition_features)
        self.posterior_out = nn.Conv2d(channels, 2 * latent_channels, kernel_size=1)
        self.prior = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.prior_out = nn.Conv2d(channels, 2 * latent_channels, kernel_size=1)
        self.latents_to_prior = nn.Conv2d(latent_channels, channels, kernel_size=1)
        self.latents_to_image = nn.Conv2d(latent_channels, channels, kernel_size=1)
        self.conv_1 = ConditionedConvolution(channels, channels, condition_features)
        self.conv_2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        # Posterior and prior start as standard Gaussians, and the block as one that changes nothing.
        for layer in (self.posterior_out, self.prior_out, self.conv_2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def infer(self, hidden, features, condition) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the standard deviation of the latents, given image and parents."""
        return mean_and_log_std(self.posterior_out(self.posterior(torch.cat([hidden, features], dim=1), condition)))

    def draw(self, hidden: torch.Tensor, latents: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """What the latents and the parents add to the image."""
        hidden = hidden + self.latents_to_image(latents.to(hidden.dtype))
        return hidden + self.conv_2(self.conv_1(hidden, condition))


class HierarchicalVAE2DModel(ModelMixin, ConfigMixin):
    r"""
    A conditional variational autoencoder with latents at every resolution, from a single pixel up to the image's own:
    the image's mechanism of [De Sousa Ribeiro et al., 2023](https://huggingface.co/papers/2306.15764), with which a
    diffusion causal model is compared.

    The latents' prior knows the coarser latents, but not the parents: all latents are exogenous noise, as is the noise
    of each pixel, `x = mean(z, pa) + scale(z, pa) * u`. The posterior of the latents of a level is told the image, its
    parents and the coarser latents. See [`VAECounterfactualPipeline`].

    Parameters:
        sample_size (`int`): Height and width of the images, which each level but the first halves.
        condition_dim (`int`): Number of entries of the condition, which tells the image's parents.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        latent_channels (`int`, *optional*, defaults to 4): Latents of each pixel of a level. The top has 4 times them.
        block_out_channels (`tuple[int, ...]`, *optional*, defaults to `(16, 32, 64)`): Channels of each level.
        condition_features (`int`, *optional*, defaults to 64): Width of the embedding of the condition.

    Attributes:
        latent_dim (`int`): Number of all latents.

    Raises:
        ValueError: if a size is no whole number of at least 1, or a level cannot halve the images.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        condition_dim: int,
        in_channels: int = 1,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (16, 32, 64),
        condition_features: int = 64,
    ):
        super().__init__()
        check_vae_config(
            sample_size,
            block_out_channels,
            condition_dim=condition_dim,
            in_channels=in_channels,
            latent_channels=latent_channels,
            condition_features=condition_features,
        )
        widths = list(block_out_channels)
        # From the top, a single pixel, down to the image.
        sizes = [1, *(sample_size // 2**level for level in reversed(range(len(widths))))]
        channels = [widths[-1], *reversed(widths)]
        latents = [4 * latent_channels, *[latent_channels] * len(widths)]
        self.latent_shapes = [(number, size, size) for number, size in zip(latents, sizes, strict=True)]
        self.latent_dim = sum(number * size**2 for number, size, _ in self.latent_shapes)

        self.condition_embedding = nn.Sequential(nn.Linear(condition_dim, condition_features), nn.SiLU())
        self.down_blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    ConditionedConvolution(source, width, condition_features, stride=1 if level == 0 else 2),
                    ConditionedConvolution(width, width, condition_features),
                ]
            )
            for level, (source, width) in enumerate(zip([in_channels, *widths], widths, strict=False))
        )
        self.pool = nn.Linear(widths[-1] * sizes[1] ** 2, widths[-1])
        self.up_blocks = nn.ModuleList(
            TopDownBlock(width, number, condition_features) for width, number in zip(channels, latents, strict=True)
        )
        # The width of each level but the first, from that above.
        self.to_image = nn.ModuleList(
            nn.Conv2d(above, width, kernel_size=1) for above, width in zip(channels, channels[1:], strict=False)
        )
        self.to_prior = nn.ModuleList(
            nn.Conv2d(above, width, kernel_size=1) for above, width in zip(channels, channels[1:], strict=False)
        )
        self.image_start = nn.Parameter(torch.zeros(1, channels[0], 1, 1))
        self.prior_start = nn.Parameter(torch.zeros(1, channels[0], 1, 1))
        self.conv_out = nn.Conv2d(channels[-1], 2 * in_channels, kernel_size=3, padding=1)

    def encode(self, sample: torch.Tensor, condition: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """
        The latents of images, given their parents, from the top down.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [-1, 1].
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Their parents.
            noise (`torch.Tensor` of shape `(batch, latent_dim)`, *optional*):
                Standard Gaussian noise that makes the latents a draw from their posterior. Default: its mean, of each
                level given the means above.

        Returns:
            `torch.Tensor` of shape `(batch, latent_dim)`: the latents, in float32.

        Raises:
            ValueError: if an argument has another shape.
        """
        check_vae_inputs(self, sample=sample, condition=condition, noise=noise)
        return self._infer(sample, condition, noise)[0]

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
        condition = self.condition_embedding(condition.to(self.dtype))
        hidden = self.image_start.expand(len(latents), -1, -1, -1)
        for level, (block, part) in enumerate(zip(self.up_blocks, self._split(latents), strict=True)):
            hidden = block.draw(self._grow(hidden, level, self.to_image), part, condition)
        return mean_and_scale(self.conv_out(hidden))

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
        latents, posteriors, hidden = self._infer(sample, condition, noise)
        log_likelihood = discretised_logistic_log_prob(sample, *mean_and_scale(self.conv_out(hidden)))

        divergence, prior_hidden = 0, self.prior_start.expand(len(sample), -1, -1, -1)
        parts = zip(self.up_blocks, self._split(latents), posteriors, strict=True)
        for level, (block, part, (mean, log_std)) in enumerate(parts):
            prior_hidden = self._grow(prior_hidden, level, self.to_prior)
            features = F.silu(block.prior(prior_hidden))
            prior_mean, prior_log_std = mean_and_log_std(block.prior_out(features))
            ratio = (2 * (log_std - prior_log_std)).exp() + ((mean - prior_mean) / prior_log_std.exp()).square()
            divergence = divergence + (prior_log_std - log_std + (ratio - 1) / 2).sum(dim=(1, 2, 3))
            prior_hidden = prior_hidden + features + block.latents_to_prior(part.to(features.dtype))
        return log_likelihood.sum(dim=(1, 2, 3)), divergence

    def _infer(
        self, sample: torch.Tensor, condition: torch.Tensor, noise: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """The latents, mean and logarithm of the standard deviation of each level's, and what they draw."""
        condition = self.condition_embedding(condition.to(self.dtype))
        features, hidden = [], sample.to(self.dtype) + 1
        for first, second in self.down_blocks:
            hidden = second(first(hidden, condition), condition)
            features.insert(0, hidden)
        features.insert(0, self.pool(hidden.flatten(1))[:, :, None, None])

        noises = [None] * len(self.up_blocks) if noise is None else self._split(noise)
        latents, posteriors = [], []
        hidden = self.image_start.expand(len(sample), -1, -1, -1)
        for level, (block, feature, part) in enumerate(zip(self.up_blocks, features, noises, strict=True)):
            hidden = self._grow(hidden, level, self.to_image)
            mean, log_std = block.infer(hidden, feature, condition)
            posteriors.append((mean, log_std))
            latents.append(mean if part is None else mean + log_std.exp() * part)
            hidden = block.draw(hidden, latents[-1], condition)
        return torch.cat([part.flatten(1) for part in latents], dim=1), posteriors, hidden

    def _grow(self, hidden: torch.Tensor, level: int, layers: nn.ModuleList) -> torch.Tensor:
        if level == 0:
            return hidden
        return F.interpolate(layers[level - 1](hidden), size=self.latent_shapes[level][1:])

    def _split(self, latents: torch.Tensor) -> list[torch.Tensor]:
        sizes = [number * size**2 for number, size, _ in self.latent_shapes]
        parts = zip(latents.split(sizes, dim=1), self.latent_shapes, strict=True)
        return [part.unflatten(1, shape) for part, shape in parts]
