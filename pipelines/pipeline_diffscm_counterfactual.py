# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import contextlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from diffusers.utils import BaseOutput, replace_example_docstring
from diffusers.utils.torch_utils import randn_tensor


EXAMPLE_DOC_STRING = """
        Examples:

        ```py
        >>> from diffscm_diffusers import DiffSCMCounterfactualPipeline
        >>> from PIL import Image

        >>> pipe = DiffSCMCounterfactualPipeline.from_pretrained("checkpoints/diffscm-mnist")
        >>> factual = Image.open("examples/digits/7.png")

        >>> # How would this 7 look, had it been a 2? Had it been a 9?
        >>> counterfactuals = pipe(factual, ["2", "9"]).images
        ```
"""


@dataclass
class DiffSCMAbductionOutput(BaseOutput):
    """
    The output of [`DiffSCMCounterfactualPipeline.abduct`].

    Args:
        exogenous_noise (`torch.Tensor`):
            The noise, one per factual image, float32, shape `(num_factuals, channels, height, width)`. With
            [`DiffSCMBELMScheduler`], whose way down starts from two samples, float64, shape `(num_factuals, 2,
            channels, height, width)`.
        residual (`torch.Tensor`, *optional*):
            The largest residual among the image's moves, shape `(num_factuals,)`: mean absolute difference of noisy
            images in [-1, 1]. `None` unless abduction is implicit.
        num_evaluations (`torch.Tensor`):
            How often the denoiser was evaluated for each image, int64, shape `(num_factuals,)`.
    """

    exogenous_noise: torch.Tensor
    residual: torch.Tensor | None
    num_evaluations: torch.Tensor


@dataclass
class DiffSCMCounterfactualPipelineOutput(BaseOutput):
    """
    The output of [`DiffSCMCounterfactualPipeline`].

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            The predicted images: PIL, an array `(batch, height, width, channels)` or a tensor
            `(batch, channels, height, width)`, the last two in [0, 1].
        exogenous_noise (`torch.Tensor`):
            The noise that the images were predicted from, one per factual image (not per target); see
            [`DiffSCMAbductionOutput`].
        log_probs (`torch.Tensor`, *optional*):
            `log p(y_cf | x)` of each predicted image under the anti-causal predictor at its lowest noise level,
            natural logarithm, shape `(batch,)`. `None` where the predictor did not run (`guidance_scale=0`).
        abduction ([`DiffSCMAbductionOutput`], *optional*):
            How abduction went. `None` where the images were predicted from given noise.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    exogenous_noise: torch.Tensor
    log_probs: torch.Tensor | None
    abduction: DiffSCMAbductionOutput | None = None


@contextlib.contextmanager
def frozen(module: torch.nn.Module):
    """Keeps parameters out of autograd for a while: a gradient towards the input alone then stores far less."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


