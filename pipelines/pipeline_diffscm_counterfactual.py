# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import copy
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


@dataclass
class DiffSCMAbductionOutput(BaseOutput):
    """
    The output of [`DiffSCMCounterfactualPipeline.abduct`].

    Args:
        exogenous_noise (`torch.Tensor`):
            The noise of each factual image, float32, shape `(num_factuals, channels, height, width)`; with a
            [`DiffSCMBELMScheduler`] two samples of each, float64, `(num_factuals, 2, channels, height, width)`.
        residual (`torch.Tensor` of shape `(num_factuals,)`, *optional*):
            The largest residual of the image's implicit moves: mean absolute difference of noisy images in [-1, 1].
        num_evaluations (`torch.Tensor` of shape `(num_factuals,)`): The denoiser's evaluations per image, int64.
        factual_class (`torch.Tensor` of shape `(num_factuals,)`, *optional*):
            The class under which each image was abducted, given or read by the predictor. `None`: under none.
        remainder (`torch.Tensor` of shape `(num_factuals, channels, height, width)`, *optional*):
            The lowest level of the noise, with draws: what the last move leaves out of the image, in [-1, 1].
    """

    exogenous_noise: torch.Tensor
    residual: torch.Tensor | None
    num_evaluations: torch.Tensor
    factual_class: torch.Tensor | None = None
    remainder: torch.Tensor | None = None


