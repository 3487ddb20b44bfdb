# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn


class FourierEmbedding(nn.Module):
    """A linear layer of a number of about [-1, 1] and of its sines and cosines, of periods 4, 2, 1 and 0.5."""

    def __init__(self, embedding_dim: int):
        super().__init__()
        self.linear = nn.Linear(9, embedding_dim)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        angles = math.pi / 2 * value * 2.0 ** torch.arange(4, device=value.device)
        return self.linear(torch.cat([value, angles.sin(), angles.cos()], dim=1).to(self.linear.weight.dtype))


class CausalUNet2DModel(UNet2DModel):
    r"""
    A [`UNet2DModel`] that is told the causes of the image: the denoiser `eps(x_t, t, pa)`, whose ODE is the mechanism
    of the image given its parents.

    Each parent has an embedding that is added to that of time: a linear layer of its one-hot value or, for a number,
    of its Fourier features. Any parent can be dropped, for a learned embedding of its own. So a network whose parents
    were dropped at random in training is also the denoiser given any part of them, and the one given none, which
    classifier-free guidance needs ([Ho & Salimans, 2022](https://huggingface.co/papers/2207.12598)).

    Parameters, beside those of [`UNet2DModel`]:
        condition_widths (`dict[str, int]` or `list[tuple[str, int]]`):
            The image's parents, in the order of the condition, and how many of its entries each has: 1 for a number,
            else the number of its one-hot entries. The configuration keeps them as a list of pairs, as the keys of its
            JSON are sorted.

    Raises:
        ValueError: if there is no parent, if a width is not a whole number of at least 1, or if classes are asked for
            in [`UNet2DModel`]'s way.
    """

    @register_to_config
    def __init__(
        self,
        condition_widths: dict[str, int] | list[tuple[str, int]],
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",
        up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: tuple[int, ...] = (224, 448, 672, 896),
        layers_per_block: int = 2,
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        downsample_type: str = "conv",
        upsample_type: str = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,
        num_train_timesteps: int | None = None,
    ):
        for name, value in (("class_embed_type", class_embed_type), ("num_class_embeds", num_class_embeds)):
            if value is not None:
                raise ValueError(f"`{name}` expects None, as a class is one of `condition_widths`, got {value!r}.")
        if not isinstance(condition_widths, (dict, list, tuple)):
            raise TypeError(f"`condition_widths` expects a width for each parent, got {condition_widths!r}.")
        condition_widths = dict(condition_widths)
        if not condition_widths or any(type(width) is not int or width < 1 for width in condition_widths.values()):
            raise ValueError(
                "`condition_widths` expects at least one parent, each with a width of at least 1, got "
                f"{condition_widths}."
            )
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            center_input_sample=center_input_sample,
            time_embedding_type=time_embedding_type,
            time_embedding_dim=time_embedding_dim,
            freq_shift=freq_shift,
            flip_sin_to_cos=flip_sin_to_cos,
            down_block_types=down_block_types,
            mid_block_type=mid_block_type,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            mid_block_scale_factor=mid_block_scale_factor,
            downsample_padding=downsample_padding,
            downsample_type=downsample_type,
            upsample_type=upsample_type,
            dropout=dropout,
            act_fn=act_fn,
            attention_head_dim=attention_head_dim,
            norm_num_groups=norm_num_groups,
            attn_norm_num_groups=attn_norm_num_groups,
            norm_eps=norm_eps,
            resnet_time_scale_shift=resnet_time_scale_shift,
            add_attention=add_attention,
            class_embed_type=class_embed_type,
            num_class_embeds=num_class_embeds,
            num_train_timesteps=num_train_timesteps,
        )
        self.register_to_config(condition_widths=[[name, width] for name, width in condition_widths.items()])

        embedding_dim = self.time_embedding.linear_2.out_features
        self.condition_embeddings = nn.ModuleList(
            FourierEmbedding(embedding_dim) if width == 1 else nn.Linear(width, embedding_dim)
            for width in condition_widths.values()
        )
        self.null_embeddings = nn.Parameter(torch.zeros(len(condition_widths), embedding_dim))
        # Adds what `forward` makes of the condition to the embedding of time.
        self.class_embedding = nn.Identity()

    @property
    def condition_widths(self) -> dict[str, int]:
        """`dict[str, int]`: the image's parents, in the order of the condition, and the entries of each."""
        return dict(self.config.condition_widths)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        condition: torch.Tensor,
        keep: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, height, width)`):
                Noisy images `x_t`, in front of any further input channels.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`):
                The values of the parents, one after the other: numbers scaled to about [-1, 1], and one-hot values.
            keep (`torch.Tensor` of shape `(batch, num_parents)`, *optional*):
                `torch.bool`. Where it is `False`, the parent is dropped. Default: none is.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object or a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the denoiser's prediction.

        Raises:
            ValueError: if `condition` or `keep` has another shape, or `keep` is not boolean.
        """
        widths = [width for _, width in self.config.condition_widths]
        for name, value in (("sample", sample), ("condition", condition), ("keep", keep)):
            if not torch.is_tensor(value) and (value is not None or name != "keep"):
                raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` expects shape (batch, {self.config.in_channels}, height, width), got {tuple(sample.shape)}."
            )
        if condition.shape != (len(sample), sum(widths)):
            raise ValueError(
                f"`condition` expects shape {(len(sample), sum(widths))}, of {self.condition_widths}, got "
                f"{tuple(condition.shape)}."
            )
        if keep is not None and (keep.shape != (len(sample), len(widths)) or keep.dtype != torch.bool):
            raise ValueError(
                f"`keep` expects booleans of shape {(len(sample), len(widths))}, one for each parent of each image, "
                f"got {keep.dtype} of shape {tuple(keep.shape)}."
            )
        embeddings = torch.stack(
            [
                # The sines are computed in float32.
                embedding(value.float() if isinstance(embedding, FourierEmbedding) else value.to(self.dtype))
                for embedding, value in zip(self.condition_embeddings, condition.split(widths, dim=1), strict=True)
            ],
            dim=1,
        )
        if keep is not None:
            embeddings = torch.where(keep[:, :, None], embeddings, self.null_embeddings)
        return super().forward(sample, timestep, class_labels=embeddings.sum(dim=1), return_dict=return_dict)
