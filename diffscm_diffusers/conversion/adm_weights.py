# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The weights of ADM's networks, from guided-diffusion's names and layouts to Diffusers'."""

import torch
from diffusers import ModelMixin


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out"}

# Which layers follow the encoder of a classifier, by `pooling`.
HEADS = {
    "average": {"conv_norm_out": "out.0", "pool.2": "out.3"},
    "attention": {
        "conv_norm_out": "out.0",
        "pool": "out.2",
        "pool.to_q": "out.2.qkv_proj",
        "pool.to_k": "out.2.qkv_proj",
        "pool.to_v": "out.2.qkv_proj",
        "pool.to_out": "out.2.c_proj",
    },
    "spatial": {"pool.0": "out.0", "pool.2": "out.2"},
    "spatial_v2": {"pool.0": "out.0", "pool.1": "out.1", "pool.3": "out.3"},
}


def block_names(name: str, adm_name: str, layers: dict[str, str]) -> dict[str, str]:
    return {f"{name}.{layer}": f"{adm_name}.{adm_layer}" for layer, adm_layer in layers.items()}


def encoder_names(config: dict) -> dict[str, str]:
    names = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        **block_names("mid_block.resnets.0", "middle_block.0", RESNET),
        **block_names("mid_block.attentions.0", "middle_block.1", ATTENTION),
        **block_names("mid_block.resnets.1", "middle_block.2", RESNET),
    }
    number = 1
    for level in range(len(config["down_block_types"])):
        for layer in range(config["layers_per_block"]):
            names |= block_names(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{number}.0", RESNET)
            names |= block_names(f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{number}.1", ATTENTION)
            number += 1
        names |= block_names(
            f"down_blocks.{level}.downsamplers.0", f"input_blocks.{number}.0", {**RESNET, "conv": "op"}
        )
        number += 1
    return names


def denoiser_names(config: dict) -> dict[str, str]:
    """
    guided-diffusion's name of each layer of a denoiser.

    Args:
        config (`dict`): The denoiser's configuration.

    Returns:
        `dict[str, str]`: from Diffusers' to guided-diffusion's names, those of layers that this denoiser has not
        included.
    """
    names = encoder_names(config) | {
        "class_embedding": "label_emb",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    number = 0
    for level, up_block_type in enumerate(config["up_block_types"]):
        for layer in range(config["layers_per_block"] + 1):
            names |= block_names(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{number}.0", RESNET)
            names |= block_names(f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{number}.1", ATTENTION)
            number += 1
        # The upsampling is the last layer of the level's last block.
        last = f"output_blocks.{number - 1}.{2 if up_block_type == 'AttnUpBlock2D' else 1}"
        names |= block_names(f"up_blocks.{level}.upsamplers.0", last, {**RESNET, "conv": "conv"})
    return names


def classifier_names(config: dict) -> dict[str, str]:
    """
    guided-diffusion's name of each layer of a classifier.

    Args:
        config (`dict`): The classifier's configuration.

    Returns:
        `dict[str, str]`: from our to guided-diffusion's names, those of layers that this classifier has not included.
    """
    return encoder_names(config) | HEADS[config["pooling"]]


def take_projection(weight: torch.Tensor, projection: int, num_heads: int, interleaved: bool) -> torch.Tensor:
    """
    Takes the query's, key's or value's rows out of a joint projection.

    Args:
        weight (`torch.Tensor`): Joint weight or bias; its first dimension has three times the attention's width.
        projection (`int`): 0 for the query, 1 for the key, 2 for the value.
        num_heads (`int`): Number of attention heads.
        interleaved (`bool`):
            Whether the rows are ordered by head, then projection (guided-diffusion's legacy order), or by projection,
            then head.
    """
    if interleaved:
        return weight.unflatten(0, (num_heads, 3, -1))[:, projection].flatten(0, 1)
    return weight.unflatten(0, (3, -1))[projection]


def convert_weights(
    weights: dict[str, torch.Tensor], model: ModelMixin, names: dict[str, str], use_new_attention_order: bool
) -> dict[str, torch.Tensor]:
    """
    Renames and reshapes a network's weights. Every weight of the file must have its place in the network and the other
    way round. What can be is a view of the file's weights, not a copy.

    Args:
        weights (`dict[str, torch.Tensor]`): guided-diffusion's weights.
        model (`ModelMixin`): The network that they are for; on the meta device it costs no memory.
        names (`dict[str, str]`): guided-diffusion's name of each of its layers.
        use_new_attention_order (`bool`): guided-diffusion's flag: see [`take_projection`].

    Returns:
        `dict[str, torch.Tensor]`: `model`'s state dict, in float32.

    Raises:
        ValueError: if weights are missing, left over or of another shape. All of them are listed.
    """
    expected, converted = {}, {}
    for name, parameter in model.state_dict().items():
        layer, _, kind = name.rpartition(".")
        shape = list(parameter.shape)
        projection = {"to_q": 0, "to_k": 1, "to_v": 2}.get(layer.rpartition(".")[2])
        if projection is not None:
            shape[0] *= 3
        if kind == "position_embedding":
            kind, shape = "positional_embedding", shape[::-1]
        adm_name = f"{names[layer]}.{kind}"
        expected[adm_name] = shape

        # Linear layers may be stored as convolutions, which have further dimensions of length 1.
        weight = weights.get(adm_name)
        if weight is None or strip(weight.shape) != strip(shape):
            continue
        weight = weight.float().reshape(shape)
        if projection is not None:
            # The pooling came later and has the new order only.
            interleaved = not use_new_attention_order and layer.partition(".")[0] != "pool"
            attention = model.get_submodule(layer.rpartition(".")[0])
            heads = attention.num_heads if layer.startswith("pool") else attention.heads
            weight = take_projection(weight, projection, heads, interleaved)
        elif kind == "positional_embedding":
            weight = weight.T
        converted[name] = weight

    missing = [name for name in expected if name not in weights]
    surplus = [name for name in weights if name not in expected]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} for {tuple(shape)}"
        for name, shape in expected.items()
        if name in weights and strip(weights[name].shape) != strip(shape)
    ]
    if missing or surplus or misshapen:
        lines = [f"The weights are not those of the {type(model).__name__} that the flags describe:"]
        for title, found in (("missing", missing), ("surplus", surplus), ("of another shape", misshapen)):
            if found:
                lines += [f"{len(found)} {title}:", *(f"  {name}" for name in found)]
        raise ValueError("\n".join([*lines, "Use the flags that the network was trained with."]))
    return converted


def strip(shape: list[int] | torch.Size) -> tuple[int, ...]:
    """Drops the dimensions of length 1 at the end of a shape."""
    shape = tuple(shape)
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
