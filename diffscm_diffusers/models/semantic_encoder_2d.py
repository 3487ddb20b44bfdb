# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn
from zuko.flows import MAF


@dataclass
class SemanticEncoder2DOutput(BaseOutput):
    """
    The posterior of the code, a diagonal Gaussian.

    Args:
        mean (`torch.Tensor` of shape `(batch, code_dim)`): Its mean.
        std (`torch.Tensor` of shape `(batch, code_dim)`): Its standard deviation.
    """

    mean: torch.Tensor
    std: torch.Tensor


@dataclass
class SemanticAutoencoder2DOutput(BaseOutput):
    """
    An image, decoded from its own code under its own causes.

    Args:
        sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): The decoded image.
        code (`torch.Tensor` of shape `(batch, code_dim)`): The code that it was decoded from.
        mean (`torch.Tensor` of shape `(batch, code_dim)`): Mean of the code's posterior.
        std (`torch.Tensor` of shape `(batch, code_dim)`): Its standard deviation.
        transferred_mean (`torch.Tensor` of shape `(batch, code_dim)`, *optional*):
            Mean of the code that is read, under other causes, in the image that the code means under them.
    """

    sample: torch.Tensor
    code: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    transferred_mean: torch.Tensor | None = None


class ConditionedConvolution(nn.Module):
    """A convolution whose channels are scaled and shifted by a vector, and SiLU."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, stride: int = 1):
        super().__init__()
        # A kernel of 4 halves an even size without a shift.
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3 if stride == 1 else 4, stride=stride, padding=1)
        self.modulation = nn.Linear(condition_dim, 2 * out_channels)
        nn.init.normal_(self.modulation.weight, std=0.1)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, hidden: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        return F.silu(torch.addcmul(shift, self.conv(hidden), 1 + scale))


class CodeMechanism(nn.Module):
    """
    What the causes do to the code: an invertible map from the code to exogenous noise of the same length, whose law is
    the same under all causes. Two masked autoregressive transforms ([Papamakarios et al.,
    2017](https://huggingface.co/papers/1705.07057)), of the code's uncorrelated parts.
    """

    def __init__(self, code_dim: int, condition_dim: int, hidden_features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(code_dim))
        self.register_buffer("whitening", torch.eye(code_dim))
        self.flow = MAF(code_dim, condition_dim, transforms=2, hidden_features=(hidden_features,) * 2).transform
        # Near the identity: causes that do nothing to the code leave it as it is.
        for transform in self.flow.transforms:
            for parameter in transform.hyper[-1].parameters():
                nn.init.normal_(parameter, std=1e-3)

    def forward(self, code: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The noise of codes under their causes, and the logarithm of the map's Jacobian determinant."""
        part = (code - self.mean) @ self.whitening
        noise, log_determinant = self.flow(condition).call_and_ladj(part)
        return noise @ self.whitening.inverse() + self.mean, log_determinant

    def inverse(self, noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """The code that noise becomes under causes."""
        part = self.flow(condition).inv((noise - self.mean) @ self.whitening)
        return part @ self.whitening.inverse() + self.mean


class SemanticEncoder2DModel(ModelMixin, ConfigMixin):
    r"""
    A semantic code of an image given its causes, and the image that the code means under any causes.

    The code is what stays the same under an intervention: size, slant, thickness of strokes, where the image is. It is
    read from the image *under the factual causes*, `q(z | x, pa) = N(mean, std^2)`, and decoded under the
    counterfactual ones. A denoiser takes the decoded image as further input channels, and its exogenous noise holds
    what the code leaves open ([Preechakul et al., 2022](https://huggingface.co/papers/2111.15640);
    [Pandey et al., 2022](https://huggingface.co/papers/2201.00308)).

    Trained as a conditional variational autoencoder with a standard Gaussian prior, with an adversary that reads the
    causes from the code, and with a penalty on the distance between the code's means given each class, so that the
    code says nothing about them. Two choices in the decoder help causes share the meaning of the code:

    - The causes choose maps of features, which the code mixes and modulates: the code is a manner, not a content. The
      causes do so too, as thickness or intensity changes how any stroke is drawn.
    - The first six entries of the code are a matrix and a translation that move the features
      ([Jaderberg et al., 2015](https://huggingface.co/papers/1506.02025)). So a turn is the same turn for all causes.

    Causes that only make an image brighter or darker can be named (`gain_conditions`). The decoder multiplies its
    image by a factor that depends on them, and draws the shape without them. Otherwise it may take them for the shape
    where they go together with other causes in the data, and draw another shape when an intervention parts them.

    What such training leaves in the code of the causes, a mechanism of its own takes out: an invertible map, from the
    code to exogenous noise whose law is the same under all causes. A counterfactual has the code that this noise
    becomes under the counterfactual causes.

    Parameters:
        sample_size (`int`): Height and width of the images, a multiple of 4.
        condition_dim (`int`): Number of causes: classes, if the condition is a one-hot class.
        in_channels (`int`, *optional*, defaults to 1): Number of channels of the images.
        code_dim (`int`, *optional*, defaults to 24): Length of the code, at least 7.
        block_out_channels (`tuple[int, int, int]`, *optional*, defaults to `(32, 64, 96)`):
            Channels of the encoder's convolutions. The decoder has the first two of them.
        hidden_features (`int`, *optional*, defaults to 256): Width of the encoder's linear layers.
        condition_features (`int`, *optional*, defaults to 32): Width of the causes' embedding in the encoder.
        style_features (`int`, *optional*, defaults to 64):
            Width of the embedding of the code and the causes in the decoder.
        num_content_maps (`int`, *optional*, defaults to 1):
            How many maps of features the causes choose. To the first, the code adds as much of each other one as it
            likes. Handwriting, of which no two strokes are the same shape, takes many; type, which is drawn once and
            moved, one.
        fine_features (`int`, *optional*, defaults to 12):
            Channels of the decoder at the images' own size, after features were moved. More draw finer edges.
        num_corrections (`int`, *optional*, defaults to 0):
            How often [`~SemanticEncoder2DModel.encode`] corrects the code by what its decoded image is read as.
        transfer_scale (`float`, *optional*, defaults to 0.0):
            How uncertain draws are of the code under other causes, per unit of the causes' distance and in standard
            deviations of the posterior: 0 if the code says exactly what it means under any
            ([`~SemanticEncoder2DModel.transfer`]).
        mechanism_features (`int`, *optional*, defaults to 0):
            Width of the two hidden layers in each transform of the code's mechanism. 0: the code is exogenous itself.
        residual_std (`float`, *optional*):
            Standard deviation of the images around the decoded ones, in units of half the decoded image's range, as
            far as a denoiser may assume it: its network then predicts what such a normal law does not
            ([`~SemanticEncoder2DModel.residual_prior`]). Default: it predicts all.
        gain_conditions (`tuple[int, ...]`, *optional*, defaults to `()`):
            Entries of the condition that act on the decoded image by a gain alone: a factor of each channel, where
            black is 0, linear in these entries. All else that is drawn depends on the code and the other causes. They
            have a part in the gain, too.

    Raises:
        ValueError: if `sample_size` is no multiple of 4, `code_dim` is below 7, `block_out_channels` has not three
            entries, `num_corrections` or `mechanism_features` is negative, `transfer_scale` is negative or not finite,
            `residual_std` is not above 0, or `gain_conditions` are not different numbers from 0 to
            `condition_dim - 1`.
    """

    # An inverse of a map is one only as far as both are exact.
    _keep_in_fp32_modules = ["mechanism"]

    # What the pose is multiplied by: a code of 1 is 0.15 rad, or 0.09 of half the image. The features are those of the
    # middle 0.8 of the image.
    pose_scale = 0.15
    translation_scale = 0.09
    field_of_view = 0.8

    @register_to_config
    def __init__(
        self,
        sample_size: int,
        condition_dim: int,
        in_channels: int = 1,
        code_dim: int = 24,
        block_out_channels: tuple[int, int, int] = (32, 64, 96),
        hidden_features: int = 256,
        condition_features: int = 32,
        style_features: int = 64,
        num_content_maps: int = 1,
        fine_features: int = 12,
        num_corrections: int = 0,
        transfer_scale: float = 0.0,
        mechanism_features: int = 0,
        residual_std: float | None = None,
        gain_conditions: tuple[int, ...] = (),
    ):
        super().__init__()
        for name, value in (
            ("sample_size", sample_size),
            ("condition_dim", condition_dim),
            ("in_channels", in_channels),
            ("code_dim", code_dim),
            ("hidden_features", hidden_features),
            ("condition_features", condition_features),
            ("style_features", style_features),
            ("num_content_maps", num_content_maps),
            ("fine_features", fine_features),
        ):
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
        if (
            not isinstance(block_out_channels, (list, tuple))
            or not block_out_channels
            or any(type(width) is not int or width < 1 for width in block_out_channels)
        ):
            raise ValueError(f"`block_out_channels` expects whole numbers of at least 1, got {block_out_channels!r}.")
        for name, value in (("num_corrections", num_corrections), ("mechanism_features", mechanism_features)):
            if type(value) is not int or value < 0:
                raise ValueError(f"`{name}` expects a whole number of at least 0, got {value!r}.")
        if type(transfer_scale) not in (int, float) or not 0 <= transfer_scale < math.inf:
            raise ValueError(f"`transfer_scale` expects a number from 0, got {transfer_scale!r}.")
        if residual_std is not None and (type(residual_std) not in (int, float) or not 0 < residual_std < math.inf):
            raise ValueError(f"`residual_std` expects a number above 0, or None, got {residual_std!r}.")
        if (
            not isinstance(gain_conditions, (list, tuple))
            or any(type(entry) is not int or not 0 <= entry < condition_dim for entry in gain_conditions)
            or len(set(gain_conditions)) < len(gain_conditions)
        ):
            raise ValueError(
                f"`gain_conditions` expects different numbers from 0 to {condition_dim - 1}, got {gain_conditions!r}."
            )
        if sample_size % 4 != 0:
            raise ValueError(f"`sample_size` expects a multiple of 4, got {sample_size}.")
        if code_dim < 7:
            raise ValueError(f"`code_dim` expects at least 7, of which 6 are the pose, got {code_dim}.")
        if len(block_out_channels) != 3:
            raise ValueError(f"`block_out_channels` expects 3 numbers, got {block_out_channels}.")
        fine, middle, coarse = block_out_channels
        self.coarse_size = sample_size // 4

        self.condition_embedding = nn.Linear(condition_dim, condition_features, bias=False)
        self.down_blocks = nn.ModuleList(
            [
                ConditionedConvolution(in_channels, fine, condition_features, stride=2),
                ConditionedConvolution(fine, middle, condition_features),
                ConditionedConvolution(middle, coarse, condition_features, stride=2),
                ConditionedConvolution(coarse, coarse, condition_features),
            ]
        )
        self.linear_1 = nn.Linear(coarse * self.coarse_size**2 + condition_features, hidden_features)
        self.linear_2 = nn.Linear(hidden_features + condition_features, hidden_features)
        self.code_out = nn.Linear(hidden_features, 2 * code_dim)

        self.content = nn.Linear(condition_dim, num_content_maps * middle * self.coarse_size**2, bias=False)
        nn.init.normal_(self.content.weight, std=0.5)
        self.style_embedding = nn.Sequential(
            nn.Linear(code_dim - 6 + condition_dim, style_features),
            nn.SiLU(),
            nn.Linear(style_features, style_features),
        )
        self.mixing = None
        if num_content_maps > 1:
            self.mixing = nn.Linear(style_features, num_content_maps - 1)
        self.up_blocks = nn.ModuleList(
            [
                ConditionedConvolution(middle, middle, style_features),
                ConditionedConvolution(middle, middle, style_features),
                ConditionedConvolution(middle, fine, style_features),
            ]
        )
        self.to_fine = nn.Conv2d(fine, 4 * fine_features, kernel_size=3, padding=1)
        self.refine = ConditionedConvolution(fine_features, fine_features, style_features)
        self.conv_out = nn.Conv2d(fine_features, in_channels, kernel_size=3, padding=1)
        self.bias_out = nn.Linear(style_features, in_channels)
        # Most of an image is background.
        nn.init.zeros_(self.bias_out.weight)
        nn.init.constant_(self.bias_out.bias, -2.0)

        self.gain_out = None
        if gain_conditions:
            self.gain_out = nn.Linear(style_features + len(gain_conditions), in_channels)
            nn.init.zeros_(self.gain_out.weight)
            nn.init.ones_(self.gain_out.bias)

        self.mechanism = None
        if mechanism_features > 0:
            self.mechanism = CodeMechanism(code_dim, condition_dim, mechanism_features)

    def encode(
        self, sample: torch.Tensor, condition: torch.Tensor, return_dict: bool = True
    ) -> SemanticEncoder2DOutput | tuple[torch.Tensor, torch.Tensor]:
        """
        The posterior of the code given the image and its causes.

        Each of the configuration's `num_corrections` adds to the mean what is read in the image beyond what is read in
        the decoded mean. So it goes towards a code whose decoded image is read as the image is.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [-1, 1].
            condition (`torch.Tensor` of shape `(batch, condition_dim)`):
                The factual causes: a one-hot class, or attributes scaled to about [-1, 1].
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output class or a tuple.

        Returns:
            [`SemanticEncoder2DOutput`] or `tuple`: mean and standard deviation, in float32.

        Raises:
            ValueError: if `sample` or `condition` has another shape.
        """
        mean, std = self._read(sample, condition)
        read = mean
        for _ in range(self.config.num_corrections):
            mean = mean + read - self._read(self.decode(mean, condition), condition)[0]
        if not return_dict:
            return mean, std
        return SemanticEncoder2DOutput(mean=mean, std=std)

    def _read(self, sample: torch.Tensor, condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not torch.is_tensor(sample):
            raise TypeError(f"`sample` expects a tensor, got {type(sample).__name__}.")
        shape = (self.config.in_channels, self.config.sample_size, self.config.sample_size)
        if sample.ndim != 4 or sample.shape[1:] != shape:
            raise ValueError(
                f"`sample` expects shape (batch, {', '.join(map(str, shape))}), got {tuple(sample.shape)}."
            )
        self._check_condition(condition, len(sample))

        condition = self.condition_embedding(condition.to(self.dtype))
        hidden = sample.to(self.dtype) + 1
        for block in self.down_blocks:
            hidden = block(hidden, condition)
        hidden = F.silu(self.linear_1(torch.cat([hidden.flatten(1), condition], dim=1)))
        hidden = F.silu(self.linear_2(torch.cat([hidden, condition], dim=1)))
        mean, log_variance = self.code_out(hidden).float().chunk(2, dim=1)
        # Starts at some nats per entry, and keeps the exponential in range.
        return mean, (0.5 * (log_variance - 2).clamp(-12, 2)).exp()

    def abduct(self, code: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """
        The exogenous noise of codes, by the code's mechanism: what in them the causes did not make.

        Args:
            code (`torch.Tensor` of shape `(batch, code_dim)`): Codes: means, or draws from the posterior.
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): The causes under which they were read.

        Returns:
            `torch.Tensor` of shape `(batch, code_dim)`: noise, in the code's units. Without a mechanism, the code.

        Raises:
            ValueError: if `code` or `condition` has another shape.
        """
        self._check_code(code)
        self._check_condition(condition, len(code))
        return code if self.mechanism is None else self.mechanism(code.float(), condition.float())[0]

    def predict(self, noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """
        The codes that exogenous noise becomes under given causes, the inverse of [`~SemanticEncoder2DModel.abduct`].

        Args:
            noise (`torch.Tensor` of shape `(batch, code_dim)`): Exogenous noise of codes.
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Causes, factual or counterfactual.

        Returns:
            `torch.Tensor` of shape `(batch, code_dim)`: codes for [`~SemanticEncoder2DModel.decode`] under the same
            causes. Without a mechanism, the noise.

        Raises:
            ValueError: if `noise` or `condition` has another shape.
        """
        self._check_code(noise, "noise")
        self._check_condition(condition, len(noise))
        return noise if self.mechanism is None else self.mechanism.inverse(noise.float(), condition.float())

    def transfer(
        self,
        noise: torch.Tensor,
        deviation: torch.Tensor,
        condition: torch.Tensor,
        other_condition: torch.Tensor,
    ) -> torch.Tensor:
        """
        A draw of the codes' exogenous noise that stands under other causes for that under the factual ones.

        Which codes belong together is learned from unpaired images, and so it is not known exactly. The longer the way
        from one condition to the other, the less it is known, and the further does the code deviate. Under the factual
        causes it stays as it is, as it does under causes that act by a gain alone (`gain_conditions`).

        Args:
            noise (`torch.Tensor` of shape `(batch, code_dim)`): Exogenous noise of codes, from the factual causes.
            deviation (`torch.Tensor` of shape `(batch, code_dim)`):
                Of the code: standard Gaussian noise times the posterior's standard deviation. Counterfactuals under
                several causes belong together if it is the same for all.
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): The factual causes.
            other_condition (`torch.Tensor` of shape `(batch, condition_dim)`): The counterfactual ones.

        Returns:
            `torch.Tensor` of shape `(batch, code_dim)`: noise for
            [`~SemanticEncoder2DModel.predict`] under `other_condition`.

        Raises:
            ValueError: if an argument has another shape.
        """
        self._check_code(noise, "noise")
        self._check_code(deviation, "deviation", len(noise))
        self._check_condition(condition, len(noise))
        self._check_condition(other_condition, len(noise), "other_condition")
        distance = self._without_gain(other_condition - condition).norm(dim=1, keepdim=True)
        # The noise of the code that deviates, as the deviation has the code's units.
        code = self.predict(noise, other_condition) + self.config.transfer_scale * distance * deviation
        return self.abduct(code, other_condition)

    def decode(self, code: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """
        The image that a code means under given causes.

        Args:
            code (`torch.Tensor` of shape `(batch, code_dim)`): Codes: means, or draws from the posterior.
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Causes, factual or counterfactual.

        Returns:
            `torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`: images in [-1, 1], in float32.

        Raises:
            ValueError: if `code` or `condition` has another shape.
        """
        self._check_code(code)
        self._check_condition(condition, len(code))

        condition = condition.to(self.dtype)
        gain_condition = condition[:, list(self.config.gain_conditions)]
        condition = self._without_gain(condition)
        style = self.style_embedding(torch.cat([code[:, 6:].to(self.dtype), condition], dim=1))
        shape = (self.config.num_content_maps, -1, self.coarse_size, self.coarse_size)
        maps = self.content(condition).unflatten(1, shape)
        hidden = maps[:, 0]
        if self.mixing is not None:
            hidden = hidden + torch.einsum("bk,bkchw->bchw", self.mixing(style), maps[:, 1:])
        hidden = self.up_blocks[0](hidden, style)
        hidden = F.interpolate(hidden, scale_factor=2)
        hidden = self.up_blocks[2](self.up_blocks[1](hidden, style), style)
        hidden = self._move(F.pixel_shuffle(self.to_fine(hidden), 2), code[:, :6].float())
        hidden = self.conv_out(self.refine(hidden, style)) + self.bias_out(style)[:, :, None, None]
        image = hidden.float().sigmoid()
        if self.gain_out is not None:
            gain = self.gain_out(torch.cat([style, gain_condition], dim=1))[:, :, None, None]
            image = (gain.float() * image).clamp(0, 1)
        return 2 * image - 1

    def residual_prior(
        self, sample: torch.Tensor, decoded: torch.Tensor, alpha_prod: torch.Tensor | float, prediction_type: str
    ) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor | float]:
        """
        What a denoiser predicts, in closed form, of images that are normal around the decoded ones:
        `x_0 ~ N(decoded, std^2)`. The standard deviation is the configuration's `residual_std` times half the decoded
        image's range, as a fainter image has fainter deviations.

        A denoiser that is given the decoded image has to learn only what this leaves open. Its network takes the first
        result in place of `x_t`, and predicts around the second in units of the third. So a network that answers 0 is
        a mechanism already, `x_0 = decoded + std * u`, and errors of the network are small where `x_0` is all
        but known. It is the preconditioning of EDM ([Karras et al., 2022](https://huggingface.co/papers/2206.00364),
        Table 1) with the decoded image, not 0, for the mean.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, height, width)`): Noisy images `x_t`.
            decoded (`torch.Tensor` of shape `(batch, in_channels, height, width)`): The decoded images, in [-1, 1].
            alpha_prod (`torch.Tensor` or `float`):
                The noise schedule's `alphas_cumprod` at `t`, below 1: a number, or a tensor that fits `sample`.
            prediction_type (`str`): What the denoiser predicts: `"epsilon"`, `"v_prediction"` or `"sample"`.

        Returns:
            `tuple`: `x_t` less its mean, over its standard deviation; then mean and standard deviation, given `x_t`,
            of what is to be predicted. Without `residual_std`, they are `x_t`, 0 and 1.

        Raises:
            ValueError: if `decoded` has another shape than `sample`, or `prediction_type` is unknown.
        """
        for name, value in (("sample", sample), ("decoded", decoded)):
            if not torch.is_tensor(value):
                raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        if decoded.shape != sample.shape:
            raise ValueError(f"`decoded` expects `sample`'s shape {tuple(sample.shape)}, got {tuple(decoded.shape)}.")
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(
                f"`prediction_type` expects 'epsilon', 'v_prediction' or 'sample', got {prediction_type!r}."
            )
        if self.config.residual_std is None:
            return sample, 0.0, 1.0
        alpha_prod = torch.as_tensor(alpha_prod, dtype=torch.float32, device=sample.device)
        signal, noise = alpha_prod.sqrt(), (1 - alpha_prod).sqrt()
        darkest, brightest = decoded.float().flatten(1).aminmax(dim=1)
        residual_std = self.config.residual_std * ((brightest - darkest) / 2)[:, None, None, None]
        total_std = (alpha_prod * residual_std**2 + 1 - alpha_prod).sqrt()
        deviation = (sample - signal * decoded) / total_std
        mean_image = decoded + signal * residual_std**2 / total_std * deviation
        mean_noise = noise / total_std * deviation
        # Given `x_t`, the image decides the noise, and both the velocity: they are as uncertain as it is.
        velocity_std = residual_std / total_std
        mean, std = {
            "sample": (mean_image, noise * velocity_std),
            "epsilon": (mean_noise, signal * velocity_std),
            "v_prediction": (signal * mean_noise - noise * mean_image, velocity_std),
        }[prediction_type]
        return deviation, mean, std

    def forward(
        self,
        sample: torch.Tensor,
        condition: torch.Tensor,
        noise: torch.Tensor | None = None,
        other_condition: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> SemanticAutoencoder2DOutput | tuple[torch.Tensor, ...]:
        """
        Reads the code of images and decodes it under the same causes, for training. Gradients go through the
        corrections of [`~SemanticEncoder2DModel.encode`] too: the encoder learns to be corrected. What is read under
        the other causes is not corrected, as the code that a decoded image is from needs no correction.

        Args:
            sample (`torch.Tensor` of shape `(batch, in_channels, sample_size, sample_size)`): Images in [-1, 1].
            condition (`torch.Tensor` of shape `(batch, condition_dim)`): Their causes.
            noise (`torch.Tensor` of shape `(batch, code_dim)`, *optional*):
                Standard Gaussian noise that makes the code a draw from its posterior. Default: the code is the mean.
            other_condition (`torch.Tensor` of shape `(batch, condition_dim)`, *optional*):
                Other causes, to decode and read the code once more under them.
            return_dict (`bool`, *optional*, defaults to `True`): Whether to return an output class or a tuple.

        Returns:
            [`SemanticAutoencoder2DOutput`] or `tuple`: the decoded image, its code, the posterior's mean and standard
            deviation, and what is read under the other causes.

        Raises:
            ValueError: if an argument has another shape.
        """
        mean, std = self.encode(sample, condition, return_dict=False)
        if noise is not None and noise.shape != mean.shape:
            raise ValueError(f"`noise` expects shape {tuple(mean.shape)}, got {tuple(noise.shape)}.")
        code = mean if noise is None else mean + std * noise
        output = (self.decode(code, condition), code, mean, std)
        if other_condition is not None:
            output += (self._read(self.decode(code, other_condition), other_condition)[0],)
        return SemanticAutoencoder2DOutput(*output) if return_dict else output

    def _without_gain(self, condition: torch.Tensor) -> torch.Tensor:
        entries = torch.tensor(self.config.gain_conditions, dtype=torch.long, device=condition.device)
        return condition.index_fill(1, entries, 0)

    def _move(self, hidden: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
        # The exponential of a matrix is never singular, and has its identity at a code of 0.
        matrix = torch.linalg.matrix_exp(self.pose_scale * pose[:, :4].view(-1, 2, 2))
        translation = matrix @ (self.translation_scale * pose[:, 4:, None])
        theta = torch.cat([matrix, -translation], dim=2) / self.field_of_view
        grid = F.affine_grid(theta, list(hidden.shape), align_corners=False)
        return F.grid_sample(hidden.float(), grid, align_corners=False).to(hidden.dtype)

    def _check_code(self, code: torch.Tensor, argument: str = "code", batch_size: int | None = None) -> None:
        if not torch.is_tensor(code):
            raise TypeError(f"`{argument}` expects a tensor, got {type(code).__name__}.")
        length = self.config.code_dim
        if code.ndim != 2 or code.shape[1] != length or batch_size not in (None, len(code)):
            expected = f"({'batch' if batch_size is None else batch_size}, {length})"
            raise ValueError(f"`{argument}` expects shape {expected}, got {tuple(code.shape)}.")

    def _check_condition(self, condition: torch.Tensor, batch_size: int, argument: str = "condition") -> None:
        if not torch.is_tensor(condition):
            raise TypeError(f"`{argument}` expects a tensor, got {type(condition).__name__}.")
        shape = (batch_size, self.config.condition_dim)
        if condition.shape != shape:
            raise ValueError(f"`{argument}` expects shape {shape}, got {tuple(condition.shape)}.")
