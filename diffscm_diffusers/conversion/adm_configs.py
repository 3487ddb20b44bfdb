# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
The flags of guided-diffusion ([Dhariwal & Nichol, 2021](https://huggingface.co/papers/2105.05233)), by which ADM's
networks are described, as configurations of this package's and Diffusers' classes.
"""

# Multipliers of `num_channels` where the flag `channel_mult` is empty, by image size.
CHANNEL_MULT = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


def encoder_config(
    image_size: int,
    num_channels: int,
    num_res_blocks: int,
    channel_mult: tuple[float, ...],
    attention_resolutions: tuple[int, ...],
    use_scale_shift_norm: bool,
    resblock_updown: bool,
) -> dict:
    """
    The part of a configuration that denoiser and classifier share.

    Args:
        image_size (`int`): Height and width of the images.
        num_channels (`int`): Width of the network, before it is multiplied.
        num_res_blocks (`int`): Residual layers per level.
        channel_mult (`tuple[float]`): Multiplier of each level's width; empty for that of `image_size`.
        attention_resolutions (`tuple[int]`): Heights of the feature maps that have attention.
        use_scale_shift_norm (`bool`): Whether time enters by adaptive group normalisation, or else as a sum.
        resblock_updown (`bool`): Whether residual layers change the resolution, or else convolutions.

    Returns:
        `dict`: arguments of both [`UNet2DModel`] and [`AntiCausalClassifier2DModel`].

    Raises:
        ValueError: if `channel_mult` is empty for an image size that has no default.
    """
    if not channel_mult and image_size not in CHANNEL_MULT:
        raise ValueError(
            f"`channel_mult` is needed for an `image_size` other than {', '.join(map(str, CHANNEL_MULT))}, got "
            f"`image_size` {image_size}."
        )
    channel_mult = channel_mult or CHANNEL_MULT[image_size]
    # guided-diffusion compares factors of downsampling, not heights: they differ where a height is odd.
    attention_factors = {image_size // resolution for resolution in attention_resolutions}
    plain = "ResnetDownsampleBlock2D" if resblock_updown else "DownBlock2D"
    return {
        "sample_size": image_size,
        "block_out_channels": tuple(int(mult * num_channels) for mult in channel_mult),
        "layers_per_block": num_res_blocks,
        "down_block_types": tuple(
            "AttnDownBlock2D" if 2**level in attention_factors else plain for level in range(len(channel_mult))
        ),
        "downsample_type": "resnet" if resblock_updown else "conv",
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if use_scale_shift_norm else "default",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def denoiser_config(
    image_size: int,
    num_channels: int,
    num_res_blocks: int,
    channel_mult: tuple[float, ...],
    attention_resolutions: tuple[int, ...],
    num_heads: int,
    num_head_channels: int,
    use_scale_shift_norm: bool,
    resblock_updown: bool,
    learn_sigma: bool,
    dropout: float,
    in_channels: int,
    num_classes: int | None,
) -> dict:
    """
    The configuration of a denoiser.

    Args:
        num_heads (`int`): Heads of every attention layer, where `num_head_channels` is -1.
        num_head_channels (`int`): Channels per attention head, or -1.
        learn_sigma (`bool`): Whether the variance is predicted, in a second half of the output channels.
        dropout (`float`): Dropout in the residual layers.
        in_channels (`int`): Number of channels of the images.
        num_classes (`int`, *optional*): Number of classes of a class-conditional denoiser.

    The other arguments are those of [`encoder_config`].

    Returns:
        `dict`: with `_class_name` `"UNet2DModel"`, or `"ADMUNet2DModel"` where Diffusers' class does not suffice.
    """
    config = encoder_config(
        image_size,
        num_channels,
        num_res_blocks,
        channel_mult,
        attention_resolutions,
        use_scale_shift_norm,
        resblock_updown,
    )
    plain = "ResnetUpsampleBlock2D" if resblock_updown else "UpBlock2D"
    config |= {
        "_class_name": "UNet2DModel",
        "in_channels": in_channels,
        "out_channels": (2 if learn_sigma else 1) * in_channels,
        "up_block_types": tuple(
            "AttnUpBlock2D" if down_block_type == "AttnDownBlock2D" else plain
            for down_block_type in reversed(config["down_block_types"])
        ),
        "upsample_type": config["downsample_type"],
        "dropout": dropout,
        "num_class_embeds": num_classes,
    }

    widths = {
        width
        for width, down_block_type in zip(config["block_out_channels"], config["down_block_types"], strict=True)
        if down_block_type == "AttnDownBlock2D"
    } | {config["block_out_channels"][-1]}
    if num_head_channels != -1:
        config["attention_head_dim"] = num_head_channels
    elif num_heads == 1:
        config["attention_head_dim"] = None
    elif len(widths) == 1:
        config["attention_head_dim"] = widths.pop() // num_heads
    else:
        config |= {"_class_name": "ADMUNet2DModel", "attention_head_dim": None, "num_attention_heads": num_heads}
    if config["block_out_channels"][0] != num_channels:
        config |= {"_class_name": "ADMUNet2DModel", "time_proj_dim": num_channels}
    return config


def classifier_config(
    image_size: int,
    classifier_width: int,
    classifier_depth: int,
    classifier_channel_mult: tuple[float, ...],
    classifier_attention_resolutions: tuple[int, ...],
    classifier_num_head_channels: int,
    classifier_use_scale_shift_norm: bool,
    classifier_resblock_updown: bool,
    classifier_pool: str,
    in_channels: int,
    num_classes: int,
    id2label: dict[int, str] | None = None,
) -> dict:
    """
    The configuration of a classifier.

    Args:
        image_size (`int`): Height and width of the images.
        classifier_width (`int`): Width of the network, before it is multiplied.
        classifier_depth (`int`): Residual layers per level.
        classifier_channel_mult (`tuple[float]`): See `channel_mult` of [`encoder_config`].
        classifier_attention_resolutions (`tuple[int]`): See `attention_resolutions` of [`encoder_config`].
        classifier_num_head_channels (`int`): Channels per attention head, pooling included.
        classifier_use_scale_shift_norm (`bool`): See `use_scale_shift_norm` of [`encoder_config`].
        classifier_resblock_updown (`bool`): See `resblock_updown` of [`encoder_config`].
        classifier_pool (`str`): `"adaptive"`, `"attention"`, `"spatial"` or `"spatial_v2"`.
        in_channels (`int`): Number of channels of the images.
        num_classes (`int`): Number of classes.
        id2label (`dict[int, str]`, *optional*): Names of the classes.

    Returns:
        `dict`: arguments of [`AntiCausalClassifier2DModel`].
    """
    return encoder_config(
        image_size,
        classifier_width,
        classifier_depth,
        classifier_channel_mult,
        classifier_attention_resolutions,
        classifier_use_scale_shift_norm,
        classifier_resblock_updown,
    ) | {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "id2label": id2label,
        "attention_head_dim": classifier_num_head_channels,
        "time_proj_dim": classifier_width,
        "pooling": "average" if classifier_pool == "adaptive" else classifier_pool,
    }


def scheduler_config(diffusion_steps: int, noise_schedule: str, learn_sigma: bool, predict_xstart: bool) -> dict:
    """
    The configuration of the diffusion process.

    Args:
        diffusion_steps (`int`): Number of diffusion steps in training.
        noise_schedule (`str`): `"linear"` or `"cosine"`.
        learn_sigma (`bool`): Whether the denoiser predicts the variance.
        predict_xstart (`bool`): Whether the denoiser predicts the image, or else the noise.

    Returns:
        `dict`: arguments of [`DDPMScheduler`].
    """
    return {
        "num_train_timesteps": diffusion_steps,
        # The linear schedule is scaled to end at the same noise level whatever the number of steps.
        "beta_start": 1e-4 * 1000 / diffusion_steps,
        "beta_end": 0.02 * 1000 / diffusion_steps,
        "beta_schedule": {"linear": "linear", "cosine": "squaredcos_cap_v2"}[noise_schedule],
        "variance_type": "learned_range" if learn_sigma else "fixed_large",
        "prediction_type": "sample" if predict_xstart else "epsilon",
    }
