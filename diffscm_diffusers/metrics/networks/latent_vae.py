# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import nn

from .checks import check_sizes, check_widths


class LatentVAE(ModelMixin, ConfigMixin):
    r"""
    A variational autoencoder ([Kingma & Welling, 2014](https://huggingface.co/papers/1312.6114)) with one latent
    vector per image. [`CounterfactualLatentDivergence`] compares the diagonal Gaussians `q(z | x)` of its encoder. The
    paper uses 20 dimensions (Sec. 5.2, Fig. 3).

    The encoder of strided convolutions and two linear layers returns mean and variance of `q(z | x)`. The decoder
    mirrors it. The prior is a standard Gaussian. Given `z`, pixels are independent Bernoulli variables, and a grey
    value is the probability of white. This is usual for digits and needs no noise level.

    Parameters:
        sample_size (`int`): Height and width of the images. Must be divisible by 2 for each convolution.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        latent_dim (`int`, *optional*, defaults to 20): Length of the latent vector.
        block_out_channels (`tuple[int]`, *optional*, defaults to `(32, 64)`):
            Output channels of the encoder's convolutions. Each halves height and width.
        hidden_features (`int`, *optional*, defaults to 128): Width of the layer between convolutions and latent.

    Raises:
        ValueError: If `sample_size` is not divisible by 2 for each convolution.
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
        check_sizes(
            sample_size=sample_size, in_channels=in_channels, latent_dim=latent_dim, hidden_features=hidden_features
        )
        check_widths(block_out_channels=block_out_channels)
        factor = 2 ** len(block_out_channels)
        if sample_size % factor != 0:
            raise ValueError(
                f"`sample_size` expects a multiple of {factor} with {len(block_out_channels)} convolutions, got "
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

        # Returns logits: probabilities could be rounded to 0 or 1, where the loss is infinite.
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
        Returns the posterior of the latent vector, a diagonal Gaussian.

        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Mean and variance of `q(z | x)`, each of shape `(batch, latent_dim)`.

        Raises:
            ValueError: If the images have another shape or values outside [0, 1].
        """
        if not torch.is_tensor(image):
            raise TypeError(f"`image` expects a tensor, got {type(image).__name__}.")
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if image.ndim != 4 or image.shape[1:] != shape:
            raise ValueError(f"`image` expects shape (batch, {', '.join(map(str, shape))}), got {tuple(image.shape)}.")
        low, high = image.min().item(), image.max().item()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"`image` expects values in [0, 1] without NaN, got values from {low:.4g} to {high:.4g}.")
        mean, log_variance = self.encoder(image).float().chunk(2, dim=1)
        return mean, log_variance.exp()

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """
        Returns the mean of `p(x | z)`.

        Args:
            latent (`torch.Tensor` of shape `(batch, latent_dim)`): Latent vectors.

        Returns:
            `torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`: Images in [0, 1].
        """
        if not torch.is_tensor(latent):
            raise TypeError(f"`latent` expects a tensor, got {type(latent).__name__}.")
        if latent.ndim != 2 or latent.shape[1] != self.config.latent_dim:
            raise ValueError(f"`latent` expects shape (batch, {self.config.latent_dim}), got {tuple(latent.shape)}.")
        return self.decoder(latent).float().sigmoid()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Reconstructs images from the means of their latents.

        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].

        Returns:
            `torch.Tensor` of the same shape: Reconstructions in [0, 1].

        Raises:
            ValueError: As [`~LatentVAE.encode`].
        """
        mean, _ = self.encode(image)
        return self.decode(mean)

    def elbo(self, image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        r"""
        Returns the evidence lower bound, `E_q(z | x) [log p(x | z)] - KL(q(z | x) || N(0, I))`. The expectation is
        estimated with one draw of `z`. The training loss is the negative mean over the images.

        Args:
            image (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [0, 1].
            generator (`torch.Generator`, *optional*): Draws `z`. By default the global random state does.

        Returns:
            `torch.Tensor` of shape `(batch,)`: The bound of each image, in nats.

        Raises:
            ValueError: As [`~LatentVAE.encode`].
        """
        mean, variance = self.encode(image)
        noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        logits = self.decoder(mean + variance.sqrt() * noise).float()
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, image.float(), reduction="none").flatten(1).sum(1)
        divergence = 0.5 * (mean.square() + variance - 1 - variance.log()).sum(1)
        return log_likelihood - divergence
