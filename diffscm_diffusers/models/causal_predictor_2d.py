# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import contextlib
import threading

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal


# Guards what several threads would freeze and restore at once.
_FREEZING = threading.Lock()


class CausalPredictor2DModel(ModelMixin, ConfigMixin):
    r"""
    The joint anti-causal predictor `p(pa_1, ..., pa_n | x_t)`: reads all causes off the noisy effect. The gradient of
    its log-probability turns the score of the effect into that of the mechanism,

    `grad log p(x_t | pa) = grad log p(x_t) + sum_k grad log p(pa_k | x_t, pa_1, ..., pa_{k-1})`,

    which needs the chain rule: where one cause goes with another, a predictor that is not told the other leans on its
    traces in the image, and its gradient drags them along. This is the problem that the paper leaves open (Sec. 6).

    It is the encoder of a [`UNet2DModel`] with the mean over positions of its last feature map, as in
    [`AntiCausalClassifier2DModel`], and a head for each cause, which is told the causes before it: a mixture of
    Gaussians for a number ([Bishop, 1994](https://publications.aston.ac.uk/id/eprint/373/)), else a softmax. Where
    causes go together, an intervention asks for values that are rare beside the others, and the gradient of a single
    Gaussian, which has to hold the common and the rare ones, points elsewhere.

    Parameters:
        condition_widths (`dict[str, int]` or `list[tuple[str, int]]`):
            The image's parents, in the order of the condition, and how many of its entries each has: 1 for a number,
            else the number of its one-hot entries. The configuration keeps them as a list of pairs, as the keys of its
            JSON are sorted.
        sample_size (`int`): Height and width of the images.
        in_channels (`int`, *optional*, defaults to 3): Number of channels of the images.
        chained (`bool`, *optional*, defaults to `True`):
            Whether each head is told the causes before it. Without, it is the naive predictor, `sum_k log p(pa_k |
            x_t)`, which is biased where causes go together.
        down_block_types (`tuple[str]`, *optional*):
            Types of the encoder's blocks, from the finest level to the coarsest.
        block_out_channels (`tuple[int]`, *optional*): Output channels of each block.
        layers_per_block (`int`, *optional*, defaults to 1): Number of residual layers in each block.
        downsample_type (`str`, *optional*, defaults to `"conv"`): `"conv"` or `"resnet"`.
        add_attention (`bool`, *optional*, defaults to `True`): Whether the middle block attends over positions.
        attention_head_dim (`int`, *optional*, defaults to 8): Channels per attention head.
        norm_num_groups (`int`, *optional*, defaults to 32): Number of groups of every group normalisation.
        attn_norm_num_groups (`int`, *optional*): Number of groups before the middle block's attention.
        norm_eps (`float`, *optional*, defaults to 1e-5): Added to the variance in the normalisations.
        resnet_time_scale_shift (`str`, *optional*, defaults to `"scale_shift"`):
            How time enters the residual layers: `"scale_shift"`, adaptive group normalisation, or `"default"`, a sum.
        freq_shift (`int`, *optional*, defaults to 0): Shift of the frequencies of the time embedding.
        flip_sin_to_cos (`bool`, *optional*, defaults to `True`): Order of sine and cosine in the time embedding.
        dropout (`float`, *optional*, defaults to 0.0): Dropout in the residual layers.
        head_features (`int`, *optional*, defaults to 128): Width of the heads' hidden layer.
        num_components (`int`, *optional*, defaults to 8): Number of Gaussians in the mixture of a number.

    Raises:
        ValueError: if there is no parent, if a width is not a whole number of at least 1, or if the lengths of
            `down_block_types` and `block_out_channels` differ.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["norm"]

    # float16 backward passes lose what is below 6e-8; a power of two moves the gradient up without rounding it.
    _GRADIENT_SCALE = 2.0**8
    _num_frozen = 0

    # What is added to the standard deviation of a number, half a percent of its range.
    min_std = 0.01

    @register_to_config
    def __init__(
        self,
        condition_widths: dict[str, int] | list[tuple[str, int]],
        sample_size: int,
        in_channels: int = 3,
        chained: bool = True,
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
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        dropout: float = 0.0,
        head_features: int = 128,
        num_components: int = 8,
    ):
        super().__init__()
        if not isinstance(condition_widths, (dict, list, tuple)):
            raise TypeError(f"`condition_widths` expects a width for each parent, got {condition_widths!r}.")
        condition_widths = dict(condition_widths)
        for name, value in (
            ("sample_size", sample_size),
            ("in_channels", in_channels),
            ("layers_per_block", layers_per_block),
            ("norm_num_groups", norm_num_groups),
            ("head_features", head_features),
            ("num_components", num_components),
        ):
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
        for name, value in (
            ("attention_head_dim", attention_head_dim),
            ("attn_norm_num_groups", attn_norm_num_groups),
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
        ):
            if value not in choices:
                raise ValueError(f"`{name}` expects one of {choices}, got {value!r}.")
        if type(add_attention) is not bool:
            raise TypeError(f"`add_attention` expects `True` or `False`, got {add_attention!r}.")
        if not isinstance(norm_eps, (int, float)) or not 0 < norm_eps < float("inf"):
            raise ValueError(f"`norm_eps` expects a finite number above 0, got {norm_eps!r}.")
        if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ValueError(f"`dropout` expects a number in [0, 1), got {dropout!r}.")
        if type(chained) is not bool:
            raise TypeError(f"`chained` expects `True` or `False`, got {chained!r}.")
        if not condition_widths or any(type(width) is not int or width < 1 for width in condition_widths.values()):
            raise ValueError(
                "`condition_widths` expects at least one parent, each with a width of at least 1, got "
                f"{condition_widths}."
            )
        self.register_to_config(condition_widths=[[name, width] for name, width in condition_widths.items()])

        time_embed_dim = block_out_channels[0] * 4
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], kernel_size=3, padding=1)
        self.time_proj = Timesteps(block_out_channels[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(block_out_channels[0], time_embed_dim)

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
            resnet_time_scale_shift=resnet_time_scale_shift,
            attention_head_dim=attention_head_dim if attention_head_dim is not None else output_channel,
            resnet_groups=norm_num_groups,
            attn_groups=attn_norm_num_groups,
            add_attention=add_attention,
        )
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, output_channel, eps=norm_eps)
        self.conv_act = nn.SiLU()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

        self.heads = nn.ModuleList()
        num_told = 0
        for width in condition_widths.values():
            self.heads.append(
                nn.Sequential(
                    nn.Linear(output_channel + num_told, head_features),
                    nn.SiLU(),
                    # Weights, means and spreads of a number's mixture, or a logit for each value.
                    nn.Linear(head_features, 3 * num_components if width == 1 else width),
                )
            )
            num_told += width if chained else 0

    @property
    def condition_widths(self) -> dict[str, int]:
        """`dict[str, int]`: the image's parents, in the order of the condition, and the entries of each."""
        return dict(self.config.condition_widths)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, condition: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        What training maximises: log-probabilities, each with a weight. That of a number is its predicted variance,
        without a gradient ([Seitzer et al., 2022](https://huggingface.co/papers/2203.09168), with beta = 1). Without
        it, a number that is nearly certain has gradients so large, the error over the variance, that nothing else is
        learned. The maximum is the same.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Noisy images `x_t`.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`): The values of the parents.

        Returns:
            `tuple` of two `torch.Tensor` of shape `(batch, num_parents)`: the result of
            [`~CausalPredictor2DModel.log_prob`], and the weights.

        Raises:
            ValueError: if the images or `condition` have another shape.
        """
        self._check_sample(sample)
        widths = [width for _, width in self.config.condition_widths]
        self._check_condition(condition, len(sample))
        features, told, log_prob, weights = self._features(sample, timestep), [], [], []
        for head, value in zip(self.heads, condition.float().split(widths, dim=1), strict=True):
            parameters = self._evaluate(head, features, told)
            if value.shape[1] == 1:
                mixture = self._mixture(parameters)
                log_prob.append(mixture.log_prob(value[:, 0]))
                weights.append(mixture.variance.detach())
            else:
                log_prob.append((value * F.log_softmax(parameters, dim=1)).sum(dim=1))
                weights.append(torch.ones_like(log_prob[-1]))
            told.append(value)
        return torch.stack(log_prob, dim=1), torch.stack(weights, dim=1)

    def log_prob(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, condition: torch.Tensor
    ) -> torch.Tensor:
        r"""
        The log-probability of given causes: of each, given the noisy image and, if the model is chained, the causes
        before it. Then their sum is the joint log-probability. That of a number is a density over its condition's
        unit.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`):
                Noisy images `x_t` of any floating type.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`):
                The values of the parents, one after the other: numbers scaled to about [-1, 1], and one-hot values.

        Returns:
            `torch.Tensor` of shape `(batch, num_parents)`: natural logarithms, float32 whatever the weights' type.

        Raises:
            ValueError: if the images or `condition` have another shape.
        """
        return self(sample, timestep, condition)[0]

    def predict(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int = 0,
        condition: torch.Tensor | None = None,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        r"""
        Reads the causes off images, one after the other: the mean of a number, brought into [-1, 1], the range of all
        its values, or the most probable of other values.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Noisy images `x_t`.
            timestep (`torch.Tensor` or `float` or `int`, *optional*, defaults to 0): Diffusion times `t`.
            condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`, *optional*):
                The values of the parents that are known; those of the others do not matter.
            known (`torch.Tensor` of shape `(batch, num_parents)`, *optional*):
                `torch.bool`. Where it is `True`, the parent is not read but taken from `condition`, and a chained
                model tells it to the heads after it. Default: none is known.

        Returns:
            `torch.Tensor` of shape `(batch, sum of condition_widths)`: the condition, float32.

        Raises:
            ValueError: if the images, `condition` or `known` have another shape.
        """
        self._check_sample(sample)
        widths = [width for _, width in self.config.condition_widths]
        if known is None:
            condition = torch.zeros(len(sample), sum(widths), device=sample.device)
            known = torch.zeros(len(sample), len(widths), dtype=torch.bool, device=sample.device)
        self._check_condition(condition, len(sample))
        if known.shape != (len(sample), len(widths)):
            raise ValueError(f"`known` expects shape {(len(sample), len(widths))}, got {tuple(known.shape)}.")
        features, told = self._features(sample, timestep), []
        given = condition.float().split(widths, dim=1)
        for head, width, value, is_known in zip(self.heads, widths, given, known.unbind(dim=1), strict=True):
            parameters = self._evaluate(head, features, told)
            if width == 1:
                read = self._mixture(parameters).mean.clamp(-1, 1)[:, None]
            else:
                read = F.one_hot(parameters.argmax(dim=1), width).float()
            told.append(torch.where(is_known[:, None], value, read))
        return torch.cat(told, dim=1)

    def log_prob_gradient(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        condition: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        What turns the score of the effect into that of the mechanism, `sum_k grad_{x_t} log p(pa_k | x_t, pa_1, ...,
        pa_{k-1})`, and the log-probabilities themselves. Works under `torch.no_grad` and `torch.inference_mode` and
        leaves the parameters' gradients alone.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Noisy images `x_t`.
            timestep (`torch.Tensor` or `float` or `int`): Diffusion times `t`, one for all or one per image.
            condition (`torch.Tensor` of shape `(batch, sum of condition_widths)`): The values of the parents.
            weights (`torch.Tensor` of shape `(batch, num_parents)`, *optional*):
                What each parent's gradient is multiplied by. Default: 1.

        Returns:
            `tuple`: the gradient, like `sample` but in float32 whatever the weights' type, and the log-probabilities,
            float32 of shape `(batch, num_parents)`.

        Raises:
            ValueError: if the images or `condition` have another shape.
        """
        with torch.inference_mode(False), torch.enable_grad():
            if sample.is_inference():
                # Tensors made under inference mode cannot enter autograd; their copies can.
                sample, condition = sample.clone(), condition.clone()
                timestep = timestep.clone() if torch.is_tensor(timestep) else timestep
                weights = weights.clone() if weights is not None else None
            sample = sample.detach().float().requires_grad_()
            with self._frozen():
                log_prob = self.log_prob(sample, timestep, condition)
                weighted = log_prob if weights is None else weights * log_prob
                (gradient,) = torch.autograd.grad(weighted.sum() * self._GRADIENT_SCALE, sample)
        return gradient / self._GRADIENT_SCALE, log_prob.detach()

    def _features(self, sample: torch.Tensor, timestep: torch.Tensor | float | int) -> torch.Tensor:
        timestep = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        emb = self.time_embedding(self.time_proj(timestep).to(self.dtype))
        skip_sample = sample = sample.to(self.dtype)
        sample = self.conv_in(sample)
        for down_block in self.down_blocks:
            if hasattr(down_block, "skip_conv"):
                sample, _, skip_sample = down_block(hidden_states=sample, temb=emb, skip_sample=skip_sample)
            else:
                sample, _ = down_block(hidden_states=sample, temb=emb)
        return self.pool(self.conv_act(self.conv_norm_out(self.mid_block(sample, emb))))

    def _evaluate(self, head: nn.Module, features: torch.Tensor, told: list[torch.Tensor]) -> torch.Tensor:
        told = [value.to(features.dtype) for value in told] if self.config.chained else []
        return head(torch.cat([features, *told], dim=1)).float()

    def _mixture(self, parameters: torch.Tensor) -> MixtureSameFamily:
        logits, mean, spread = parameters.chunk(3, dim=1)
        # Whether all is finite the pipeline checks, for all steps at once.
        components = Normal(mean, F.softplus(spread) + self.min_std, validate_args=False)
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), components, validate_args=False)

    def _check_sample(self, sample: torch.Tensor) -> None:
        if not torch.is_tensor(sample):
            raise TypeError(f"`sample` expects a tensor, got {type(sample).__name__}.")
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if sample.ndim != 4 or sample.shape[1:] != shape:
            raise ValueError(
                f"`sample` expects shape (batch, {', '.join(map(str, shape))}), got {tuple(sample.shape)}."
            )

    def _check_condition(self, condition: torch.Tensor, batch_size: int) -> None:
        if not torch.is_tensor(condition):
            raise TypeError(f"`condition` expects a tensor, got {type(condition).__name__}.")
        shape = (batch_size, sum(width for _, width in self.config.condition_widths))
        if condition.shape != shape:
            raise ValueError(
                f"`condition` expects shape {shape}, of {self.condition_widths}, got {tuple(condition.shape)}."
            )

    @contextlib.contextmanager
    # Copied from diffscm_diffusers.models.anticausal_classifier_2d.AntiCausalClassifier2DModel._frozen
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