class DiffSCMCounterfactualPipeline(DiffusionPipeline):
    r"""
    Pipeline for counterfactual images: how would this image look, had its cause been different?

    It implements Diff-SCM ([Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166), Alg. 1) for the
    causal graph `image <- class` in Pearl's three steps: *abduction* of the image's exogenous noise by the
    deterministic DDIM map run upwards, the *action* `do(class = intervention)`, and *prediction* by DDIM run
    downwards, steered by the gradient of an anti-causal predictor.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    Parameters:
        unet ([`UNet2DModel`]):
            An unconditional denoiser. One with a learned variance (twice as many output channels) is taken as well;
            the variance is not used. Both networks are put in evaluation mode.
        classifier ([`AntiCausalClassifier2DModel`]):
            The anti-causal predictor `p(y | x_t)`, for the same images and diffusion times as `unet`.
        scheduler ([`SchedulerMixin`]):
            The noise schedule that `unet` was trained with, one of betas. It is converted to a [`DDIMScheduler`], or
            its own subclass of that, without `clip_sample` and `thresholding`: where the predicted image is clipped,
            the map from noise to image cannot be inverted. [`DiffSCMDDIMScheduler`] is one with more timestep
            spacings. A [`DiffSCMBELMScheduler`], whose moves are inverted exactly at no further cost, is kept.
        inverse_scheduler ([`DiffSCMDDIMInverseScheduler`] or [`DiffSCMBELMScheduler`], *optional*):
            Runs `scheduler`'s moves upwards. By default it is made from `scheduler`'s configuration.
        default_guidance_scale (`float`, *optional*, defaults to 1.0):
            The `guidance_scale` of calls that give none.
        default_num_inference_steps (`int`, *optional*, defaults to 100):
            The `num_inference_steps` of calls that give none.
        presets (`dict[str, dict]`, *optional*):
            Named settings for `preset`: values of `num_inference_steps`, `guidance_scale`, `guidance_interval` and
            `abduction`.

    Raises:
        ValueError: if `unet` and `classifier` take images of another size or number of channels, if `unet` is
            class-conditional, if `scheduler` has no betas, if `inverse_scheduler` does not match it, or if `presets`
            holds other arguments.
    """

    model_cpu_offload_seq = "unet"
    _optional_components = ["inverse_scheduler"]
    _callback_tensor_inputs = ["sample"]
    _preset_arguments = ("num_inference_steps", "guidance_scale", "guidance_interval", "abduction")

    def __init__(
        self,
        unet: UNet2DModel,
        classifier: ModelMixin,
        scheduler: SchedulerMixin,
        inverse_scheduler: SchedulerMixin | None = None,
        default_guidance_scale: float = 1.0,
        default_num_inference_steps: int = 100,
        presets: dict[str, dict] | None = None,
    ):
        super().__init__()

        if hasattr(scheduler.config, "reverse"):  # DiffSCMBELMScheduler walks either way
            if inverse_scheduler is None:
                inverse_scheduler = scheduler.from_config(scheduler.config, reverse=True)
        else:
            # make sure scheduler can always be converted to an invertible DDIM
            if "beta_schedule" not in scheduler.config:
                raise ValueError(f"`scheduler` takes a noise schedule of betas, got a {type(scheduler).__name__}.")
            settings = {"clip_sample": False, "thresholding": False}
            if scheduler.config.beta_schedule not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
                # DDPMScheduler knows more of them than DDIMScheduler.
                settings |= {"beta_schedule": "linear", "trained_betas": scheduler.betas.tolist()}
            ddim_class = type(scheduler) if isinstance(scheduler, DDIMScheduler) else DDIMScheduler
            scheduler = ddim_class.from_config(scheduler.config, **settings)
            if inverse_scheduler is None:
                # Imported here only: a saved pipeline brings its inverse scheduler with it.
                from diffscm_diffusers.schedulers import DiffSCMDDIMInverseScheduler

                inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(scheduler.config)

        if unet.config.num_class_embeds is not None or unet.config.class_embed_type is not None:
            raise ValueError(
                "`unet` takes an unconditional denoiser, got one with `num_class_embeds` "
                f"{unet.config.num_class_embeds} and `class_embed_type` {unet.config.class_embed_type!r}."
            )
        if unet.config.out_channels not in (unet.config.in_channels, 2 * unet.config.in_channels):
            raise ValueError(
                "`unet` takes a denoiser with as many output as input channels, or twice as many, got "
                f"{unet.config.out_channels} and {unet.config.in_channels}."
            )
        for name in ("sample_size", "in_channels"):
            if unet.config[name] != classifier.config[name]:
                raise ValueError(
                    f"`classifier` takes the images of `unet`, whose `{name}` is {unet.config[name]}, got one whose "
                    f"`{name}` is {classifier.config[name]}."
                )
        for name, settings in (presets or {}).items():
            if not isinstance(settings, dict) or not set(settings) <= set(self._preset_arguments):
                raise ValueError(
                    f"`presets` takes dictionaries with values of {', '.join(self._preset_arguments)}, got "
                    f"{settings!r} for {name!r}."
                )

        # Dropout and batch statistics would make an image depend on chance and on its batch.
        self.register_modules(
            unet=unet.eval(), classifier=classifier.eval(), scheduler=scheduler, inverse_scheduler=inverse_scheduler
        )
        self.check_schedulers()
        self.register_to_config(
            default_guidance_scale=default_guidance_scale,
            default_num_inference_steps=default_num_inference_steps,
            presets=presets or {},
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        # Never a pickle, which can run any code where it is loaded.
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})

    @classmethod
    def _dict_from_json_file(cls, json_file: str) -> dict:
        # The index of a published checkpoint names the copies of this project's files that it holds, for those who do
        # not have the package. Who has it gets the same classes from there and runs no code of the repository.
        config = super()._dict_from_json_file(json_file)
        library = cls.__module__.split(".")[0]
        if library in LOADABLE_CLASSES and isinstance(config.get("_class_name"), list):
            config["_class_name"] = config["_class_name"][1]
            for name, value in config.items():
                if isinstance(value, list) and value[0] is not None and value[0] not in LOADABLE_CLASSES:
                    config[name] = [library, value[1]]
        return config

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`tuple`: channels, height and width of the images."""
        size = self.unet.config.sample_size
        return (self.unet.config.in_channels, *((size, size) if isinstance(size, int) else size))

    def prepare_image(self, image: PIL.Image.Image | np.ndarray | torch.Tensor | list) -> torch.Tensor:
        """Checks factual images; returns them as float32 in [-1, 1], `(num_factuals, channels, height, width)`."""
        images = image if isinstance(image, list) else [image]
        if len(images) == 0:
            raise ValueError("`image` takes at least one image, got an empty list.")
        if all(isinstance(i, PIL.Image.Image) for i in images):
            if any(i.mode not in ("L", "RGB") for i in images):
                raise ValueError(
                    "`image` takes PIL images of mode 'L' or 'RGB' (use `Image.convert`), got "
                    f"{sorted({i.mode for i in images})}."
                )
            images = [np.asarray(i) for i in images]
        if not all(isinstance(i, (np.ndarray, torch.Tensor)) and type(i) is type(images[0]) for i in images):
            raise TypeError(
                "`image` takes a PIL image, a NumPy array, a torch tensor or a list of one of them, got "
                f"{sorted({type(i).__name__ for i in images})}."
            )
        if len({tuple(i.shape) for i in images}) > 1:
            raise ValueError(f"`image` takes images of one shape, got {sorted({tuple(i.shape) for i in images})}.")

        channels, height, width = self.image_shape
        if images[0].ndim < 2:
            raise ValueError(f"`image` takes images of two or more axes, got shape {tuple(images[0].shape)}.")
        if isinstance(images[0], np.ndarray):
            images = torch.from_numpy(np.stack(images))
            # Greyscale arrays may come without an axis for the channel.
            if images.ndim == 3 or (channels == 1 and tuple(images.shape[-2:]) == (height, width)):
                images = images[..., None]
            images = images.movedim(-1, -3)
        else:
            images = torch.stack(images)
        # Without a list around it, a batch was wrapped in one above.
        images = images.flatten(0, -4) if images.ndim > 4 else images

        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"`image` takes images with {channels} channel(s) of {height} x {width} pixels, got a batch of shape "
                f"{tuple(images.shape)} where (batch, {channels}, {height}, {width}) was expected."
            )
        if len(images) == 0:
            raise ValueError("`image` takes at least one image, got none.")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif not images.is_floating_point():
            raise TypeError(f"`image` takes uint8 in [0, 255] or floats in [0, 1], got {images.dtype}.")
        images = images.to(device=self._execution_device, dtype=torch.float32)
        low, high = torch.aminmax(images)
        if not (low >= 0 and high <= 1):  # also where either is NaN
            raise ValueError(f"`image` takes values in [0, 1] without NaN, got values from {low:.4g} to {high:.4g}.")
        # Strides that depend on where the images came from would make `torch.compile` compile the networks anew.
        return self.image_processor.normalize(images).clone(memory_format=torch.contiguous_format)

    def prepare_intervention(
        self, intervention: int | str | list[int | str] | np.ndarray | torch.Tensor
    ) -> torch.Tensor:
        """Checks interventions and returns the class index of each, int64, shape `(num_interventions,)`."""
        num_classes = self.classifier.config.num_classes
        if isinstance(intervention, (torch.Tensor, np.ndarray)):
            values = intervention.reshape(-1).tolist()
        else:
            values = list(intervention) if isinstance(intervention, (list, tuple)) else [intervention]
        if len(values) == 0:
            raise ValueError("`intervention` takes at least one class, got none.")
        id2label = self.classifier.id2label
        targets = []
        for value in values:
            if isinstance(value, str):
                indices = [index for index, label in id2label.items() if label == value]
                # ImageNet's labels list synonyms: "tabby, tabby cat".
                indices = indices or [index for index, label in id2label.items() if value in label.split(", ")]
                if len(indices) == 0:
                    known = ", ".join(map(repr, list(id2label.values())[:10])) + (", ..." if num_classes > 10 else "")
                    raise ValueError(f"`intervention` takes the name of a class ({known}), got {value!r}.")
                if len(indices) > 1:
                    raise ValueError(f"`intervention` {value!r} names the classes {indices}: use the index of one.")
                targets.append(indices[0])
            elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
                if not 0 <= value < num_classes:
                    raise ValueError(f"`intervention` takes class indices from 0 to {num_classes - 1}, got {value}.")
                targets.append(int(value))
            else:
                raise TypeError(
                    "`intervention` takes a class index, a class name, or a list or tensor of them, got "
                    f"{value!r} of type {type(value).__name__}."
                )
        return torch.tensor(targets, device=self._execution_device)

    def prepare_guidance_scale(self, guidance_scale: float | list[float] | torch.Tensor) -> list[float]:
        """Checks guidance scales and returns them as a list: of one for all images, or of one per image."""
        is_array = isinstance(guidance_scale, (torch.Tensor, np.ndarray, np.generic))
        scales = guidance_scale.tolist() if is_array else guidance_scale
        scales = list(scales) if isinstance(scales, (list, tuple)) else [scales]
        if not all(isinstance(scale, (int, float)) and 0 <= scale < float("inf") for scale in scales):
            raise ValueError(
                f"`guidance_scale` takes a number of at least 0, or a list of them, got {guidance_scale!r}."
            )
        return scales

    def split_batch(self, sample: torch.Tensor, batch_size: int | None) -> tuple[torch.Tensor, ...]:
        """Splits a batch into parts that the networks see one after another."""
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"`batch_size` takes a whole number of at least 1, got {batch_size!r}.")
        return sample.split(batch_size or len(sample))

    def prepare_settings(self, preset: str | None, **arguments) -> list:
        """Completes `_preset_arguments`: what a call gives goes before its preset, that before the defaults."""
        if preset is not None and preset not in list(self.config.presets):
            raise ValueError(f"`preset` takes one of {sorted(self.config.presets)}, got {preset!r}.")
        settings = {
            "num_inference_steps": self.config.default_num_inference_steps,
            "guidance_scale": self.config.default_guidance_scale,
            **(self.config.presets[preset] if preset is not None else {}),
            **{name: value for name, value in arguments.items() if value is not None},
        }
        return [settings.get(name) for name in arguments]

    def prepare_timesteps(self, num_inference_steps: int, strength: float, abduction: str | None = None) -> int:
        """Sets both schedulers' timesteps and returns how many moves, counted from the image, `strength` takes."""
        if not isinstance(strength, (int, float)) or not 0 < strength <= 1:
            raise ValueError(f"`strength` takes a number in (0, 1], got {strength!r}.")
        if abduction not in (None, "source", "destination", "implicit"):
            raise ValueError(f"`abduction` takes 'source', 'destination' or 'implicit', got {abduction!r}.")
        self.check_schedulers()
        if isinstance(self.scheduler, DDIMScheduler):
            evaluate_at = "destination" if abduction == "implicit" else abduction
            self.inverse_scheduler.set_timesteps(num_inference_steps, evaluate_at=evaluate_at)
            if not self.inverse_scheduler.levels_are_consecutive:
                # DDIMScheduler's stride is num_train_timesteps // num_inference_steps wherever its timesteps lie.
                raise ValueError(
                    f"`num_inference_steps` {num_inference_steps} with `timestep_spacing` "
                    f"{self.scheduler.config.timestep_spacing!r} makes DDIMScheduler's moves end at other noise "
                    "levels than the next ones start from. Use `timestep_spacing='leading'`, or 'trailing' with a "
                    f"number of steps that divides {self.scheduler.config.num_train_timesteps}."
                )
        elif abduction is not None:
            raise ValueError(
                f"`abduction` {abduction!r} is for a DDIMScheduler: {type(self.scheduler).__name__} is inverted by "
                "construction."
            )
        else:
            self.inverse_scheduler.set_timesteps(num_inference_steps)
        self.scheduler.set_timesteps(num_inference_steps)
        num_moves = round(num_inference_steps * strength)
        if num_moves < self.scheduler.order:
            raise ValueError(
                f"`strength` {strength} of `num_inference_steps` {num_inference_steps} makes {num_moves} step(s), but "
                f"{type(self.scheduler).__name__} takes at least {self.scheduler.order}."
            )
        return num_moves

    def check_schedulers(self):
        """Checks that the scheduler's moves can be inverted, and that the inverse scheduler makes the same ones."""
        scheduler, inverse_scheduler = self.scheduler, self.inverse_scheduler
        if isinstance(scheduler, DDIMScheduler):
            fit = hasattr(type(inverse_scheduler), "levels_are_consecutive")
        else:
            fit = [s.config.get("reverse") for s in (scheduler, inverse_scheduler)] == [False, True]
        if not fit:
            raise ValueError(
                "`scheduler` takes a DDIMScheduler beside a DiffSCMDDIMInverseScheduler, or a DiffSCMBELMScheduler "
                f"beside its reverse, got {type(scheduler).__name__} and {type(inverse_scheduler).__name__}. Give "
                "another one to a new pipeline, which converts it."
            )
        if scheduler.config.get("clip_sample") or scheduler.config.get("thresholding"):
            raise ValueError(
                "`scheduler` takes a DDIMScheduler without `clip_sample` and `thresholding`: they make the map "
                "from noise to image impossible to invert."
            )
        for name in (
            "num_train_timesteps",
            "prediction_type",
            "timestep_spacing",
            "steps_offset",
            "set_alpha_to_one",
            "rescale_betas_zero_snr",
        ):
            if scheduler.config.get(name) != inverse_scheduler.config.get(name):
                raise ValueError(
                    f"`inverse_scheduler` must run `scheduler`'s moves upwards, but `{name}` is "
                    f"{inverse_scheduler.config.get(name)!r} there and {scheduler.config.get(name)!r} here. "
                    "Make it with `from_config(pipe.scheduler.config)`."
                )
        if not torch.equal(scheduler.alphas_cumprod.cpu(), inverse_scheduler.alphas_cumprod.cpu()):
            raise ValueError("`inverse_scheduler` and `scheduler` have different betas.")

    def check_guided_timesteps(self, guidance_interval: tuple[int, int] | None, num_moves: int):
        """Checks that guidance has a step to act in: without any, a counterfactual would be a reconstruction."""
        timesteps = self.scheduler.timesteps[-num_moves:].tolist()
        low, high = guidance_interval or (0, self.scheduler.config.num_train_timesteps)
        if not any(low <= timestep <= high for timestep in timesteps):
            raise ValueError(
                f"`guidance_interval` {guidance_interval} holds none of the prediction's timesteps, from "
                f"{timesteps[-1]} to {timesteps[0]}, so guidance would never act. Widen it, or raise `strength`."
            )

    def check_generator(self, generator: torch.Generator | None):
        """Checks what draws noise."""
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` takes a `torch.Generator`, got {type(generator).__name__}.")

    def check_averaging(self, timestep: int, num_draws: int):
        """Checks at which noise level, and over how many draws, a posterior mean is taken."""
        last = self.scheduler.config.num_train_timesteps - 1
        if type(timestep) is not int or not 0 <= timestep <= last:
            raise ValueError(f"`timestep` takes a whole number from 0 to {last}, got {timestep!r}.")
        if type(num_draws) is not int or num_draws < 2 or num_draws % 2:
            raise ValueError(f"`num_draws` takes an even number of at least 2, got {num_draws!r}.")
        if self.scheduler.alphas_cumprod[timestep] == 0 and self.scheduler.config.prediction_type == "epsilon":
            raise ValueError(f"`timestep` takes a level with a trace of the image, but {timestep} is pure noise.")

    def check_inputs(
        self,
        num_factuals: int,
        targets: torch.Tensor | None,
        guidance_scale: float | list[float] | torch.Tensor,
        guidance_interval: tuple[int, int] | None,
        eta: float,
        output_type: str,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = (),
    ):
        scales = self.prepare_guidance_scale(guidance_scale)
        num_images = max(num_factuals, 1 if targets is None else len(targets))
        if len(scales) not in (1, num_images):
            raise ValueError(
                f"`guidance_scale` takes one number for all images, or one per image, got {len(scales)} for "
                f"{num_images} image(s)."
            )
        if guidance_interval is not None:
            is_pair = isinstance(guidance_interval, (tuple, list)) and list(map(type, guidance_interval)) == [int, int]
            last = self.scheduler.config.num_train_timesteps - 1
            if not is_pair or not 0 <= guidance_interval[0] <= guidance_interval[1] <= last:
                raise ValueError(
                    f"`guidance_interval` takes two timesteps between 0 and {last}, the lower one first, got "
                    f"{guidance_interval!r}."
                )
        if targets is None and max(scales) > 0:
            raise ValueError("`intervention` is needed unless `guidance_scale` is 0.")
        if targets is not None and num_factuals > 1 and len(targets) not in (1, num_factuals):
            raise ValueError(
                f"`intervention` takes one class for all images, or one per image, got {len(targets)} for "
                f"{num_factuals} images."
            )
        if not isinstance(eta, (int, float)) or not 0 <= eta <= 1:
            raise ValueError(f"`eta` takes a number in [0, 1], got {eta!r}.")
        if eta > 0 and "eta" not in inspect.signature(self.scheduler.step).parameters:
            raise ValueError(f"`eta` must be 0 with {type(self.scheduler).__name__}, got {eta}.")
        self.check_generator(generator)
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` takes 'pil', 'np' or 'pt', got {output_type!r}.")
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise TypeError(f"`callback_on_step_end` takes a function, got {type(callback_on_step_end).__name__}.")
        if not set(callback_on_step_end_tensor_inputs) <= set(self._callback_tensor_inputs):
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` takes names from {self._callback_tensor_inputs}, got "
                f"{callback_on_step_end_tensor_inputs}."
            )

    def predict_noise(self, sample: torch.Tensor, timestep: int) -> torch.Tensor:
        """Evaluates the denoiser: its prediction, of the type it was trained for, in float32."""
        # A tensor, as `torch.compile` would compile the network anew for every number.
        timestep = torch.tensor(timestep, device=sample.device)
        prediction = self.unet(sample.to(self.unet.dtype), timestep).sample.float()
        # A learned variance is the second half of the channels; the deterministic moves have no use for it.
        return prediction[:, : sample.shape[1]]

    def guide(
        self,
        prediction: torch.Tensor,
        sample: torch.Tensor,
        timestep: int,
        target: torch.Tensor,
        guidance_scale: float | torch.Tensor,
    ) -> torch.Tensor:
        r"""
        Adds the intervention's gradient to the denoiser's prediction for `sample`,
        `eps - s * sqrt(1 - abar_t) * grad log p(y | x_t)` (paper, Eq. 7 and Alg. 1), expressed in the prediction's
        type.
        """
        alpha_prod = self.scheduler.alphas_cumprod[timestep].item()
        if alpha_prod == 0:
            return prediction  # Pure noise holds no trace of the class: the true gradient is zero.
        gradient, _ = self.classifier.log_prob_gradient(sample, torch.tensor(timestep, device=sample.device), target)
        shift = -guidance_scale * (1 - alpha_prod) ** 0.5
        if self.scheduler.config.prediction_type == "sample":
            shift = shift * -(((1 - alpha_prod) / alpha_prod) ** 0.5)
        elif self.scheduler.config.prediction_type == "v_prediction":
            shift = shift / alpha_prod**0.5
        return prediction + shift * gradient

    @torch.no_grad()
    def abduct(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        batch_size: int | None = None,
        abduction: str | None = None,
        tolerance: float = 1e-6,
        max_iterations: int = 40,
        preset: str | None = None,
        return_dict: bool = False,
    ) -> torch.Tensor | DiffSCMAbductionOutput:
        r"""
        Abduction, the first step of Alg. 1: infers the exogenous noise that the factual images came from.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images; see [`~DiffSCMCounterfactualPipeline.__call__`].
            num_inference_steps (`int`, *optional*): Number of steps from image to noise.
            strength (`float`, *optional*, defaults to 1.0): Fraction of those steps that are taken, in (0, 1].
            batch_size (`int`, *optional*): The most images that the network sees at once. Default: all.
            abduction (`str`, *optional*): See [`~DiffSCMCounterfactualPipeline.__call__`].
            tolerance (`float`, *optional*, defaults to 1e-6):
                The residual at which an image's implicit move has converged; see
                [`DiffSCMDDIMInverseScheduler.solve`]. Images that do not get there are named in a warning, and keep
                the best that was found.
            max_iterations (`int`, *optional*, defaults to 40):
                The most evaluations of the denoiser for an image's implicit move.
            preset (`str`, *optional*): See [`~DiffSCMCounterfactualPipeline.__call__`].
            return_dict (`bool`, *optional*, defaults to `False`):
                Whether to return a [`DiffSCMAbductionOutput`] or only the exogenous noise.

        Returns:
            `torch.Tensor` or [`DiffSCMAbductionOutput`]: the exogenous noise, of the type and shape given there.
        """
        num_inference_steps, abduction = self.prepare_settings(
            preset, num_inference_steps=num_inference_steps, abduction=abduction
        )
        batches = self.split_batch(self.prepare_image(image), batch_size)
        num_moves = self.prepare_timesteps(num_inference_steps, strength, abduction)

        timesteps = self.inverse_scheduler.timesteps[:num_moves].tolist()
        exogenous_noise, residuals, num_evaluations = [], [], []
        with self.progress_bar(total=len(batches) * num_moves) as progress_bar:
            progress_bar.set_description("Abduction")
            for sample in batches:
                if isinstance(self.scheduler, DDIMScheduler):
                    self.inverse_scheduler.set_begin_index(0)
                prediction, residual = None, sample.new_zeros(len(sample))
                evaluations = torch.zeros(len(sample), dtype=torch.int64, device=sample.device)
                for timestep in timesteps:
                    if abduction == "implicit":
                        # The last move's output is the next one's first guess.
                        solution = self.inverse_scheduler.solve(
                            self.predict_noise, timestep, sample, prediction, tolerance, max_iterations
                        )
                        sample, prediction = solution.prev_sample, solution.model_output
                        residual = torch.maximum(residual, solution.residual)
                        evaluations += solution.num_evaluations
                    else:
                        prediction = self.predict_noise(
                            self.inverse_scheduler.scale_model_input(sample, timestep), timestep
                        )
                        sample = self.inverse_scheduler.step(prediction, timestep, sample).prev_sample
                        evaluations += 1
                    progress_bar.update()
                if sample.ndim == 5:
                    sample = sample.flip(1)  # Of two samples, the way up ends with the upper one.
                exogenous_noise.append(sample)
                residuals.append(residual)
                num_evaluations.append(evaluations)

        self.maybe_free_model_hooks()
        exogenous_noise, residual = torch.cat(exogenous_noise), torch.cat(residuals)
        if abduction == "implicit" and (residual > tolerance).any():
            warnings.warn(
                f"Implicit abduction of {(residual > tolerance).sum()} of {len(residual)} image(s) did not reach "
                f"`tolerance` {tolerance:g} within `max_iterations` {max_iterations}; their residuals go up to "
                f"{residual.max():.2g}. Use more steps or iterations.",
                stacklevel=3,  # past the decorator, to the caller
            )
        if not return_dict:
            return exogenous_noise
        return DiffSCMAbductionOutput(
            exogenous_noise=exogenous_noise,
            residual=residual if abduction == "implicit" else None,
            num_evaluations=torch.cat(num_evaluations),
        )

    @torch.no_grad()
    def predict(
        self,
        exogenous_noise: torch.Tensor,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor | None = None,
        guidance_scale: float | list[float] | torch.Tensor | None = None,
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["sample"],  # noqa: B006
        guidance_interval: tuple[int, int] | None = None,
        preset: str | None = None,
    ) -> DiffSCMCounterfactualPipelineOutput | tuple:
        r"""
        Action and prediction, the other steps of Alg. 1: turns exogenous noise into the image that it causes under
        `do(class = intervention)`.

        Args:
            exogenous_noise (`torch.Tensor`):
                From [`~DiffSCMCounterfactualPipeline.abduct`] with the same `num_inference_steps` and `strength`, or
                drawn from the standard normal distribution. Shape `(num_factuals, channels, height, width)`, from
                abduction with a [`DiffSCMBELMScheduler`] `(num_factuals, 2, channels, height, width)`.

        The other arguments and the result are those of [`~DiffSCMCounterfactualPipeline.__call__`].
        """
        num_inference_steps, guidance_scale, guidance_interval = self.prepare_settings(
            preset,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
        )
        if not torch.is_tensor(exogenous_noise):
            raise TypeError(f"`exogenous_noise` takes a tensor, got {type(exogenous_noise).__name__}.")
        shapes = [self.image_shape, (self.scheduler.order, *self.image_shape)]
        if tuple(exogenous_noise.shape[1:]) not in shapes[: self.scheduler.order] or len(exogenous_noise) == 0:
            raise ValueError(
                f"`exogenous_noise` takes the shape (num_factuals, {', '.join(map(str, self.image_shape))}), got "
                f"{tuple(exogenous_noise.shape)}."
            )
        if not exogenous_noise.isfinite().all():
            raise ValueError("`exogenous_noise` takes finite values, got NaN or infinity.")
        targets = None if intervention is None else self.prepare_intervention(intervention)
        self.check_inputs(
            len(exogenous_noise),
            targets,
            guidance_scale,
            guidance_interval,
            eta,
            output_type,
            generator,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        scales = self.prepare_guidance_scale(guidance_scale)
        guided = max(scales) > 0
        num_moves = self.prepare_timesteps(num_inference_steps, strength)
        if guided:
            self.check_guided_timesteps(guidance_interval, num_moves)

        exogenous_noise = exogenous_noise.to(self._execution_device)
        if exogenous_noise.ndim == 4:
            exogenous_noise = exogenous_noise.float()
        num_images = len(exogenous_noise) if targets is None else max(len(exogenous_noise), len(targets))
        batches = self.split_batch(exogenous_noise.expand(num_images, *exogenous_noise.shape[1:]), batch_size)
        if len(scales) == 1:
            scale_batches = scales * len(batches)
        else:
            scale_batches = torch.tensor(scales, dtype=torch.float32, device=exogenous_noise.device)
            scale_batches = self.split_batch(scale_batches[:, None, None, None], batch_size)
        target_batches = self.split_batch(targets.expand(num_images), batch_size) if guided else [None] * len(batches)

        timesteps = self.scheduler.timesteps[-num_moves:].tolist()
        if exogenous_noise.ndim == 5:
            timesteps = timesteps[1:]  # Two samples are where the first move would have led.
        low, high = guidance_interval or (0, self.scheduler.config.num_train_timesteps)
        step_arguments = {"eta": eta, "generator": generator} if eta > 0 else {}

        images, log_probs = [], []
        with self.progress_bar(total=len(batches) * len(timesteps)) as progress_bar, frozen(self.classifier):
            progress_bar.set_description("Prediction")
            for sample, target, scale in zip(batches, target_batches, scale_batches, strict=True):
                for i, timestep in enumerate(timesteps):
                    model_input = self.scheduler.scale_model_input(sample, timestep)
                    prediction = self.predict_noise(model_input, timestep)
                    if guided and low <= timestep <= high:
                        prediction = self.guide(prediction, model_input, timestep, target, scale)
                    sample = self.scheduler.step(prediction, timestep, sample, **step_arguments).prev_sample

                    if callback_on_step_end is not None:
                        callback_kwargs = dict.fromkeys(callback_on_step_end_tensor_inputs, sample)
                        sample = callback_on_step_end(self, i, timestep, callback_kwargs).pop("sample", sample)
                    progress_bar.update()
                # the image itself, in the range of images: what `postprocess` will show
                sample = self.scheduler.scale_model_input(sample).float()
                if not sample.isfinite().all():
                    raise ValueError(
                        "The prediction is not finite: lower `guidance_scale`, or compute in float32. "
                        f"`guidance_scale` was {guidance_scale!r}."
                    )
                sample = sample.clamp(-1, 1)
                images.append(sample)
                if guided:
                    log_probs.append(self.classifier.log_prob(sample, 0, target))

        self.maybe_free_model_hooks()
        images = self.image_processor.postprocess(torch.cat(images), output_type=output_type)
        log_probs = torch.cat(log_probs) if guided else None
        if not return_dict:
            return (images, exogenous_noise, log_probs)
        return DiffSCMCounterfactualPipelineOutput(images=images, exogenous_noise=exogenous_noise, log_probs=log_probs)

    @torch.no_grad()
    def posterior_mean(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
        timestep: int,
        num_draws: int = 16,
        guidance_scale: float | list[float] | torch.Tensor | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        preset: str | None = None,
    ) -> list[PIL.Image.Image] | np.ndarray | torch.Tensor:
        r"""
        Takes the mean of all that a counterfactual could be in what neither its coarse features nor the intervention
        determine: `E[x_0 | x_t, do(class = intervention)]`, averaged over noisy versions `x_t ~ q(x_t | x)` of it.

        A counterfactual is one image, with every speck that its exogenous noise holds. Noise of level `t` hides the
        fine features, which the networks then fill in by their expectation, Tweedie's formula
        ([Efron, 2011](https://doi.org/10.1198/jasa.2011.tm11181)) with the guided prediction of Alg. 1, clipped to the
        range of images. Guidance acts at `timestep`, whatever a preset's interval. The mean is smoother than a real
        image, most so where details could have been others; it is the estimate with the least squared error.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The counterfactuals; see [`~DiffSCMCounterfactualPipeline.__call__`].
            intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`):
                The classes that they show; see [`~DiffSCMCounterfactualPipeline.__call__`].
            timestep (`int`):
                The noise level, from 0 to the scheduler's `num_train_timesteps - 1`. The higher, the more is averaged.
            num_draws (`int`, *optional*, defaults to 16):
                How many noisy versions are averaged, an even number, as half of them have the noise of the others with
                its sign changed. All images get the same noise, so that none depends on the others in its batch.
            guidance_scale (`float` or `list[float]` or `torch.Tensor`, *optional*, defaults to the checkpoint's):
                Weight of the anti-causal predictor's gradient, at least 0.
            generator (`torch.Generator`, *optional*): Makes the draws reproducible.
            batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            preset (`str`, *optional*): One of the checkpoint's `presets`, for its `guidance_scale`.

        Raises:
            ValueError: if an argument is out of its range or does not fit the others, or if the denoiser predicts
                noise and the level at `timestep` is nothing but noise.
            TypeError: if an argument is of another type.

        Examples:

        ```py
        >>> counterfactuals = pipe(factual, ["2", "9"], preset="fast").images
        >>> means = pipe.posterior_mean(counterfactuals, ["2", "9"], timestep=450, preset="fast")
        ```

        Returns:
            `list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`: the means, one per image.
        """
        (guidance_scale,) = self.prepare_settings(preset, guidance_scale=guidance_scale)
        samples, targets = self.prepare_image(image), self.prepare_intervention(intervention)
        self.check_inputs(len(samples), targets, guidance_scale, None, 0.0, output_type, generator)
        self.check_averaging(timestep, num_draws)
        alpha_prod = self.scheduler.alphas_cumprod[timestep].item()
        alpha, sigma = alpha_prod**0.5, (1 - alpha_prod) ** 0.5
        prediction_type = self.scheduler.config.prediction_type

        num_images = max(len(samples), len(targets))
        scales = self.prepare_guidance_scale(guidance_scale)
        guided = max(scales) > 0
        scales = torch.tensor(scales, dtype=torch.float32, device=samples.device)
        batches = [
            self.split_batch(values, batch_size)
            for values in (
                samples.expand(num_images, *self.image_shape),
                targets.expand(num_images),
                scales.expand(num_images)[:, None, None, None],
            )
        ]
        noise = randn_tensor((num_draws // 2, *self.image_shape), generator, samples.device, torch.float32)
        means = []
        with self.progress_bar(total=len(batches[0]) * num_draws) as progress_bar, frozen(self.classifier):
            progress_bar.set_description("Posterior mean")
            for sample, target, scale in zip(*batches, strict=True):
                mean = torch.zeros_like(sample)
                for draw in torch.cat([noise, -noise]):
                    noisy = alpha * sample + sigma * draw
                    prediction = self.predict_noise(noisy, timestep)
                    if guided:
                        prediction = self.guide(prediction, noisy, timestep, target, scale)
                    if prediction_type == "epsilon":
                        original = (noisy - sigma * prediction) / alpha
                    elif prediction_type == "sample":
                        original = prediction
                    else:
                        original = alpha * noisy - sigma * prediction
                    mean += original.clamp(-1, 1) / num_draws
                    progress_bar.update()
                means.append(mean)

        self.maybe_free_model_hooks()
        return self.image_processor.postprocess(torch.cat(means), output_type=output_type)

    def sample(
        self,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
        num_images: int = 1,
        generator: torch.Generator | None = None,
        shared_noise: bool = False,
        **kwargs,
    ) -> DiffSCMCounterfactualPipelineOutput | tuple:
        r"""
        Samples the interventional distribution `p(image | do(class = intervention))` (paper, App. F): prediction from
        exogenous noise that is drawn, not abducted.

        Args:
            intervention (`int` or `str` or `list` or `torch.Tensor`): One class or several.
            num_images (`int`, *optional*, defaults to 1): Images per class. All of the first class come first.
            generator (`torch.Generator`, *optional*): Makes the draw, and those of `eta > 0`, reproducible.
            shared_noise (`bool`, *optional*, defaults to `False`):
                Whether every class starts from the same noise, which shows the effect of the class alone (paper, Fig.
                5), or from fresh noise.
            kwargs: The other arguments of [`~DiffSCMCounterfactualPipeline.predict`], but for `strength`.

        Returns:
            [`DiffSCMCounterfactualPipelineOutput`] or `tuple`.
        """
        if type(num_images) is not int or num_images < 1:
            raise ValueError(f"`num_images` takes a whole number of at least 1, got {num_images!r}.")
        if kwargs.get("strength", 1) != 1:
            raise ValueError(f"`strength` takes 1 for noise that is drawn, got {kwargs['strength']!r}.")
        self.check_generator(generator)
        targets = self.prepare_intervention(intervention)
        num_draws = num_images if shared_noise else num_images * len(targets)
        noise = randn_tensor(
            (num_draws, *self.image_shape), generator=generator, device=self._execution_device, dtype=torch.float32
        )
        if shared_noise:
            noise = noise.repeat(len(targets), 1, 1, 1)
        return self.predict(noise, targets.repeat_interleave(num_images), generator=generator, **kwargs)

    @torch.no_grad()
    @replace_example_docstring(EXAMPLE_DOC_STRING)
    def __call__(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor | None = None,
        guidance_scale: float | list[float] | torch.Tensor | None = None,
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["sample"],  # noqa: B006
        abduction: str | None = None,
        guidance_interval: tuple[int, int] | None = None,
        preset: str | None = None,
    ) -> DiffSCMCounterfactualPipelineOutput | tuple:
        r"""
        Estimates counterfactuals (paper, Alg. 1): abduction of `image`'s exogenous noise, then prediction under
        `do(class = intervention)`.

        One image and several interventions give one counterfactual per intervention; several images and one
        intervention give one per image; as many interventions as images are taken in pairs. Anything else is an error.
        The noise of each image is abducted once, however many interventions it meets.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images: PIL images of mode `"L"` or `"RGB"`, arrays `(height, width, channels)` (or
                `(height, width)` if greyscale), tensors `(channels, height, width)`, each alone, in a list or, but
                for PIL, as a batch. Arrays and tensors hold floats in [0, 1] or uint8 in [0, 255]. Size and channels
                are `unet`'s.
            intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`, *optional*):
                The class that each image is to have been caused by: an index or a name from `classifier.id2label`.
                Only a reconstruction (`guidance_scale=0`) needs none.
            guidance_scale (`float` or `list[float]` or `torch.Tensor`, *optional*, defaults to the checkpoint's):
                Weight `s` of the anti-causal predictor's gradient, at least 0: one for all images, or one per image;
                [`GuidanceScaleSearch`] finds each image's own. Higher values make the image show the intervention
                more surely and the factual less (paper, App. I). With 0 for all, the images are reconstructed and the
                predictor never runs.
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the checkpoint):
                Number of DDIM steps in each direction, from 1 to the scheduler's `num_train_timesteps`.
            strength (`float`, *optional*, defaults to 1.0):
                Fraction of the steps that are taken, in (0, 1]. Below 1 abduction stops at a lower noise level, so
                that more of the factual is kept.
            eta (`float`, *optional*, defaults to 0.0):
                DDIM's `eta`, in [0, 1]. With 0 prediction is deterministic, as a structural equation is; above 0 it
                draws fresh noise in every step, and so forgets part of the exogenous noise.
            generator (`torch.Generator`, *optional*): Makes the draws of `eta > 0` reproducible.
            batch_size (`int`, *optional*):
                The most images that the networks see at once. Default: all. The draws of `eta > 0` depend on it.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`DiffSCMCounterfactualPipelineOutput`] or a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called after each step of the prediction as `callback_on_step_end(pipe, step, timestep,
                callback_kwargs)`. The dictionary that it returns may hold a changed `"sample"`.
            callback_on_step_end_tensor_inputs (`list[str]`, *optional*, defaults to `["sample"]`):
                Tensors passed in `callback_kwargs`. `"sample"` is the current noisy image in [-1, 1].
            abduction (`str`, *optional*, defaults to the `evaluate_at` of `inverse_scheduler`):
                How the image's noise is found. `"source"` and `"destination"` evaluate the denoiser once in each step
                and miss the noise by an error that falls with the number of steps; `"implicit"` solves each step, so
                that the image is recovered at any number of steps, for more evaluations; see
                [`DiffSCMDDIMInverseScheduler`].
            guidance_interval (`tuple[int, int]`, *optional*):
                The lowest and the highest timestep at which the predictor steers; elsewhere it does not run
                ([Kynkaanniemi et al., 2024](https://huggingface.co/papers/2404.07724)). Default: at all of them.
            preset (`str`, *optional*):
                Name of one of the checkpoint's `presets`, settings that were measured together. It stands in for those
                of `num_inference_steps`, `guidance_scale`, `guidance_interval` and `abduction` that are not given.

        Raises:
            ValueError:
                if an argument is out of its range or does not fit the others, if guidance has no step to act in, or if
                the prediction is not finite.
            TypeError: if an argument is of another type.

        Examples:

        Returns:
            [`DiffSCMCounterfactualPipelineOutput`] or `tuple`: images, exogenous noise and log-probabilities.
        """
        targets = None if intervention is None else self.prepare_intervention(intervention)
        num_inference_steps, guidance_scale, guidance_interval, abduction = self.prepare_settings(
            preset,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_interval=guidance_interval,
            abduction=abduction,
        )
        num_factuals = len(self.prepare_image(image))
        self.check_inputs(
            num_factuals,
            targets,
            guidance_scale,
            guidance_interval,
            eta,
            output_type,
            generator,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )
        num_moves = self.prepare_timesteps(num_inference_steps, strength, abduction)
        if max(self.prepare_guidance_scale(guidance_scale)) > 0:
            self.check_guided_timesteps(guidance_interval, num_moves)
        abducted = self.abduct(image, num_inference_steps, strength, batch_size, abduction, return_dict=True)
        output = self.predict(
            abducted.exogenous_noise,
            targets,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            strength=strength,
            eta=eta,
            generator=generator,
            batch_size=batch_size,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            guidance_interval=guidance_interval,
        )
        if not return_dict:
            return (output.images, output.exogenous_noise, output.log_probs)
        return DiffSCMCounterfactualPipelineOutput(
            images=output.images,
            exogenous_noise=output.exogenous_noise,
            log_probs=output.log_probs,
            abduction=abducted,
        )
