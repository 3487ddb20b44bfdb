# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps


class ADMUNet2DModel(UNet2DModel):
    r"""
    A [`UNet2DModel`] with the two options of ADM ([Dhariwal & Nichol, 2021](https://huggingface.co/papers/2105.05233))
    that it has not: the same number of attention heads at every level, whatever the level's width, and an embedding of
    time that is wider than the first level. Of the published denoisers, the one for 128x128 needs the first and the
    one for 512x512 the second; the others are plain [`UNet2DModel`]s.

    Parameters, beside those of [`UNet2DModel`]:
        num_attention_heads (`int`, *optional*):
            Number of heads in every attention layer. Default: as many as `attention_head_dim` makes of its width.
        time_proj_dim (`int`, *optional*):
            Length of the sinusoidal embedding of time, a quarter of the learned one's. Default: the first entry of
            `block_out_channels`.

    Raises:
        ValueError: if the width of an attention layer is no multiple of `num_attention_heads`.
    """

    @register_to_config
    def __init__(
        self,
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
        num_attention_heads: int | None = None,
        time_proj_dim: int | None = None,
    ):
        for name, value in (("num_attention_heads", num_attention_heads), ("time_proj_dim", time_proj_dim)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
        if (
            not isinstance(block_out_channels, (list, tuple))
            or len(block_out_channels) != len(down_block_types)
            or any(type(width) is not int or width < 1 for width in block_out_channels)
        ):
            raise ValueError(
                "`block_out_channels` expects a whole number of at least 1 for each of `down_block_types`, got "
                f"{block_out_channels!r}."
            )
        time_proj_dim = time_proj_dim or block_out_channels[0]
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            center_input_sample=center_input_sample,
            time_embedding_type=time_embedding_type,
            time_embedding_dim=time_embedding_dim or 4 * time_proj_dim,
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
        self.time_proj = Timesteps(time_proj_dim, flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(time_proj_dim, self.config.time_embedding_dim)

        if num_attention_heads is not None:
            for attention in (module for module in self.modules() if isinstance(module, Attention)):
                if attention.inner_dim % num_attention_heads != 0:
                    raise ValueError(
                        "`num_attention_heads` expects a divisor of the width of every attention layer, got "
                        f"{num_attention_heads} for a layer of {attention.inner_dim}."
                    )
                # The weights are the same for any number of heads: it only says how the channels are grouped.
                attention.heads = attention.sliceable_head_dim = num_attention_heads
                attention.scale = (attention.inner_dim // num_attention_heads) ** -0.5
