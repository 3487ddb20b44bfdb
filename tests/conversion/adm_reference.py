# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
ADM's denoiser and classifier (Dhariwal & Nichol, 2021, Sec. 3 and App. I) as plain functions of a state dict with
guided-diffusion's names: an independent statement of what converted networks have to compute.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class ADM:
    """
    An architecture, with the network's flags as guided-diffusion spells them (a classifier's without prefix).
    `num_classes` are those that a denoiser is conditioned on, or those that a classifier tells apart.
    """

    image_size: int = 16
    in_channels: int = 3
    num_channels: int = 32
    num_res_blocks: int = 1
    channel_mult: tuple = (1, 2)
    attention_resolutions: tuple = (8,)
    num_heads: int = 4
    num_head_channels: int = 16
    use_scale_shift_norm: bool = True
    resblock_updown: bool = True
    use_new_attention_order: bool = False
    learn_sigma: bool = True
    num_classes: int | None = None
    pool: str | None = None  # of a classifier

    def blocks(self):
        """Lists input, middle and output blocks, each a list of layers `(kind, channels in, channels out)`."""
        attends = {self.image_size // resolution for resolution in self.attention_resolutions}
        widths = [int(mult * self.num_channels) for mult in self.channel_mult]
        resample = "res" if self.resblock_updown else "conv"

        inputs = [[("conv", self.in_channels, widths[0])]]
        channels, skips = widths[0], [widths[0]]
        for level, width in enumerate(widths):
            for _ in range(self.num_res_blocks):
                inputs.append([("res", channels, width)])
                channels = width
                if 2**level in attends:
                    inputs[-1].append(("attention", width, width))
                skips.append(width)
            if level < len(widths) - 1:
                inputs.append([(f"{resample}_down", width, width)])
                skips.append(width)

        middle = [("res", channels, channels), ("attention", channels, channels), ("res", channels, channels)]

        outputs = []
        for level, width in reversed(list(enumerate(widths))):
            for i in range(self.num_res_blocks + 1):
                outputs.append([("res", channels + skips.pop(), width)])
                channels = width
                if 2**level in attends:
                    outputs[-1].append(("attention", width, width))
                if level > 0 and i == self.num_res_blocks:
                    outputs[-1].append((f"{resample}_up", width, width))
        return inputs, middle, outputs

    def heads(self, channels):
        return self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels


def random_weights(adm: ADM, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws a state dict in which no layer is the identity or zero, as some are after initialisation."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}

    def add(name, *shape):
        """A linear map or convolution."""
        scale = math.prod(shape[1:]) ** -0.5
        weights[f"{name}.weight"] = scale * torch.randn(shape, generator=generator)
        weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)

    def add_norm(name, channels):
        weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels, generator=generator)
        weights[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=generator)

    def add_layer(name, kind, channels, width):
        if kind == "conv":
            add(name, width, channels, 3, 3)
        elif kind == "conv_down":
            add(f"{name}.op", width, channels, 3, 3)
        elif kind == "conv_up":
            add(f"{name}.conv", width, channels, 3, 3)
        elif kind == "attention":
            add_norm(f"{name}.norm", channels)
            add(f"{name}.qkv", 3 * channels, channels, 1)
            add(f"{name}.proj_out", channels, channels, 1)
        else:
            add_norm(f"{name}.in_layers.0", channels)
            add(f"{name}.in_layers.2", width, channels, 3, 3)
            add(f"{name}.emb_layers.1", (2 if adm.use_scale_shift_norm else 1) * width, 4 * adm.num_channels)
            add_norm(f"{name}.out_layers.0", width)
            add(f"{name}.out_layers.3", width, width, 3, 3)
            if channels != width:
                add(f"{name}.skip_connection", width, channels, 1, 1)

    inputs, middle, outputs = adm.blocks()
    add("time_embed.0", 4 * adm.num_channels, adm.num_channels)
    add("time_embed.2", 4 * adm.num_channels, 4 * adm.num_channels)
    for block, layers in enumerate(inputs):
        for i, layer in enumerate(layers):
            add_layer(f"input_blocks.{block}.{i}", *layer)
    for i, layer in enumerate(middle):
        add_layer(f"middle_block.{i}", *layer)

    channels = middle[-1][2]
    if adm.pool is None:
        if adm.num_classes is not None:
            weights["label_emb.weight"] = torch.randn(adm.num_classes, 4 * adm.num_channels, generator=generator)
        for block, layers in enumerate(outputs):
            for i, layer in enumerate(layers):
                add_layer(f"output_blocks.{block}.{i}", *layer)
        width = outputs[-1][-1][2]
        add_norm("out.0", width)
        add("out.2", (2 if adm.learn_sigma else 1) * adm.in_channels, width, 3, 3)
    elif adm.pool == "adaptive":
        add_norm("out.0", channels)
        add("out.3", adm.num_classes, channels, 1, 1)
    elif adm.pool == "attention":
        size = adm.image_size // 2 ** (len(adm.channel_mult) - 1)
        add_norm("out.0", channels)
        weights["out.2.positional_embedding"] = torch.randn(channels, size**2 + 1, generator=generator)
        add("out.2.qkv_proj", 3 * channels, channels, 1)
        add("out.2.c_proj", adm.num_classes, channels, 1)
    else:
        add("out.0", 2048, sum(layers[-1][2] for layers in inputs) + channels)
        if adm.pool == "spatial_v2":
            add_norm("out.1", 2048)
        add({"spatial": "out.2", "spatial_v2": "out.3"}[adm.pool], adm.num_classes, 2048)
    return weights