@dataclass
class DiffSCMCounterfactualPipelineOutput(BaseOutput):
    """
    The output of [`DiffSCMCounterfactualPipeline`]. With `num_draws`, images, noise and log-probabilities have a
    first axis of that size, and PIL images a list for each draw; `abduction` has one draw of all after the other.

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            PIL images, or in [0, 1] an array `(batch, height, width, channels)` or a tensor `(batch, channels, ...)`.
        exogenous_noise (`torch.Tensor`):
            The noise they were predicted from, one per factual image; see [`DiffSCMAbductionOutput`].
        log_probs (`torch.Tensor` of shape `(batch,)`, *optional*):
            Natural logarithm of `p(y_cf | x)` under the anti-causal predictor at timestep 0. `None` without guidance.
        abduction ([`DiffSCMAbductionOutput`], *optional*): How abduction went. `None` where the noise was given.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    exogenous_noise: torch.Tensor
    log_probs: torch.Tensor | None
    abduction: DiffSCMAbductionOutput | None = None

    # Copied from pipelines.pipeline_diffscm_semantic.DiffSCMSemanticPipelineOutput.mean_and_std
    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray] | tuple[torch.Tensor, torch.Tensor]:
        """
        The mean and the standard deviation over the draws, in [0, 1], of the shape of one draw; of PIL images as
        arrays `(batch, height, width, channels)`.

        Raises:
            ValueError: if there are no draws, or only one.
        """
        draws = self.images
        if isinstance(draws, list) and isinstance(draws[0], list):
            draws = np.stack([[np.asarray(image) / 255 for image in draw] for draw in draws])
            draws = draws[..., None] if draws.ndim == 4 else draws
        if isinstance(draws, list) or draws.ndim != 5 or len(draws) < 2:
            raise ValueError("The mean and the standard deviation need `num_draws` of at least 2.")
        if isinstance(draws, np.ndarray):
            return draws.mean(axis=0), draws.std(axis=0, ddof=1)
        return draws.mean(dim=0), draws.std(dim=0)


@dataclass
class Guidance:
    """What guides images: the class of each, the scale, the lowest and the highest timestep where it acts."""

    target: torch.Tensor
    scale: float | torch.Tensor
    interval: tuple[int, int]

    def __getitem__(self, index: slice | torch.Tensor) -> "Guidance":
        scale = self.scale[index] if torch.is_tensor(self.scale) else self.scale
        return Guidance(self.target[index], scale, self.interval)


def check_trained_with(scheduler: SchedulerMixin, **networks: ModelMixin):
    """Raises a `ValueError` if a network says in its configuration that it was trained otherwise than it is used."""
    known_names = {}
    for name, network in networks.items():
        trained_with = network.config.get("_trained_with", {})
        if "class_names" in trained_with:
            known_names[name] = list(trained_with["class_names"])
            first = next(iter(known_names))
            if known_names[name] != known_names[first]:
                raise ValueError(
                    f"`{name}` expects a network trained on the classes of `{first}`, {known_names[first]}, got one "
                    f"trained on {known_names[name]}."
                )
        value_range = list(trained_with.get("value_range", (-1, 1)))
        if value_range != [-1, 1]:
            raise ValueError(f"`{name}` expects a network trained on images in [-1, 1], got one for {value_range}.")
        noise = trained_with.get("noise_schedule")
        if noise is None:
            continue
        trained, used = DDPMScheduler.from_config(noise).alphas_cumprod, scheduler.alphas_cumprod.cpu().float()
        is_same = trained.shape == used.shape and torch.allclose(trained, used, rtol=1e-3, atol=1e-6)
        prediction_type = scheduler.config.prediction_type
        if not is_same or noise.get("prediction_type", prediction_type) != prediction_type:
            names = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "prediction_type")
            settings = ", ".join(f"{key} {scheduler.config.get(key)!r}" for key in names if key in noise)
            raise ValueError(
                f"`{name}` expects a network trained on the noise of `scheduler`, {settings}, got one trained on "
                + ", ".join(f"{key} {noise[key]!r}" for key in names if key in noise)
            )


class DiffSCMCounterfactualPipeline(DiffusionPipeline):
    r"""
    Pipeline for counterfactual images: how would this image look, had its cause been different?

    It implements Diff-SCM ([Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166), Alg. 1) for the
    causal graph `image <- class` in Pearl's three steps: *abduction* of the image's exogenous noise by the
    deterministic DDIM map run upwards, the *action* `do(class = intervention)`, and *prediction* by DDIM run
    downwards, guided by the gradient of an anti-causal predictor.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    (downloading, saving, running on a particular device, etc.). A call works on copies of the schedulers, so threads
    can share a pipeline.

    ```py
    >>> from diffscm_diffusers import DiffSCMCounterfactualPipeline
    >>> from PIL import Image

    >>> pipe = DiffSCMCounterfactualPipeline.from_pretrained("checkpoints/diffscm-mnist")
    >>> factual = Image.open("examples/digits/7.png")
    >>> counterfactuals = pipe(factual, ["2", "9"]).images  # had this 7 been a 2? Had it been a 9?
    ```

    Parameters:
        unet ([`UNet2DModel`]):
            An unconditional denoiser, which the predictor guides, or one that knows the classes, for classifier-free
            guidance: its `num_class_embeds` is `num_classes + 1`, the last for no class. A learned variance (twice as
            many output channels) is not used.
        classifier ([`AntiCausalClassifier2DModel`]):
            The anti-causal predictor `p(y | x_t)`, for the same images and diffusion times as `unet`. It names the
            classes, and reads that of factuals which come without.
        scheduler ([`SchedulerMixin`]):
            [`DiffSCMDDIMScheduler`] or [`DiffSCMBELMScheduler`]. Any other scheduler of betas is converted to the
            first, without `clip_sample` and `thresholding`: a map that clips the image cannot be inverted.
        inverse_scheduler ([`SchedulerMixin`], *optional*, defaults to `scheduler.inverse()`): Makes its moves upwards.
        default_guidance_scale (`float`, *optional*, defaults to 1.0): What calls use that give no `guidance_scale`.
        default_num_inference_steps (`int`, *optional*, defaults to 100): The same for `num_inference_steps`.
        default_marginal_abduction (`bool`, *optional*, defaults to `False`): The same for `marginal_abduction`.
        presets (`dict[str, dict]`, *optional*):
            Values of `num_inference_steps`, `guidance_scale`, `guidance_interval` and `abduction` that were measured
            together, by name: `pipe(image, intervention, **pipe.presets["fast"])`.

    Raises:
        ValueError: if `unet` and `classifier` expect different images, if `unet` knows another number of classes, if
            `scheduler` has no betas, if `inverse_scheduler` does not match it, if a network was trained on other noise
            or other values (the `_trained_with` of its configuration), or if calls with the defaults or with one of
            `presets` cannot be made.
        TypeError: if `unet` or `classifier` is no such model.
    """

    model_cpu_offload_seq = "unet"
    _optional_components = ["inverse_scheduler"]
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
        default_marginal_abduction: bool = False,
    ):
        super().__init__()

        if not isinstance(getattr(unet, "_orig_mod", unet), UNet2DModel):  # which `torch.compile` wraps
            raise TypeError(f"`unet` expects a UNet2DModel, got {type(unet).__name__}.")
        if not hasattr(classifier, "log_prob_gradient"):
            raise TypeError(f"`classifier` expects an AntiCausalClassifier2DModel, got {type(classifier).__name__}.")
        config, channels, embeds = unet.config, unet.config.in_channels, unet.config.num_class_embeds
        if config.sample_size is None:
            raise ValueError("`unet` expects a `sample_size`, the images' height and width, got None.")
        if config.out_channels not in (channels, 2 * channels):
            got = f"{config.out_channels} and {channels}"
            raise ValueError(f"`unet` expects as many output as input channels, or twice as many, got {got}.")
        for name in ("sample_size", "in_channels"):
            expected, got = config[name], classifier.config.get(name)
            if got != expected:
                raise ValueError(f"`classifier` expects the `{name}` of `unet`, {expected}, got {got}.")
        num_embeds = classifier.config.num_classes + 1
        if embeds not in (None, num_embeds) or config.class_embed_type is not None:
            raise ValueError(
                f"`unet` expects an unconditional denoiser, or one with a `num_class_embeds` of {num_embeds}, the "
                f"classes of `classifier` and none, got one with `num_class_embeds` {embeds} and `class_embed_type` "
                f"{config.class_embed_type!r}."
            )
        presets, names = {} if presets is None else presets, self._preset_arguments
        is_dict = isinstance(presets, dict) and all(isinstance(preset, dict) for preset in presets.values())
        if not is_dict or not all(set(preset) <= set(names) for preset in presets.values()):
            raise ValueError(f"`presets` expects dictionaries with values of {', '.join(names)}, got {presets!r}.")

        if not getattr(scheduler, "is_invertible", False):
            # Imported here only: a saved pipeline brings its schedulers with it.
            from diffscm_diffusers.schedulers import DiffSCMDDIMScheduler

            scheduler = DiffSCMDDIMScheduler.from_noise_schedule(scheduler)
        inverse_scheduler = scheduler.inverse() if inverse_scheduler is None else inverse_scheduler
        scheduler.check_inverse(inverse_scheduler)
        check_trained_with(scheduler, unet=unet, classifier=classifier)

        # Dropout and batch statistics would make an image depend on chance and on its batch.
        self.register_modules(
            unet=unet.eval(), classifier=classifier.eval(), scheduler=scheduler, inverse_scheduler=inverse_scheduler
        )
        self.register_to_config(
            default_guidance_scale=default_guidance_scale,
            default_num_inference_steps=default_num_inference_steps,
            default_marginal_abduction=default_marginal_abduction,
            presets=presets,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)
        self.check_presets()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        # Never a pickle, which can run any code where it is loaded.
        pipe = super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})
        if cls.__module__.split(".")[0] in LOADABLE_CLASSES:  # where the package is, and not this file alone
            from diffscm_diffusers.checksums import check_pipeline

            check_pipeline(pipe, kwargs)
        return pipe

    def save_config(self, save_directory, push_to_hub=False, **kwargs):
        # What `save_pretrained` does last, before it publishes.
        super().save_config(save_directory, push_to_hub, **kwargs)
        if type(self).__module__.split(".")[0] in LOADABLE_CLASSES:
            from diffscm_diffusers.checksums import write_weights_checksums

            write_weights_checksums(self, save_directory)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> DiffusionPipeline:
        """
        Makes a pipeline of another one's networks, which both then share, its settings, and copies of its schedulers.

        Args:
            pipeline ([`DiffusionPipeline`]): Has what `kwargs` leave out. What it has beyond that is not used.
            kwargs: Components and settings, as this class is made with, in place of those of `pipeline`.

        Raises:
            ValueError: if a component is missing, or as the class itself.
            TypeError: if `pipeline` is no pipeline, if `kwargs` has other arguments, or as the class itself.
        """
        # Diffusers' own drops networks whose very class is no annotation, and casts those that are shared.
        if not isinstance(pipeline, DiffusionPipeline):
            raise TypeError(f"`pipeline` expects a pipeline, got {type(pipeline).__name__}.")
        components, settings = cls._get_signature_keys(cls)
        unknown = sorted(set(kwargs) - {*components, *settings})
        if unknown:
            raise TypeError(f"`kwargs` expects components and settings, {components + settings}, got {unknown}.")
        # Diffusers keeps settings that a pipeline in between has no use for under a name with an underscore.
        given = {name.removeprefix("_"): value for name, value in copy.deepcopy(dict(pipeline.config)).items()}
        given = {name: given[name] for name in settings if name in given}
        for name, part in pipeline.components.items():
            if name in components:
                given[name] = part if isinstance(part, torch.nn.Module) else copy.deepcopy(part)
        given.update(kwargs)
        missing = [name for name in components if name not in {*given, *cls._optional_components}]
        if missing:
            got = type(pipeline).__name__
            raise ValueError(f"`pipeline` expects one with {missing}, or those beside it, got a {got}.")
        return cls(**{**dict.fromkeys(cls._optional_components), **given})

    @classmethod
    def _dict_from_json_file(cls, json_file: str) -> dict:
        # The index of a published checkpoint names the copies of this project's files that it holds. Those who have
        # the package get the same classes from there and run no code of the repository.
        config = super()._dict_from_json_file(json_file)
        library = cls.__module__.split(".")[0]
        if library in LOADABLE_CLASSES and isinstance(config.get("_class_name"), list):
            config["_class_name"] = config["_class_name"][1]
            for name, value in config.items():
                if isinstance(value, list) and value[0] is not None and value[0] not in LOADABLE_CLASSES:
                    config[name] = [library, value[1]]
        return config

    @property
    def presets(self) -> dict[str, dict]:
        """`dict[str, dict]`: arguments that were measured together, by name."""
        return {name: dict(preset) for name, preset in self.config.presets.items()}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`tuple[int, int, int]`: channels, height and width of the images."""
        size = self.unet.config.sample_size
        return (self.unet.config.in_channels, *((size, size) if isinstance(size, int) else size))

    def check_presets(self):
        """Checks that calls with the defaults and with each preset can be made."""
        for name, preset in {"default": {}, **self.config.presets}.items():
            steps, scale, interval, abduction = map(preset.get, self._preset_arguments)
            if not getattr(self.inverse_scheduler, "abductions", ()):
                abduction = None  # other schedulers keep the presets of a checkpoint
            try:
                self.check_inputs(abduction=abduction, guidance_interval=interval)
                guidance, _ = self.prepare_guidance(0, scale, interval, 1)
                *schedulers, num_moves = self.prepare_schedulers(steps, abduction=abduction, guidance=guidance)
                for scheduler in schedulers:
                    scheduler.start(torch.zeros(1, *self.image_shape), num_moves)
            except (TypeError, ValueError) as error:
                settings = "`default_num_inference_steps` and `default_guidance_scale`"
                settings = settings if name == "default" else f"the entry {name!r} of `presets`"
                raise type(error)(f"A call with {settings} cannot be made: {error}") from error

    def check_inputs(
        self,
        strength: float = 1.0,
        eta: float = 0.0,
        abduction: str | None = None,
        guidance_interval: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable | None = None,
        num_draws: int | None = None,
        marginal_abduction: bool | None = None,
    ):
        """Checks the arguments of a call that say how it is made."""
        last = self.scheduler.config.num_train_timesteps - 1
        interval = (0, last) if guidance_interval is None else guidance_interval
        is_pair = isinstance(interval, (tuple, list)) and list(map(type, interval)) == [int, int]
        is_batch_size, is_num_draws = (n is None or (type(n) is int and n > 0) for n in (batch_size, num_draws))
        is_marginal = marginal_abduction in (None, True, False)
        is_interval = is_pair and 0 <= interval[0] <= interval[1] <= last
        abductions = (None, *getattr(self.inverse_scheduler, "abductions", ()))
        for name, value, is_valid, expected in (
            ("strength", strength, isinstance(strength, (int, float)) and 0 < strength <= 1, "a number in (0, 1]"),
            ("eta", eta, isinstance(eta, (int, float)) and 0 <= eta <= 1, "a number in [0, 1]"),
            ("abduction", abduction, abduction in abductions, f"one of {abductions} with this inverse scheduler"),
            ("guidance_interval", guidance_interval, is_interval, f"two timesteps from 0 to {last}, the lower first"),
            ("batch_size", batch_size, is_batch_size, "a whole number of at least 1"),
            ("num_draws", num_draws, is_num_draws, "a whole number of at least 1"),
            ("marginal_abduction", marginal_abduction, is_marginal, "True, False or None"),
            ("output_type", output_type, output_type in ("pil", "np", "pt"), "'pil', 'np' or 'pt'"),
        ):
            if not is_valid:
                raise ValueError(f"`{name}` expects {expected}, got {value!r}.")
        if eta > 0 and "eta" not in inspect.signature(self.scheduler.step).parameters:
            raise ValueError(f"`eta` expects 0 with {type(self.scheduler).__name__}, got {eta}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` expects a `torch.Generator`, got {type(generator).__name__}.")
        if callback_on_step_end is not None and not callable(callback_on_step_end):
            raise TypeError(f"`callback_on_step_end` expects a function, got {type(callback_on_step_end).__name__}.")

    def prepare_image(self, image: PIL.Image.Image | np.ndarray | torch.Tensor | list) -> torch.Tensor:
        """Checks factual images; returns them as float32 in [-1, 1], `(num_factuals, channels, height, width)`."""
        images = image if isinstance(image, list) else [image]
        modes = sorted({i.mode for i in images if isinstance(i, PIL.Image.Image)} - {"L", "RGB"})
        if modes:
            raise ValueError(
                f"`image` expects PIL images of mode 'L' or 'RGB', got {modes}. `Image.convert` makes one of them; "
                "before, put what is transparent on a background, and rescale more than 8 bits to [0, 255]."
            )
        # Photos say by EXIF how they are to be turned.
        images = [np.asarray(PIL.ImageOps.exif_transpose(i)) if isinstance(i, PIL.Image.Image) else i for i in images]
        kinds = sorted({type(i).__name__ for i in images})
        if not all(isinstance(i, (np.ndarray, torch.Tensor)) for i in images) or len(kinds) > 1:
            raise TypeError(f"`image` expects PIL images, NumPy arrays or torch tensors, one or a list, got {kinds}.")
        shapes = sorted({tuple(i.shape) for i in images})
        if len(shapes) != 1 or len(shapes[0]) < 2:
            raise ValueError(f"`image` expects at least one image, all of one shape, got the shapes {shapes}.")

        channels, height, width = self.image_shape
        if isinstance(images[0], np.ndarray):
            images = torch.from_numpy(np.stack(images))
            # Greyscale arrays may come without an axis for the channel.
            if images.ndim == 3 or (channels == 1 and tuple(images.shape[-2:]) == (height, width)):
                images = images[..., None]
            images = images.movedim(-1, -3)
        else:
            images = torch.stack(images)
        # Without a list around it, a batch was wrapped in one above.
        images = images.flatten(0, 1) if images.ndim == 5 else images
        if tuple(images.shape[1:]) != self.image_shape or len(images) == 0:
            raise ValueError(
                f"`image` expects images with {channels} channel(s) of {height} x {width} pixels, got a batch of "
                f"shape {tuple(images.shape)}."
            )
        if images.dtype == torch.uint8:
            images = images.float() / 255
        elif not images.is_floating_point():
            raise TypeError(f"`image` expects uint8 in [0, 255] or floats in [0, 1], got {images.dtype}.")
        images = images.to(device=self._execution_device, dtype=torch.float32)
        low, high = torch.aminmax(images)
        if not (low >= 0 and high <= 1):  # also where either is NaN
            raise ValueError(f"`image` expects values in [0, 1], got values from {low:.4g} to {high:.4g}.")
        # Strides that depend on where the images came from would make `torch.compile` compile the networks anew.
        return self.image_processor.normalize(images).clone(memory_format=torch.contiguous_format)

    def prepare_exogenous_noise(self, exogenous_noise: torch.Tensor) -> torch.Tensor:
        """Checks exogenous noise and returns it on the pipeline's device."""
        if not torch.is_tensor(exogenous_noise):
            raise TypeError(f"`exogenous_noise` expects a tensor, got {type(exogenous_noise).__name__}.")
        is_finite = exogenous_noise.isfinite().all()
        is_batch = exogenous_noise.ndim > 3 and len(exogenous_noise) > 0
        if not is_finite or not is_batch or tuple(exogenous_noise.shape[-3:]) != self.image_shape:
            raise ValueError(
                f"`exogenous_noise` expects finite values of shape (num_factuals, *{self.image_shape}), got "
                f"{'' if is_finite else 'NaN or infinity in '}the shape {tuple(exogenous_noise.shape)}."
            )
        return exogenous_noise.to(self._execution_device)

    def prepare_guidance(
        self,
        classes: int | str | list[int | str] | np.ndarray | torch.Tensor | None,
        guidance_scale: float | list[float] | torch.Tensor | None,
        guidance_interval: tuple[int, int] | None,
        num_factuals: int,
        argument: str = "intervention",
    ) -> tuple[Guidance | None, int]:
        """Checks classes and scales. Returns what guides, `None` for scale 0, and the number of images."""
        scale = self.config.default_guidance_scale if guidance_scale is None else guidance_scale
        scale = scale.tolist() if isinstance(scale, (torch.Tensor, np.ndarray, np.generic)) else scale
        scales = list(scale) if isinstance(scale, (list, tuple)) else [scale]
        if not scales or not all(type(s) in (int, float) and 0 <= s < float("inf") for s in scales):
            raise ValueError(f"`guidance_scale` expects numbers of at least 0, one or a list, got {scale!r}.")
        if classes is None and argument == "factual_class":
            return None, num_factuals
        if classes is None and max(scales) > 0:
            raise ValueError("`intervention` expects a class unless `guidance_scale` is 0, got None.")
        indices = [0] if classes is None else self.classifier.class_indices(classes, argument)
        num_images = max(num_factuals, len(indices))
        # One factual may meet several interventions, but comes from one class.
        num_classes = num_factuals if num_factuals > 1 or argument == "factual_class" else num_images
        for name, kind, values, number in (
            (argument, "class", indices, num_classes),
            ("guidance_scale", "number", scales, num_images),
        ):
            if len(values) not in (1, number):
                got = f"{len(values)} for {number} image(s)"
                raise ValueError(f"`{name}` expects one {kind} for all images, or one per image, got {got}.")
        if max(scales) == 0:
            return None, num_images
        target = torch.tensor(indices, device=self._execution_device).expand(num_images)
        scale = scales[0] if len(scales) == 1 else torch.tensor(scales, device=target.device)[:, None, None, None]
        return Guidance(target, scale, guidance_interval or (0, len(self.scheduler.alphas_cumprod))), num_images

    def prepare_abduction(
        self,
        images: torch.Tensor,
        factual_class: int | str | list[int | str] | np.ndarray | torch.Tensor | None,
        marginal_abduction: bool | None,
        guidance_scale: float | list[float] | torch.Tensor | None,
        guidance_interval: tuple[int, int] | None,
        batch_size: int | None,
    ) -> Guidance | None:
        """Returns what guides abduction: the factual's class, given or read by the predictor; `None`: nothing."""
        if marginal_abduction is None:
            marginal_abduction = factual_class is None and self.config.default_marginal_abduction
        if marginal_abduction and factual_class is not None:
            raise ValueError(f"`factual_class` expects None with `marginal_abduction`, got {factual_class!r}.")
        # Until it is read, any class stands for that of the factual.
        classes = 0 if factual_class is None and not marginal_abduction else factual_class
        how = (guidance_scale, guidance_interval, len(images), "factual_class")
        guidance, _ = self.prepare_guidance(classes, *how)
        if guidance is not None and factual_class is None:
            batches = images.to(self.classifier.dtype).split(batch_size or len(images))
            logits = torch.cat([self.classifier(batch, 0).logits for batch in batches])
            if not logits.isfinite().all():
                raise ValueError("`classifier` expects to read the factuals' classes, got NaN or infinity as logits.")
            guidance.target = logits.argmax(dim=1)
        return guidance

    def prepare_schedulers(
        self,
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        abduction: str | None = None,
        guidance: Guidance | None = None,
    ) -> tuple[SchedulerMixin, SchedulerMixin, int]:
        """Returns the call's own copies of the schedulers, with their timesteps, and the number of moves to make."""
        if not getattr(self.scheduler, "is_invertible", False):
            raise ValueError(
                "`scheduler` expects one whose moves can be inverted, such as DiffSCMDDIMScheduler without clipping, "
                f"got {type(self.scheduler).__name__}. Give another one to a new pipeline, which converts it."
            )
        self.scheduler.check_inverse(self.inverse_scheduler)
        check_trained_with(self.scheduler, unet=self.unet, classifier=self.classifier)
        steps = self.config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
        scheduler, inverse_scheduler = copy.deepcopy(self.scheduler), copy.deepcopy(self.inverse_scheduler)
        inverse_scheduler.set_timesteps(steps, **({} if abduction is None else {"evaluate_at": abduction}))
        scheduler.set_timesteps(steps)
        num_moves = round(steps * strength)
        scheduler.check_num_moves(num_moves)
        if guidance is not None:
            low, high = guidance.interval
            timesteps = scheduler.timesteps[-num_moves:].tolist()
            if not any(low <= timestep <= high for timestep in timesteps):
                raise ValueError(
                    f"`guidance_interval` expects some of the prediction's timesteps, from {timesteps[-1]} to "
                    f"{timesteps[0]}, got {guidance.interval}: guidance would not act. Widen it, or raise `strength`."
                )
        return scheduler, inverse_scheduler, num_moves

    def predict_noise(self, sample: torch.Tensor, timestep: int, guidance: Guidance | None = None) -> torch.Tensor:
        r"""
        Evaluates the denoiser under `guidance`, in the type that it predicts, in float32. An unconditional one meets
        the anti-causal predictor: `eps - s * sqrt(1 - abar_t) * grad log p(y | x_t)` (paper, Eq. 7 and Alg. 1). One
        that knows the classes needs none: `eps(x_t) + s * (eps(x_t | y) - eps(x_t))` ([Ho & Salimans,
        2022](https://huggingface.co/papers/2207.12598)), where scale 1 leaves but one evaluation.

        Args:
            sample (`torch.Tensor` of shape `(batch, channels, height, width)`): Noisy images.
            timestep (`int`): Their diffusion time.
            guidance (`Guidance`, *optional*): What guides the images. Default: nothing.
        """
        # A tensor, as `torch.compile` would compile the networks anew for every number.
        t = torch.tensor(timestep, device=sample.device)
        if guidance is not None and not guidance.interval[0] <= timestep <= guidance.interval[1]:
            guidance = None

        def denoise(sample, *class_labels):
            # A learned variance is the second half of the channels; the deterministic moves have no use for it.
            return self.unet(sample.to(self.unet.dtype), t, *class_labels).sample.float()[:, : sample.shape[1]]

        if self.unet.config.num_class_embeds is not None:
            no_class = torch.full((len(sample),), self.classifier.config.num_classes, device=sample.device)
            if guidance is None:
                return denoise(sample, no_class)
            if not torch.is_tensor(guidance.scale) and guidance.scale == 1:
                return denoise(sample, guidance.target)
            both = denoise(torch.cat([sample, sample]), torch.cat([no_class, guidance.target]))
            unconditional, conditional = both.chunk(2)
            return unconditional + guidance.scale * (conditional - unconditional)

        prediction = denoise(sample)
        alpha_prod = self.scheduler.alphas_cumprod[timestep].item()
        if guidance is None or alpha_prod == 0:  # Pure noise holds no trace of the class: the true gradient is zero.
            return prediction
        gradient, _ = self.classifier.log_prob_gradient(sample, t, guidance.target)
        shift = -guidance.scale * (1 - alpha_prod) ** 0.5
        if self.scheduler.config.prediction_type == "sample":
            shift = shift * -(((1 - alpha_prod) / alpha_prod) ** 0.5)
        elif self.scheduler.config.prediction_type == "v_prediction":
            shift = shift / alpha_prod**0.5
        return prediction + shift * gradient

    def check_finite(self, process: str, timesteps: list[int], finite: list[torch.Tensor]):
        """Raises a `ValueError` that says since which of a process' steps samples are not finite, and why."""
        steps = torch.stack(finite).logical_not().nonzero().flatten().tolist()
        if steps:
            models = {name: part for name, part in self.components.items() if isinstance(part, torch.nn.Module)}
            broken = [name for name, m in models.items() if not all(w.isfinite().all() for w in m.parameters())]
            raise ValueError(
                f"The {process} is not finite since step {steps[0] + 1} of {len(timesteps)}, timestep "
                f"{timesteps[steps[0]]}: "
                + (f"the weights of {broken} are not." if broken else "lower `guidance_scale`, or compute in float32.")
            )

    def _abduct(
        self,
        images: torch.Tensor,
        guidance: Guidance | None,
        schedulers: tuple[SchedulerMixin, SchedulerMixin],
        num_moves: int,
        batch_size: int | None,
        solver: dict | None,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
    ) -> DiffSCMAbductionOutput:
        """Alg. 1, abduction: the moves from the images up to their exogenous noise, implicit ones by a `solver`."""
        prediction_scheduler, scheduler = schedulers
        lowest_noise = None
        if num_draws is not None:
            draws = torch.arange(len(images), device=images.device).repeat(num_draws)
            images, guidance = images[draws], None if guidance is None else guidance[draws]
            lowest_noise = randn_tensor(images.shape, generator, images.device, images.dtype)
        batch_size = batch_size or len(images)
        outputs, remainders = [], []
        with self.progress_bar(total=-(-len(images) // batch_size) * num_moves) as progress_bar:
            progress_bar.set_description("Abduction")
            for start in range(0, len(images), batch_size):
                batch = slice(start, start + batch_size)
                batch_guidance = None if guidance is None else guidance[batch]
                if lowest_noise is None:
                    sample, timesteps = scheduler.start(images[batch], num_moves)
                else:
                    sample, timesteps = scheduler.start(images[batch], num_moves, noise=lowest_noise[batch])
                    # The noise at the lowest level is exogenous as well: what the last move down leaves of the image.
                    last = prediction_scheduler.timesteps[-1].item()
                    prediction = self.predict_noise(sample, last, batch_guidance)
                    remainders.append(images[batch] - prediction_scheduler.step(prediction, last, sample).prev_sample)
                prediction, residual = None, sample.new_zeros(len(sample))
                num_evaluations = torch.full((len(sample),), len(remainders[:1]), device=sample.device)
                finite = []  # looked at when all steps are made, as each look makes the CPU wait for a GPU
                for timestep in timesteps:
                    if solver is None:
                        model_input = scheduler.scale_model_input(sample, timestep)
                        prediction = self.predict_noise(model_input, timestep, batch_guidance)
                        sample = scheduler.step(prediction, timestep, sample).prev_sample
                        num_evaluations += 1
                    else:  # the last move's prediction is the next one's first guess
                        solution = scheduler.solve(
                            self.predict_noise, timestep, sample, prediction, condition=batch_guidance, **solver
                        )
                        sample, prediction = solution.prev_sample, solution.model_output
                        residual = torch.maximum(residual, solution.residual)
                        num_evaluations += solution.num_evaluations
                    finite.append(sample.isfinite().all())
                    progress_bar.update()
                self.check_finite("abduction", timesteps, finite)
                outputs.append((scheduler.finish(sample), residual, num_evaluations))

        noise, residual, num_evaluations = map(torch.cat, zip(*outputs, strict=True))
        if solver is not None and (residual > solver["tolerance"]).any():
            warnings.warn(
                f"Implicit abduction of {(residual > solver['tolerance']).sum()} of {len(residual)} image(s) missed "
                f"{solver}; residuals go up to {residual.max():.2g}. Use more steps or iterations.",
                stacklevel=4,  # past the public method and its decorator, to the caller
            )
        residual, target = None if solver is None else residual, None if guidance is None else guidance.target
        remainder = torch.cat(remainders) if remainders else None
        return DiffSCMAbductionOutput(noise, residual, num_evaluations, target, remainder)

    def _predict(
        self,
        exogenous_noise: torch.Tensor,
        guidance: Guidance | None,
        scheduler: SchedulerMixin,
        num_moves: int,
        batch_size: int | None,
        eta: float,
        generator: torch.Generator | None,
        callback_on_step_end: Callable | None,
        remainder: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Alg. 1, action and prediction: the moves down to images in [-1, 1], and `log p(y | image)` of each."""
        batch_size = batch_size or len(exogenous_noise)
        step_kwargs = {"eta": eta, "generator": generator} if eta > 0 else {}
        starts = range(0, len(exogenous_noise), batch_size)
        _, timesteps = scheduler.start(exogenous_noise, num_moves)
        images, log_probs = [], []
        with self.progress_bar(total=len(starts) * len(timesteps)) as progress_bar:
            progress_bar.set_description("Prediction")
            for start in starts:
                batch = slice(start, start + batch_size)
                sample, _ = scheduler.start(exogenous_noise[batch], num_moves)
                batch_guidance, finite = None if guidance is None else guidance[batch], []
                for i, timestep in enumerate(timesteps):
                    model_input = scheduler.scale_model_input(sample, timestep)
                    prediction = self.predict_noise(model_input, timestep, batch_guidance)
                    sample = scheduler.step(prediction, timestep, sample, **step_kwargs).prev_sample
                    if callback_on_step_end is not None:
                        changed = callback_on_step_end(self, i, timestep, {"sample": sample})
                        if not isinstance(changed, (dict, type(None))):
                            raise TypeError(f"`callback_on_step_end` expects to return a dictionary, got {changed!r}.")
                        sample = (changed or {}).get("sample", sample)
                    finite.append(sample.isfinite().all())
                    progress_bar.update()
                self.check_finite("prediction", timesteps, finite)
                image = scheduler.finish(sample).float()
                image = image if remainder is None else image + remainder[batch]
                images.append(image.clamp(-1, 1))  # the range of images, which is all that `postprocess` will show
                if guidance is not None:
                    log_probs.append(self.classifier.log_prob(images[-1], 0, batch_guidance.target))
        log_probs = None if guidance is None else torch.cat(log_probs)
        if log_probs is not None and not log_probs.isfinite().all():
            raise ValueError("`classifier` expects to give finite log-probabilities, got NaN or infinity.")
        return torch.cat(images), log_probs

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
        return_dict: bool = False,
        factual_class: int | str | list[int | str] | np.ndarray | torch.Tensor | None = None,
        guidance_scale: float | list[float] | torch.Tensor | None = None,
        guidance_interval: tuple[int, int] | None = None,
        marginal_abduction: bool | None = None,
    ) -> torch.Tensor | DiffSCMAbductionOutput:
        r"""
        Abduction, the first step of Alg. 1: infers the exogenous noise that the factual images came from.

        Args:
            image, num_inference_steps, strength, batch_size, abduction, factual_class, guidance_scale, \
            guidance_interval, marginal_abduction: See [`~DiffSCMCounterfactualPipeline.__call__`].
            tolerance (`float`, *optional*, defaults to 1e-6):
                The residual at which an implicit move has converged ([`DiffSCMDDIMInverseScheduler.solve`]). A warning
                counts the images that do not get there; they keep the best that was found.
            max_iterations (`int`, *optional*, defaults to 40): The most evaluations for an image's implicit move.
            return_dict (`bool`, *optional*, defaults to `False`):
                Whether to return a [`DiffSCMAbductionOutput`] or its exogenous noise alone.
        """
        self.check_inputs(
            strength, 0.0, abduction, guidance_interval, batch_size=batch_size, marginal_abduction=marginal_abduction
        )
        if not isinstance(tolerance, (int, float)) or not 0 < tolerance < float("inf"):
            raise ValueError(f"`tolerance` expects a finite number above 0, got {tolerance!r}.")
        if type(max_iterations) is not int or max_iterations < 1:
            raise ValueError(f"`max_iterations` expects a whole number of at least 1, got {max_iterations!r}.")
        images = self.prepare_image(image)
        *schedulers, num_moves = self.prepare_schedulers(num_inference_steps, strength, abduction)
        guidance = self.prepare_abduction(
            images, factual_class, marginal_abduction, guidance_scale, guidance_interval, batch_size
        )
        solver = {"tolerance": tolerance, "max_iterations": max_iterations} if abduction == "implicit" else None
        output = self._abduct(images, guidance, schedulers, num_moves, batch_size, solver)
        self.maybe_free_model_hooks()
        return output if return_dict else output.exogenous_noise

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
        guidance_interval: tuple[int, int] | None = None,
    ) -> DiffSCMCounterfactualPipelineOutput | tuple:
        r"""
        Action and prediction, the other steps of Alg. 1: turns exogenous noise into the image that it causes under
        `do(class = intervention)`.

        Args:
            exogenous_noise (`torch.Tensor`):
                From [`~DiffSCMCounterfactualPipeline.abduct`] with the same `num_inference_steps` and `strength`, of
                the shape given there, or drawn from the standard normal distribution.

        The other arguments and the result are those of [`~DiffSCMCounterfactualPipeline.__call__`].
        """
        # 1. Check inputs
        how = (generator, batch_size, output_type, callback_on_step_end)
        self.check_inputs(strength, eta, None, guidance_interval, *how)

        # 2. Prepare the exogenous noise, the intervention and the scheduler
        exogenous_noise = self.prepare_exogenous_noise(exogenous_noise)
        num_factuals, *shape = exogenous_noise.shape
        guidance, num_images = self.prepare_guidance(intervention, guidance_scale, guidance_interval, num_factuals)
        scheduler, _, num_moves = self.prepare_schedulers(num_inference_steps, strength, guidance=guidance)

        # 3. Action and prediction
        how = (scheduler, num_moves, batch_size, eta, generator, callback_on_step_end)
        images, log_probs = self._predict(exogenous_noise.expand(num_images, *shape), guidance, *how)

        # 4. Decode
        self.maybe_free_model_hooks()
        images = self.image_processor.postprocess(images, output_type=output_type)
        output = (images, exogenous_noise, log_probs)
        return DiffSCMCounterfactualPipelineOutput(*output) if return_dict else output

    def sample(
        self,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
        num_images: int = 1,
        generator: torch.Generator | None = None,
        shared_noise: bool = False,
        **kwargs,
    ) -> DiffSCMCounterfactualPipelineOutput | tuple:
        r"""
        Samples the interventional distribution `p(image | do(class = intervention))` (paper, App. F) from drawn noise.

        Args:
            intervention (`int` or `str` or `list` or `torch.Tensor`): One class or several.
            num_images (`int`, *optional*, defaults to 1): Images per class. All of the first class come first.
            generator (`torch.Generator`, *optional*): Makes the draw, and those of `eta > 0`, reproducible.
            shared_noise (`bool`, *optional*, defaults to `False`):
                Whether all classes start from the same noise, which shows their effect alone (paper, Fig. 5).
            kwargs: The other arguments of [`~DiffSCMCounterfactualPipeline.predict`], but for `strength`.

        Returns:
            [`DiffSCMCounterfactualPipelineOutput`] or `tuple`.
        """
        if type(num_images) is not int or num_images < 1:
            raise ValueError(f"`num_images` expects a whole number of at least 1, got {num_images!r}.")
        if kwargs.get("strength", 1) != 1:
            raise ValueError(f"`strength` expects 1 for noise that is drawn, got {kwargs['strength']!r}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` expects a `torch.Generator`, got {type(generator).__name__}.")
        classes = self.classifier.class_indices(intervention, "intervention")
        num_draws = num_images if shared_noise else num_images * len(classes)
        noise = randn_tensor((num_draws, *self.image_shape), generator, self._execution_device, torch.float32)
        if shared_noise:
            noise = noise.repeat(len(classes), 1, 1, 1)
        target = torch.tensor(classes).repeat_interleave(num_images)
        return self.predict(noise, target, generator=generator, **kwargs)

    @torch.no_grad()
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
        abduction: str | None = None,
        guidance_interval: tuple[int, int] | None = None,
        factual_class: int | str | list[int | str] | np.ndarray | torch.Tensor | None = None,
        num_draws: int | None = None,
        marginal_abduction: bool | None = None,
    ) -> DiffSCMCounterfactualPipelineOutput | tuple:
        r"""
        Estimates counterfactuals (paper, Alg. 1): abduction of `image`'s exogenous noise, then prediction under
        `do(class = intervention)`.

        One image and several interventions give one counterfactual per intervention, several images and one
        intervention one per image; as many interventions as images are paired. The noise of each image is abducted
        once, however many interventions it meets.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images, of `unet`'s size: PIL images of mode `"L"` or `"RGB"`, arrays `(height, width,
                channels)` or, in grey, `(height, width)`, tensors `(channels, height, width)`, each alone, in a list
                or, but for PIL, as a batch. Arrays and tensors hold floats in [0, 1] or uint8 in [0, 255].
            intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`, *optional*):
                The class that each image is to have been caused by: an index or a name from `classifier.id2label`.
                Only a reconstruction (`guidance_scale=0`) needs none.
            guidance_scale (`float` or `list[float]` or `torch.Tensor`, *optional*, defaults to the checkpoint's):
                Weight `s` of the anti-causal predictor's gradient, at least 0, for all images or for each
                ([`GuidanceScaleSearch`] finds them). Higher values show the intervention more surely and the factual
                less (paper, App. I); 0 reconstructs the images without the predictor.
            num_inference_steps (`int`, *optional*, defaults to the checkpoint's):
                Number of steps in each direction, from 1 to the scheduler's `num_train_timesteps`.
            strength (`float`, *optional*, defaults to 1.0):
                Fraction of the steps, in (0, 1]. Below 1 abduction stops at a lower noise level and keeps more.
            eta (`float`, *optional*, defaults to 0.0):
                DDIM's `eta`, in [0, 1]. With 0 prediction is deterministic, as a structural equation is; above, each
                step draws fresh noise and forgets part of the exogenous one.
            generator (`torch.Generator`, *optional*): Makes `num_draws` and the draws of `eta > 0` reproducible.
            batch_size (`int`, *optional*): The most images the networks see at once. Draws of `eta > 0` depend on it.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`DiffSCMCounterfactualPipelineOutput`] or a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called after each step of the prediction as `callback_on_step_end(pipe, step, timestep, {"sample":
                noisy_images})`. It returns `None`, or a dictionary that may hold changed images.
            abduction (`str`, *optional*, defaults to the `evaluate_at` of `inverse_scheduler`):
                How the image's noise is found ([`DiffSCMDDIMInverseScheduler`]). `"source"` and `"destination"`
                evaluate the denoiser once in each step, with an error that falls with the number of steps;
                `"implicit"` solves each step, for more evaluations, and recovers the image at any number.
            guidance_interval (`tuple[int, int]`, *optional*):
                The lowest and the highest timestep at which the predictor guides; elsewhere it does not run
                ([Kynkaanniemi et al., 2024](https://huggingface.co/papers/2404.07724)). Default: at all of them.
            factual_class (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`, *optional*):
                The class that caused each factual, one for all or one per image. Abduction then climbs the guided
                moves that prediction descends: the noise tells less of the class, and `do(class = factual_class)`
                gives the factual back. Default: the class that the predictor reads; `abduction.factual_class` of the
                output says which.
            num_draws (`int`, *optional*):
                How many counterfactuals to draw of each. A draw starts abduction from the lowest noise level, and what
                the last move down leaves out of the factual is kept. The spread of several tells what the image leaves
                open ([`~DiffSCMCounterfactualPipelineOutput.mean_and_std`]). Default: one, from the clean image.
            marginal_abduction (`bool`, *optional*, defaults to the checkpoint's):
                Whether abduction climbs without guidance, as in the paper; the noise then keeps a trace of the class.

        Raises:
            ValueError: if an argument is out of its range or does not fit the others, if guidance has no step to act
                in, or if the prediction is not finite.
            TypeError: if an argument is of another type.

        Returns:
            [`DiffSCMCounterfactualPipelineOutput`] or `tuple`: images, exogenous noise and log-probabilities.
        """
        # 1. Check inputs
        how = (generator, batch_size, output_type, callback_on_step_end, num_draws, marginal_abduction)
        self.check_inputs(strength, eta, abduction, guidance_interval, *how)

        # 2. Prepare the factual images, what guides, and the schedulers
        images = self.prepare_image(image)
        num_factuals, draws = len(images), num_draws or 1
        guidance, num_images = self.prepare_guidance(intervention, guidance_scale, guidance_interval, num_factuals)
        *schedulers, num_moves = self.prepare_schedulers(num_inference_steps, strength, abduction, guidance)
        factual_guidance = self.prepare_abduction(
            images, factual_class, marginal_abduction, guidance_scale, guidance_interval, batch_size
        )
        solver = {"tolerance": 1e-6, "max_iterations": 40} if abduction == "implicit" else None

        # 3. Abduction
        abducted = self._abduct(
            images, factual_guidance, schedulers, num_moves, batch_size, solver, num_draws, generator
        )

        # 4. Action and prediction: every draw of a factual meets every intervention
        rows = torch.arange(draws * num_factuals, device=images.device).view(draws, num_factuals)
        rows, targets = rows.expand(draws, num_images).flatten(), torch.arange(num_images).repeat(draws)
        noise, remainder = (x if x is None else x[rows] for x in (abducted.exogenous_noise, abducted.remainder))
        guidance = None if guidance is None else guidance[targets.to(images.device)]
        how = (schedulers[0], num_moves, batch_size, eta, generator, callback_on_step_end, remainder)
        images, log_probs = self._predict(noise, guidance, *how)

        # 5. Decode
        self.maybe_free_model_hooks()
        images, noise = self.image_processor.postprocess(images, output_type=output_type), abducted.exogenous_noise
        if num_draws is not None:
            stack = {"pil": list, "np": np.stack, "pt": torch.stack}[output_type]
            images = stack([images[draw * num_images : (draw + 1) * num_images] for draw in range(draws)])
            noise = noise.unflatten(0, (draws, num_factuals))
            log_probs = None if log_probs is None else log_probs.unflatten(0, (draws, num_images))
        output = (images, noise, log_probs)
        return DiffSCMCounterfactualPipelineOutput(*output, abducted) if return_dict else output
