# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import contextlib
import threading
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block
from diffusers.utils import BaseOutput
from torch import nn


# Guards what several threads would freeze and restore at once.
_FREEZING = threading.Lock()


@dataclass
class AntiCausalClassifier2DOutput(BaseOutput):
    """
    The output of [`AntiCausalClassifier2DModel`].

    Args:
        logits (`torch.Tensor` of shape `(batch, num_classes)`):
            Unnormalised log-probabilities of the cause, `log p(y | x_t)` up to a constant per row.
    """

    logits: torch.Tensor


class AttentionPool2D(nn.Module):
    """
    Pools a feature map into one vector: the mean of all positions attends to every position and to itself, as in the
    classifier of [Dhariwal & Nichol (2021)](https://huggingface.co/papers/2105.05233), Sec. 4.

    Args:
        spatial_size (`int`): Height and width of the feature map.
        channels (`int`): Channels of the feature map.
        head_dim (`int`): Channels per attention head.
        out_features (`int`): Length of the vector.
    """

    def __init__(self, spatial_size: int, channels: int, head_dim: int, out_features: int):
        super().__init__()
        self.num_heads = channels // head_dim
        self.position_embedding = nn.Parameter(torch.randn(1 + spatial_size**2, channels) / channels**0.5)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, out_features)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        tokens = hidden_states.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.position_embedding
        query, key, value = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x in (self.to_q(tokens[:, :1]), self.to_k(tokens), self.to_v(tokens))
        )
        pooled = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(pooled.transpose(1, 2).flatten(1))