def run(adm: ADM, weights: dict[str, torch.Tensor], x, timesteps, class_labels=None) -> torch.Tensor:
    """Runs the denoiser, or the classifier, on images `x` at whole-numbered `timesteps`."""

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def conv(name, x, stride=1):
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def pointwise(name, x):
        """A convolution of kernel size 1 over `(batch, channels, positions)`."""
        return torch.einsum("oi,bip->bop", weights[f"{name}.weight"][:, :, 0], x) + weights[f"{name}.bias"][:, None]

    def norm(name, x):
        return F.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-5)

    def attend(query, key, value):
        """Of shape `(channels of one head, positions)` each."""
        return value @ (query.T @ key / math.sqrt(len(query))).softmax(dim=1).T

    def multi_head(qkv, num_heads, new_order):
        images = []
        for image in qkv:
            heads = []
            for head in range(num_heads):
                if new_order:  # all queries, all keys, all values
                    query, key, value = (part.chunk(num_heads)[head] for part in image.chunk(3))
                else:  # query, key and value of each head side by side
                    query, key, value = image.chunk(num_heads)[head].chunk(3)
                heads.append(attend(query, key, value))
            images.append(torch.cat(heads))
        return torch.stack(images)

    def attention(name, x):
        flat = x.flatten(2)
        qkv = pointwise(f"{name}.qkv", norm(f"{name}.norm", flat))
        h = multi_head(qkv, adm.heads(x.shape[1]), adm.use_new_attention_order)
        return (flat + pointwise(f"{name}.proj_out", h)).reshape(x.shape)

    def residual(name, x, resample=lambda x: x):
        h = resample(F.silu(norm(f"{name}.in_layers.0", x)))
        x = resample(x)
        h = conv(f"{name}.in_layers.2", h)
        time = linear(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        if adm.use_scale_shift_norm:
            scale, shift = time.chunk(2, dim=1)
            h = norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
        else:
            h = norm(f"{name}.out_layers.0", h + time)
        h = conv(f"{name}.out_layers.3", F.silu(h))
        if f"{name}.skip_connection.weight" in weights:
            x = conv(f"{name}.skip_connection", x)
        return x + h

    def double(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def halve(x):
        x = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4

    def apply(name, layers, h):
        for i, (kind, *_) in enumerate(layers):
            layer = f"{name}.{i}"
            if kind == "conv":
                h = conv(layer, h)
            elif kind == "conv_down":
                h = conv(f"{layer}.op", h, stride=2)
            elif kind == "conv_up":
                h = conv(f"{layer}.conv", double(h))
            elif kind == "attention":
                h = attention(layer, h)
            else:
                h = residual(layer, h, *{"res": [], "res_down": [halve], "res_up": [double]}[kind])
        return h

    half = adm.num_channels // 2
    angles = timesteps[:, None] * 10000 ** (-torch.arange(half) / half)
    emb = linear("time_embed.2", F.silu(linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=1))))
    if adm.pool is None and adm.num_classes is not None:
        emb = emb + weights["label_emb.weight"][class_labels]

    inputs, middle, outputs = adm.blocks()
    h, skips = x, []
    for block, layers in enumerate(inputs):
        h = apply(f"input_blocks.{block}", layers, h)
        skips.append(h)
    h = apply("middle_block", middle, h)

    if adm.pool is None:
        for block, layers in enumerate(outputs):
            h = apply(f"output_blocks.{block}", layers, torch.cat([h, skips.pop()], dim=1))
        return conv("out.2", F.silu(norm("out.0", h)))
    if adm.pool == "adaptive":
        return conv("out.3", F.silu(norm("out.0", h)).mean(dim=(2, 3), keepdim=True)).flatten(1)
    if adm.pool == "attention":
        h = F.silu(norm("out.0", h)).flatten(2)
        tokens = torch.cat([h.mean(dim=2, keepdim=True), h], dim=2) + weights["out.2.positional_embedding"]
        pooled = multi_head(pointwise("out.2.qkv_proj", tokens), adm.heads(h.shape[1]), new_order=True)
        return pointwise("out.2.c_proj", pooled)[:, :, 0]
    features = linear("out.0", torch.cat([h.mean(dim=(2, 3)) for h in [*skips, h]], dim=1))
    if adm.pool == "spatial":
        return linear("out.2", features.relu())
    return linear("out.3", F.silu(norm("out.1", features)))
