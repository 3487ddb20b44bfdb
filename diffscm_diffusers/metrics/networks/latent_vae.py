# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn


class LatentVAE(ModelMixin, ConfigMixin):
    r"""
    A variational autoencoder ([Kingma & Welling, 2014](https://huggingface.co/papers/1312.6114)) with one latent
    vector per image. The counterfactual latent divergence compares the diagonal Gaussians that its encoder gives; the
    paper has 20 dimensions (Sec. 5.2, Fig. 3).

    Strided convolutions and two linear layers give mean and variance of `q(z | x)`; their mirror image gives
    `p(x | z)`. The prior is a standard Gaussian. Pixels are independent Bernoulli variables given `z`, with grey
    values taken as probabilities: the usual choice for digits, and without a noise level to set.

    Parameters:
        sample_size (`int`): Height and width of the images; halved, without a rest, at every convolution.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        latent_dim (`int`, *optional*, defaults to 20): Length of the latent vector.
        block_out_channels (`tuple[int]`, *optional*, defaults to `(32, 64)`):
            Output channels of the encoder's convolutions, from the finest level to the coarsest.
        hidden_features (`int`, *optional*, defaults to 128): Width of the layer between convolutions and latent.

    Raises:
        ValueError: if `sample_size` cannot be halved once per convolution.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        in_channels: int = 1,
        latent_dim: int = 20,
        block_out_channels: tuple[int, ...] = (32, 64),
        hidden_features: int = 128,
    ):
        super().__init__()
        factor = 2 ** len(block_out_channels)
        if sample_size % factor != 0:
            raise ValueError(
                f"`sample_size` takes a multiple of {factor} with {len(block_out_channels)} convolutions, got "
                f"{sample_size}."
            )
        channels = (in_channels, *block_out_channels)
        feature_map = (channels[-1], sample_size // factor, sample_size // factor)
        num_features = feature_map[0] * feature_map[1] * feature_map[2]

        self.encoder = nn.Sequential()
        for i in range(len(block_out_channels)):
            self.encoder.append(nn.Conv2d(channels[i], channels[i + 1], kernel_size=4, stride=2, padding=1))
            self.encoder.append(nn.ReLU())
        self.encoder.extend(
            [
                nn.Flatten(),
                nn.Linear(num_features, hidden_features),
                nn.ReLU(),
                nn.Linear(hidden_features, 2 * latent_dim),
            ]
        )

        # Ends in logits, of which the loss is computed without rounding probabilities to 0 or 1.
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_features),
            nn.ReLU(),
            nn.Linear(hidden_features, num_features),
            nn.Unflatten(1, feature_map),
        )
        for i in reversed(range(len(block_out_channels))):
            self.decoder.append(nn.ReLU())
            self.decoder.append(nn.ConvTranspose2d(channels[i + 1], channels[i], kernel_size=4, stride=2, padding=1))

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The posterior of the latent, a diagonal Gaussian.

        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `tuple`: mean and variance of `q(z | x)`, each of shape `(batch, latent_dim)`.

        Raises:
            ValueError: if the images have another shape or values outside of [0, 1].
        """
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(f"`image` takes shape (batch, {', '.join(map(str, shape))}), got {tuple(image.shape)}.")
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"`image` takes values in [0, 1] without NaN, got values from {low:.4g} to {high:.4g}.")
        mean, log_variance = self.encoder(image).float().chunk(2, dim=1)
        return mean, log_variance.exp()

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """
        The mean of `p(x | z)`.

        Args:
            latent (`torch.Tensor` of shape `(batch, latent_dim)`): Latent vectors.

        Returns:
            `torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`: images in [0, 1].
        """
        return self.decoder(latent).float().sigmoid()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Reconstructs images from the means of their latents.

        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor`: reconstructions in [0, 1], of the images' shape.
        """
        mean, _ = self.encode(image)
        return self.decode(mean)

    def elbo(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        r"""
        The evidence lower bound, `E_q(z | x) [log p(x | z)] - KL(q(z | x) || N(0, I))`, its expectation estimated by
        one draw of `z`. Its negative mean is the training loss.

        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].
            generator (`torch.Generator`, *optional*): Draws `z`. Default: the global random state.

        Returns:
            `torch.Tensor` of shape `(batch,)`: the bound of each image, in nats.
        """
        mean, variance = self.encode(image)
        noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        logits = self.decoder(mean + variance.sqrt() * noise).float()
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, image.float(), reduction="none").flatten(1).sum(1)
        divergence = 0.5 * (mean.square() + variance - 1 - variance.log()).sum(1)
        return log_likelihood - divergence