class AntiCausalClassifier2DModel(ModelMixin, ConfigMixin):
    r"""
    The anti-causal predictor `p(y | x_t)`: a classifier that reads the cause `y` off the noisy effect `x_t`. The
    gradient of its log-probability steers the reverse diffusion under an intervention on `y` (paper, Sec. 3.3 and Eq.
    7).

    It is the encoder of a [`UNet2DModel`], conditioned on the diffusion time by adaptive group normalisation, then a
    pooling layer and a linear head (paper, App. E). Names and defaults are those of [`UNet2DModel`], so that the
    weights of a denoiser's encoder fit: see [`~AntiCausalClassifier2DModel.from_unet`].

    Parameters:
        sample_size (`int`): Height and width of the images.
        in_channels (`int`, *optional*, defaults to 3): Number of channels of the images.
        num_classes (`int`, *optional*, defaults to 1000): Number of values the cause can take.
        id2label (`dict[int, str]`, *optional*):
            Names of the classes. Keys become strings in the saved configuration, as JSON has no others.
        down_block_types (`tuple[str]`, *optional*):
            Types of the encoder's blocks, from the finest level to the coarsest.
        block_out_channels (`tuple[int]`, *optional*): Output channels of each block.
        layers_per_block (`int`, *optional*, defaults to 1): Number of residual layers in each block.
        downsample_type (`str`, *optional*, defaults to `"conv"`): `"conv"` or `"resnet"`.
        add_attention (`bool`, *optional*, defaults to `True`): Whether the middle block attends over positions.
        attention_head_dim (`int`, *optional*, defaults to 8): Channels per attention head, pooling included.
        norm_num_groups (`int`, *optional*, defaults to 32): Number of groups of every group normalisation.
        attn_norm_num_groups (`int`, *optional*): Number of groups before the middle block's attention.
        norm_eps (`float`, *optional*, defaults to 1e-5): Added to the variance in the normalisations.
        resnet_time_scale_shift (`str`, *optional*, defaults to `"scale_shift"`):
            How time enters the residual layers: `"scale_shift"`, adaptive group normalisation, or `"default"`, a sum.
        time_proj_dim (`int`, *optional*):
            Length of the sinusoidal embedding of time, a quarter of the learned one's. Default: the first entry of
            `block_out_channels`.
        freq_shift (`int`, *optional*, defaults to 0): Shift of the frequencies of the time embedding.
        flip_sin_to_cos (`bool`, *optional*, defaults to `True`): Order of sine and cosine in the time embedding.
        dropout (`float`, *optional*, defaults to 0.0): Dropout in the residual layers.
        pooling (`str`, *optional*, defaults to `"average"`):
            What the head reads. `"average"`: the mean of the last feature map over positions; `"attention"`: its
            [`AttentionPool2D`]; `"spatial"`: the means of every layer's feature map, through two linear layers with a
            ReLU between them; `"spatial_v2"`: the same with a group normalisation and a SiLU.
        temperatures (`list[tuple[float, float]]`, *optional*):
            Pairs of a diffusion time and the temperature there, by increasing time, as `diffscm calibrate` fits them.
            The logits are divided by the temperature, which is interpolated linearly, and constant outside of the
            times ([Guo et al., 2017](https://huggingface.co/papers/1706.04599)). Default: logits as the network gives
            them.

    Raises:
        ValueError: if `pooling` is unknown, if `id2label` does not name `num_classes` classes, if the lengths of
            `down_block_types` and `block_out_channels` differ, or if `temperatures` are not such pairs.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["norm"]

    # float16 backward passes lose what is below 6e-8; a power of two moves the gradient up without rounding it.
    _GRADIENT_SCALE = 2.0**8
    _num_frozen = 0

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        in_channels: int = 3,
        num_classes: int = 1000,
        id2label: dict[int, str] | None = None,
        down_block_types: tuple[str, ...] = ("DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"),
        block_out_channels: tuple[int, ...] = (32, 64, 128, 128),
        layers_per_block: int = 1,
        downsample_type: str = "conv",
        add_attention: bool = True,
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "scale_shift",
        time_proj_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        dropout: float = 0.0,
        pooling: str = "average",
        temperatures: list[tuple[float, float]] | None = None,
    ):
        super().__init__()
        for name, value in (
            ("sample_size", sample_size),
            ("in_channels", in_channels),
            ("num_classes", num_classes),
            ("layers_per_block", layers_per_block),
            ("norm_num_groups", norm_num_groups),
        ):
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
        for name, value in (
            ("attention_head_dim", attention_head_dim),
            ("attn_norm_num_groups", attn_norm_num_groups),
            ("time_proj_dim", time_proj_dim),
        ):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
        if (
            not isinstance(block_out_channels, (list, tuple))
            or not block_out_channels
            or any(type(width) is not int or width < 1 for width in block_out_channels)
        ):
            raise ValueError(f"`block_out_channels` expects whole numbers of at least 1, got {block_out_channels!r}.")
        if any(width % norm_num_groups for width in block_out_channels):
            raise ValueError(
                f"`block_out_channels` expects multiples of `norm_num_groups`, {norm_num_groups}, got "
                f"{block_out_channels!r}."
            )
        types = ["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "SkipDownBlock2D", "AttnSkipDownBlock2D"]
        if not isinstance(down_block_types, (list, tuple)) or not set(down_block_types) <= set(types):
            raise ValueError(f"`down_block_types` expects some of {types}, got {down_block_types!r}.")
        if len(down_block_types) != len(block_out_channels):
            raise ValueError(
                "`block_out_channels` expects one entry for each of `down_block_types`, "
                f"{len(down_block_types)}, got {len(block_out_channels)}."
            )
        for name, value, choices in (
            ("downsample_type", downsample_type, ["conv", "resnet"]),
            ("resnet_time_scale_shift", resnet_time_scale_shift, ["scale_shift", "default"]),
            ("pooling", pooling, ["average", "attention", "spatial", "spatial_v2"]),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` expects one of {choices}, got {value!r}.")
        if type(add_attention) is not bool:
            raise TypeError(f"`add_attention` expects `True` or `False`, got {add_attention!r}.")
        if not isinstance(norm_eps, (int, float)) or not 0 < norm_eps < float("inf"):
            raise ValueError(f"`norm_eps` expects a finite number above 0, got {norm_eps!r}.")
        if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ValueError(f"`dropout` expects a number in [0, 1), got {dropout!r}.")
        names = [str(index) for index in range(num_classes)]  # JSON makes strings of the keys
        if id2label is not None and (not isinstance(id2label, dict) or sorted(map(str, id2label)) != sorted(names)):
            raise ValueError(
                f"`id2label` expects a name for each class from 0 to {num_classes - 1}, got {id2label!r}."
            )
        if temperatures is not None:
            self._check_temperatures(temperatures)

        time_proj_dim = time_proj_dim or block_out_channels[0]
        time_embed_dim = time_proj_dim * 4
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], kernel_size=3, padding=1)
        self.time_proj = Timesteps(time_proj_dim, flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(time_proj_dim, time_embed_dim)

        self.down_blocks = nn.ModuleList()
        output_channel = block_out_channels[0]
        for i, down_block_type in enumerate(down_block_types):
            input_channel = output_channel
            output_channel = block_out_channels[i]
            self.down_blocks.append(
                get_down_block(
                    down_block_type,
                    num_layers=layers_per_block,
                    in_channels=input_channel,
                    out_channels=output_channel,
                    temb_channels=time_embed_dim,
                    add_downsample=i < len(block_out_channels) - 1,
                    resnet_eps=norm_eps,
                    resnet_act_fn="silu",
                    resnet_groups=norm_num_groups,
                    attention_head_dim=attention_head_dim if attention_head_dim is not None else output_channel,
                    downsample_padding=1,
                    resnet_time_scale_shift=resnet_time_scale_shift,
                    downsample_type=downsample_type,
                    dropout=dropout,
                )
            )
        self.mid_block = UNetMidBlock2D(
            in_channels=output_channel,
            temb_channels=time_embed_dim,
            dropout=dropout,
            resnet_eps=norm_eps,
            resnet_act_fn="silu",
            resnet_time_scale_shift=resnet_time_scale_shift,
            attention_head_dim=attention_head_dim if attention_head_dim is not None else output_channel,
            resnet_groups=norm_num_groups,
            attn_groups=attn_norm_num_groups,
            add_attention=add_attention,
        )
        if pooling in ("average", "attention"):
            self.conv_norm_out = nn.GroupNorm(norm_num_groups, output_channel, eps=norm_eps)
            self.conv_act = nn.SiLU()
        if pooling == "average":
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(output_channel, num_classes))
        elif pooling == "attention":
            spatial_size = sample_size
            for down_block_type in down_block_types[:-1]:
                # A strided convolution rounds an odd size up, every other way of downsampling rounds it down.
                by_conv = down_block_type == "DownBlock2D" or (
                    down_block_type == "AttnDownBlock2D" and downsample_type == "conv"
                )
                spatial_size = (spatial_size + 1) // 2 if by_conv else spatial_size // 2
            head_dim = attention_head_dim if attention_head_dim is not None else output_channel
            self.pool = AttentionPool2D(spatial_size, output_channel, head_dim, num_classes)
        else:
            # The input convolution, each level's layers, the downsampling between two levels, the middle block.
            num_features = block_out_channels[0] + layers_per_block * sum(block_out_channels)
            num_features += sum(block_out_channels[:-1]) + output_channel
            hidden = (
                [nn.ReLU()] if pooling == "spatial" else [nn.GroupNorm(norm_num_groups, 2048, norm_eps), nn.SiLU()]
            )
            self.pool = nn.Sequential(nn.Linear(num_features, 2048), *hidden, nn.Linear(2048, num_classes))

    @staticmethod
    def _check_temperatures(temperatures: list[tuple[float, float]]):
        try:
            times, values = torch.tensor(temperatures, dtype=torch.float64).unbind(dim=1)
        except (IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"`temperatures` expects pairs of a diffusion time and a temperature, got {temperatures!r}."
            ) from error
        # Written so that NaN is refused as well.
        is_increasing = len(times) >= 2 and times[0] >= 0 and (times.diff() > 0).all() and times.isfinite().all()
        if not (is_increasing and (values > 0).all() and values.isfinite().all()):
            raise ValueError(
                "`temperatures` expects at least two diffusion times that increase, from 0 on, each with a finite "
                f"temperature above 0, got {temperatures!r}."
            )

    def _temperature(self, timestep: torch.Tensor) -> torch.Tensor:
        """The temperature at each of some diffusion times, float32."""
        # From the configuration, as buffers would be rounded with the weights; so small a copy makes no one wait.
        table = torch.tensor(self.config.temperatures, dtype=torch.float32).to(timestep.device, non_blocking=True)
        times, values = table.unbind(dim=1)
        timestep = timestep.float().contiguous()
        right = torch.searchsorted(times.contiguous(), timestep).clamp(1, len(times) - 1)
        weight = (timestep - times[right - 1]) / (times[right] - times[right - 1])
        return torch.lerp(values[right - 1], values[right], weight.clamp(0, 1))

    @property
    def id2label(self) -> dict[int, str]:
        """`dict[int, str]`: the name of each class; its number where the configuration names none."""
        if self.config.id2label is None:
            return {i: str(i) for i in range(self.config.num_classes)}
        return {int(i): label for i, label in sorted(self.config.id2label.items(), key=lambda item: int(item[0]))}

    @classmethod
    def from_unet(
        cls, unet: UNet2DModel, num_classes: int, id2label: dict[int, str] | None = None, pooling: str = "average"
    ) -> "AntiCausalClassifier2DModel":
        """
        Makes a classifier whose encoder is a copy of a denoiser's, weights included (in float32); its head is new.

        Args:
            unet ([`UNet2DModel`]): The denoiser. It must have sinusoidal time embeddings and a middle block.
            num_classes (`int`): Number of values the cause can take.
            id2label (`dict[int, str]`, *optional*): Names of the classes.
            pooling (`str`, *optional*, defaults to `"average"`): See [`AntiCausalClassifier2DModel`].

        Raises:
            ValueError: if the denoiser's encoder has parts that the classifier has not.
        """
        if not isinstance(unet, UNet2DModel):
            raise TypeError(f"`unet` expects a UNet2DModel, got {type(unet).__name__}.")
        config = unet.config
        for name, taken in (
            ("time_embedding_type", "positional"),
            ("time_embedding_dim", None),
            ("mid_block_type", "UNetMidBlock2D"),
            ("center_input_sample", False),
            ("mid_block_scale_factor", 1),
            ("downsample_padding", 1),
            ("act_fn", "silu"),
            ("class_embed_type", None),
            ("num_class_embeds", None),
        ):
            if config[name] != taken:
                raise ValueError(f"`unet` expects `{name}` {taken!r}, got {config[name]!r}.")
        shared = (
            "sample_size",
            "in_channels",
            "down_block_types",
            "block_out_channels",
            "layers_per_block",
            "downsample_type",
            "add_attention",
            "attention_head_dim",
            "norm_num_groups",
            "attn_norm_num_groups",
            "norm_eps",
            "resnet_time_scale_shift",
            "freq_shift",
            "flip_sin_to_cos",
            "dropout",
        )
        model = cls(
            num_classes=num_classes, id2label=id2label, pooling=pooling, **{name: config[name] for name in shared}
        )
        for name in ("conv_in", "time_embedding", "down_blocks", "mid_block"):
            getattr(model, name).load_state_dict(getattr(unet, name).state_dict())
        return model.to(unet.device)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, return_dict: bool = True
    ) -> AntiCausalClassifier2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor`): Noisy images `x_t`, shape `(batch, in_channels, sample_size, sample_size)`.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output object or a tuple.

        Returns:
            [`AntiCausalClassifier2DOutput`] or `tuple`: the logits.
        """
        timestep = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        logits = self._compute_logits(sample, timestep)
        if self.config.temperatures is not None:
            logits = (logits / self._temperature(timestep)[:, None]).to(logits.dtype)

        if not return_dict:
            return (logits,)
        return AntiCausalClassifier2DOutput(logits=logits)

    def _compute_logits(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The logits as the network gives them, before any temperature."""
        emb = self.time_embedding(self.time_proj(timestep).to(self.dtype))

        skip_sample = sample
        sample = self.conv_in(sample)
        feature_means = [sample.mean(dim=(2, 3))]
        for down_block in self.down_blocks:
            if hasattr(down_block, "skip_conv"):
                sample, output_states, skip_sample = down_block(
                    hidden_states=sample, temb=emb, skip_sample=skip_sample
                )
            else:
                sample, output_states = down_block(hidden_states=sample, temb=emb)
            feature_means.extend(state.mean(dim=(2, 3)) for state in output_states)
        sample = self.mid_block(sample, emb)
        feature_means.append(sample.mean(dim=(2, 3)))

        if self.config.pooling in ("average", "attention"):
            return self.pool(self.conv_act(self.conv_norm_out(sample)))
        return self.pool(torch.cat(feature_means, dim=1))

    def class_indices(
        self, classes: int | str | list[int | str] | np.ndarray | torch.Tensor, argument: str = "classes"
    ) -> list[int]:
        """
        Checks indices and names of classes, one or several, and returns the index of each.

        Args:
            classes (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`):
                Indices from 0 to `num_classes - 1`, or names from `id2label`.
            argument (`str`, *optional*, defaults to `"classes"`): What the caller calls them, for messages.

        Raises:
            ValueError: if there is none, or if a class is unknown or its name belongs to several.
            TypeError: if a class is neither an integer nor a name.
        """
        if isinstance(classes, (torch.Tensor, np.ndarray)):
            values = classes.reshape(-1).tolist()
        else:
            values = list(classes) if isinstance(classes, (list, tuple)) else [classes]
        if len(values) == 0:
            raise ValueError(f"`{argument}` expects at least one class, got none.")
        num_classes, id2label = self.config.num_classes, self.id2label
        indices = []
        for value in values:
            if isinstance(value, str):
                matches = [index for index, label in id2label.items() if label == value]
                # ImageNet's labels list synonyms: "tabby, tabby cat".
                matches = matches or [index for index, label in id2label.items() if value in label.split(", ")]
                if len(matches) == 0:
                    known = ", ".join(map(repr, list(id2label.values())[:10])) + (", ..." if num_classes > 10 else "")
                    raise ValueError(f"`{argument}` expects the name of a class ({known}), got {value!r}.")
                if len(matches) > 1:
                    raise ValueError(f"`{argument}` {value!r} names the classes {matches}: use the index of one.")
                indices.append(matches[0])
            elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
                if not 0 <= value < num_classes:
                    raise ValueError(f"`{argument}` expects class indices from 0 to {num_classes - 1}, got {value}.")
                indices.append(int(value))
            else:
                raise TypeError(
                    f"`{argument}` expects a class index, a class name, or a list or tensor of them, got {value!r} of "
                    f"type {type(value).__name__}."
                )
        return indices

    def log_prob(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, class_labels: torch.Tensor
    ) -> torch.Tensor:
        r"""
        The log-probability of given classes, `log p(y | x_t)`.

        Args:
            sample (`torch.Tensor`):
                Noisy images `x_t` of any floating type, shape `(batch, in_channels, sample_size, sample_size)`.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            class_labels (`torch.Tensor` of shape `(batch,)`): The class `y` of each image.

        Returns:
            `torch.Tensor` of shape `(batch,)`: natural logarithms, float32 whatever the weights' type.

        Raises:
            ValueError: if the images have another shape, or if there is not one class from 0 to `num_classes - 1` for
                each.
            TypeError: if `class_labels` is not a tensor of integers.
        """
        self._check_inputs(sample, class_labels)
        # On a GPU a wrong index would end the process' use of it.
        if not ((class_labels >= 0) & (class_labels < self.config.num_classes)).all():
            raise ValueError(
                f"`class_labels` expects classes from 0 to {self.config.num_classes - 1}, got {class_labels.tolist()}."
            )
        return self._log_prob(sample, timestep, class_labels)

    def _check_inputs(self, sample: torch.Tensor, class_labels: torch.Tensor):
        """Checks shapes and types only: to look at values would make the CPU wait for a GPU."""
        if not torch.is_tensor(sample):
            raise TypeError(f"`sample` expects a tensor, got {type(sample).__name__}.")
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` expects shape (batch, {self.config.in_channels}, height, width), got {tuple(sample.shape)}."
            )
        if (
            not isinstance(class_labels, torch.Tensor)
            or class_labels.is_floating_point()
            or class_labels.dtype == torch.bool
        ):
            got = class_labels.dtype if isinstance(class_labels, torch.Tensor) else type(class_labels).__name__
            raise TypeError(f"`class_labels` expects a tensor of integers, got {got}.")
        if class_labels.shape != (len(sample),):
            raise ValueError(
                f"`class_labels` expects one class for each of the {len(sample)} images, got shape "
                f"{tuple(class_labels.shape)}."
            )

    def _log_prob(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, class_labels: torch.Tensor
    ) -> torch.Tensor:
        logits = self(sample.to(self.dtype), timestep).logits.float()
        return F.log_softmax(logits, dim=-1).gather(1, class_labels.long()[:, None]).squeeze(1)

    @contextlib.contextmanager
    def _frozen(self):
        """
        Keeps the parameters out of autograd: a gradient with respect to the input alone then stores far less. Of
        several threads the first freezes them, and the last restores them.
        """
        with _FREEZING:
            if self._num_frozen == 0:
                self._trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
                self.requires_grad_(False)
            self._num_frozen += 1
        try:
            yield
        finally:
            with _FREEZING:
                self._num_frozen -= 1
                if self._num_frozen == 0:
                    for parameter in self._trainable:
                        parameter.requires_grad_(True)

    def log_prob_gradient(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, class_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        The gradient that an intervention adds to the score, `grad_{x_t} log p(y | x_t)` (paper, Eq. 7), and the
        log-probability itself. Works under `torch.no_grad` and `torch.inference_mode` and leaves the parameters'
        gradients alone.

        Args:
            sample (`torch.Tensor`): Noisy images `x_t`, shape `(batch, in_channels, sample_size, sample_size)`.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            class_labels (`torch.Tensor` of shape `(batch,)`):
                The class `y` of each image, from 0 to `num_classes - 1`. Its values are not checked, as that would
                make the CPU wait for a GPU at each step of a diffusion.

        Returns:
            `tuple`: the gradient, like `sample` but in float32 whatever the weights' type, and `log p(y | x_t)`,
            float32 of shape `(batch,)`.

        Raises:
            ValueError: if the images have another shape, or if there is not one class for each.
            TypeError: if `class_labels` is not a tensor of integers.
        """
        self._check_inputs(sample, class_labels)
        with torch.inference_mode(False), torch.enable_grad():
            if sample.is_inference():
                # Tensors made under inference mode cannot enter autograd; their copies can.
                sample, class_labels = sample.clone(), class_labels.clone()
                timestep = timestep.clone() if torch.is_tensor(timestep) else timestep
            sample = sample.detach().float().requires_grad_()
            with self._frozen():
                log_prob = self._log_prob(sample, timestep, class_labels)
                (gradient,) = torch.autograd.grad(log_prob.sum() * self._GRADIENT_SCALE, sample)
        return gradient / self._GRADIENT_SCALE, log_prob.detach()
