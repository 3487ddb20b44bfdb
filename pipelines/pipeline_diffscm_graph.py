# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import copy
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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
class DiffSCMGraphAbductionOutput(BaseOutput):
    """
    The output of [`DiffSCMGraphCounterfactualPipeline.abduct`]: all that prediction needs. `num_samples` is the number
    of factuals, with draws times theirs, one draw of all factuals after the other.

    Args:
        attributes (`dict[str, torch.Tensor]`): Value of each attribute of each factual, shape `(num_factuals,)`.
        read_attributes (`tuple[str, ...]`): The attributes that were not given but read by the predictor.
        attribute_noise (`dict[str, torch.Tensor]`): Exogenous noise of each attribute, first axis `num_samples`.
        exogenous_noise (`torch.Tensor` of shape `(num_samples, channels, height, width)`):
            The spatial part of the image's exogenous noise; with a [`DiffSCMBELMScheduler`] `(num_samples, 2, ...)`.
        code (`torch.Tensor` of shape `(num_samples, code_dim)`, *optional*): Its semantic part, with an encoder.
        remainder (`torch.Tensor` of shape `(num_samples, channels, height, width)`, *optional*):
            Its lowest level, with draws or `dequantize`: what the last move leaves out of the image, in [-1, 1].
        deviation (`torch.Tensor` of shape `(num_samples, code_dim)`, *optional*):
            How draws of the code deviate under other causes ([`SemanticEncoder2DModel.transfer`]).
        fresh_noise (`torch.Tensor` of shape `(num_samples, channels, height, width)`, *optional*):
            What the spatial part of draws goes over to under other causes (`noise_decay`).
        guidance_scale (`float` or `dict[str, float]`): The scale that was used.
        guidance (`Guidance`): What it meant for the image's parents.
        num_inference_steps (`int`): Number of moves.
        num_draws (`int`, *optional*): Number of draws.
    """

    attributes: dict[str, torch.Tensor]
    read_attributes: tuple[str, ...]
    attribute_noise: dict[str, torch.Tensor]
    exogenous_noise: torch.Tensor
    code: torch.Tensor | None
    remainder: torch.Tensor | None
    deviation: torch.Tensor | None
    fresh_noise: torch.Tensor | None
    guidance_scale: float | dict[str, float]
    guidance: "Guidance"
    num_inference_steps: int
    num_draws: int | None


@dataclass
class DiffSCMGraphPipelineOutput(BaseOutput):
    """
    The output of [`DiffSCMGraphCounterfactualPipeline`]. With `num_draws`, images and all tensors but `attributes`
    have a first axis of that size, and PIL images a list for each draw.

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            PIL images, or in [0, 1] an array `(batch, height, width, channels)` or a tensor `(batch, channels, ...)`.
        attributes (`dict[str, torch.Tensor]`):
            Value of each attribute of each factual, shape `(num_factuals,)`: float32 in the node's unit for continuous
            nodes, int64 indices of labels for the others.
        counterfactual_attributes (`dict[str, torch.Tensor]`): The same under the intervention, shape `(batch,)`.
        exogenous_noise (`torch.Tensor` of shape `(num_factuals, channels, height, width)`):
            The spatial part of the image's exogenous noise; with a [`DiffSCMBELMScheduler`] `(num_factuals, 2, ...)`.
        code (`torch.Tensor` of shape `(num_factuals, code_dim)`, *optional*): Its semantic part, with an encoder.
        attribute_noise (`dict[str, torch.Tensor]`): Exogenous noise of each attribute, first axis `num_factuals`.
        outside_support (`torch.Tensor` of shape `(batch,)`):
            `torch.bool`: where the counterfactual's attributes are less probable together than all but 1 % of the
            training data, so that the image is an extrapolation.
        read_attributes (`tuple[str, ...]`): The attributes that were not given but read by the predictor.
        remainder (`torch.Tensor` of shape `(num_factuals, channels, height, width)`, *optional*):
            The lowest level of the image's noise, with draws or `dequantize`: what the last move leaves out of the
            image, in [-1, 1].
    """

    images: list | np.ndarray | torch.Tensor
    attributes: dict[str, torch.Tensor]
    counterfactual_attributes: dict[str, torch.Tensor]
    exogenous_noise: torch.Tensor
    code: torch.Tensor | None
    attribute_noise: dict[str, torch.Tensor]
    outside_support: torch.Tensor
    read_attributes: tuple[str, ...]
    remainder: torch.Tensor | None = None

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


@dataclass(frozen=True)
class Guidance:
    """
    How strongly each of the image's parents acts.

    Args:
        scales (`tuple[float, ...]`): The scale of each parent.
        passes (`tuple[tuple[tuple[bool, ...], float], ...]`):
            What a conditional denoiser is evaluated with: the parents that it is told, and the prediction's weight.
    """

    scales: tuple[float, ...]
    passes: tuple[tuple[tuple[bool, ...], float], ...]


@dataclass
class Causes:
    """What the networks know of each image's causes: the condition, what the code means under it, and the guidance."""

    condition: torch.Tensor
    decoded: torch.Tensor | None
    guidance: Guidance

    def __getitem__(self, index: slice | torch.Tensor) -> "Causes":
        decoded = None if self.decoded is None else self.decoded[index]
        return Causes(self.condition[index], decoded, self.guidance)


# Copied from pipelines.pipeline_diffscm_counterfactual.check_trained_with
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


def check_causes(graph: Any, **networks: ModelMixin):
    """Raises a `ValueError` if a network says in its configuration that what it was told meant something else."""
    nodes = graph.to_dict()["nodes"]
    for name, network in networks.items():
        trained = network.config.get("_trained_with", {}).get("causes")
        if trained is None:
            continue
        if [cause for cause, _ in trained] != list(graph.image_parents):
            raise ValueError(
                f"`{name}` expects a network trained on the image's parents in `scm.graph`, "
                f"{list(graph.image_parents)}, got one trained on {[cause for cause, _ in trained]}."
            )
        for cause, node in trained:
            if node != nodes[cause]:
                raise ValueError(
                    f"`{name}` expects a network trained on {cause!r} as it is in `scm.graph`, {nodes[cause]}, got "
                    f"one trained on {node}."
                )


# Copied from pipelines.pipeline_diffscm_semantic.check_residual_std
def check_residual_std(unet: ModelMixin, encoder: ModelMixin):
    """Raises a `ValueError` if a denoiser says that it was trained around decoded images of another deviation."""
    trained_with = unet.config.get("_trained_with")
    if trained_with is not None and trained_with.get("residual_std") != encoder.config.residual_std:
        raise ValueError(
            f"`encoder` expects the `residual_std` that `unet` was trained with, {trained_with.get('residual_std')}, "
            f"got {encoder.config.residual_std}."
        )


# Copied from pipelines.pipeline_diffscm_semantic.check_dequantize
def check_dequantize(dequantize: bool, inverse_scheduler: SchedulerMixin):
    """Raises an error unless abduction by `inverse_scheduler` can start as `dequantize` says."""
    if type(dequantize) is not bool:
        raise TypeError(f"`dequantize` expects True or False, got {dequantize!r}.")
    if dequantize and inverse_scheduler.order > 1:
        raise ValueError(
            f"`dequantize` expects False with {type(inverse_scheduler).__name__}, whose way up starts from the image "
            "itself, got True."
        )


# Copied from pipelines.pipeline_diffscm_semantic.check_noise_decay
def check_noise_decay(noise_decay: float, inverse_scheduler: SchedulerMixin):
    """Raises an error unless draws of the spatial noise can be transferred to other causes as `noise_decay` says."""
    if type(noise_decay) not in (int, float):
        raise TypeError(f"`noise_decay` expects a number, got {noise_decay!r}.")
    if not 0 <= noise_decay < float("inf"):
        raise ValueError(f"`noise_decay` expects a finite number from 0, got {noise_decay!r}.")
    if noise_decay > 0 and inverse_scheduler.order > 1:
        raise ValueError(
            f"`noise_decay` expects 0 with {type(inverse_scheduler).__name__}, whose noise is a pair that belongs "
            f"together, got {noise_decay!r}."
        )


class DiffSCMGraphCounterfactualPipeline(DiffusionPipeline):
    r"""
    Pipeline for counterfactual images of a causal graph with several attributes: how would this image look, had its
    thickness been another, with all that follows from it?

    Counterfactuals follow Pearl's three steps. *Abduction* infers the exogenous noise of the attributes by the
    structural causal model, and that of the image by the diffusion's ODE, run upwards under all factual parents. The
    *action* sets the attributes of `do`. *Prediction* computes their descendants anew from the same noise, and runs
    the same ODE downwards under the counterfactual parents.

    The image's mechanism can be given in two ways:

    - `unet` is a [`CausalUNet2DModel`], which is told all parents.
    - `unet` is an unconditional [`UNet2DModel`], and the gradient of a `predictor` of all parents turns its score into
      that of the mechanism, as in the paper, by `eps - sqrt(1 - abar_t) * sum_k grad log p(pa_k | x_t, pa_1, ...,
      pa_{k-1})`.

    With an `encoder`, the image's exogenous noise has a semantic part, a code that is abducted under the factual
    parents and decoded under the counterfactual ones. The denoiser is given the decoded image too, so it knows the
    parents even if it is a [`UNet2DModel`].

    A guidance scale of 1 is the mechanism itself. Others sharpen or weaken how a group of parents acts, in abduction
    and prediction alike; see `guidance_scale` of a call.

    ```py
    >>> from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline

    >>> pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained("checkpoints/diffscm-morphomnist-graph")
    >>> factuals = {"thickness": 2.1, "intensity": 160.0, "digit": "7"}
    >>> counterfactual = pipe(image, attributes=factuals, do={"thickness": 4.0}).images[0]
    ```

    Parameters:
        unet ([`CausalUNet2DModel`] or [`UNet2DModel`]):
            The denoiser. With an encoder, its input channels are the noisy image and the decoded code.
        scheduler ([`SchedulerMixin`]):
            [`DiffSCMDDIMScheduler`] or [`DiffSCMBELMScheduler`]. Any other scheduler of betas is converted to the
            first, without clipping.
        inverse_scheduler ([`SchedulerMixin`] or `None`): Makes its moves upwards. `None`: `scheduler.inverse()`.
        scm ([`StructuralCausalModel`]): The graph, and the mechanisms of the attributes.
        predictor ([`CausalPredictor2DModel`], *optional*):
            The anti-causal predictor of all parents. It reads those of factuals that come without, and guides a
            [`UNet2DModel`].
        encoder ([`SemanticEncoder2DModel`], *optional*):
            Reads a code under the factual parents, and decodes it under others.
        default_num_inference_steps (`int`, *optional*, defaults to 25): What calls use that give none.
        default_guidance_scale (`float` or `dict[str, float]`, *optional*, defaults to 1.0): The same for the scale.
        default_abduction (`str`, *optional*): The same for `abduction`.
        default_tolerance (`float`, *optional*, defaults to 1e-6): The same for the tolerance of implicit abduction.
        dequantize (`bool`, *optional*, defaults to `False`):
            Whether abduction without `num_draws` starts from a draw of the lowest noise level, always the same one for
            an image, instead of from the clean image, whose constant pixels lead to untypical noise that tells the
            causes. What the last move down leaves out of the factual is kept.
        noise_decay (`float`, *optional*, defaults to 0.0):
            How fast the spatial noise of draws loses what it has of the factual's under other causes: the correlation
            is `exp(-noise_decay * distance)` of the conditions, the root of 2 for two classes.

    Raises:
        ValueError: if the networks expect other images, or other parents than those of `scm.graph`, if an
            unconditional denoiser has neither predictor nor encoder, if `scheduler` has no betas, if
            `inverse_scheduler` does not match it, or if a network was trained on other noise, other values or other
            causes (the `_trained_with` of its configuration).
    """

    model_cpu_offload_seq = "unet"
    _exclude_from_cpu_offload = ["scm", "predictor", "encoder"]
    _optional_components = ["inverse_scheduler", "predictor", "encoder"]
    # From those that should stay to those that are set: each is told the ones before it.
    groups = ("kept", "descended", "intervened")

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        inverse_scheduler: SchedulerMixin | None,
        scm: ModelMixin,
        predictor: ModelMixin | None = None,
        encoder: ModelMixin | None = None,
        default_num_inference_steps: int = 25,
        default_guidance_scale: float | dict[str, float] = 1.0,
        default_abduction: str | None = None,
        default_tolerance: float = 1e-6,
        dequantize: bool = False,
        noise_decay: float = 0.0,
    ):
        super().__init__()

        if not isinstance(getattr(unet, "_orig_mod", unet), UNet2DModel):  # which `torch.compile` wraps
            raise TypeError(f"`unet` expects a UNet2DModel, got {type(unet).__name__}.")
        for name, part, method, expected in (
            ("scm", scm, "abduct", "a StructuralCausalModel"),
            ("predictor", predictor, "log_prob", "a CausalPredictor2DModel"),
            ("encoder", encoder, "decode", "a SemanticEncoder2DModel"),
        ):
            if not hasattr(part, method) and (part is not None or name == "scm"):
                raise TypeError(f"`{name}` expects {expected}, got {type(part).__name__}.")
        channels, size, widths = unet.config.out_channels, unet.config.sample_size, scm.graph.condition_widths
        in_channels = channels if encoder is None else 2 * channels
        if unet.config.in_channels != in_channels:
            reason = "the noisy image" if encoder is None else "the noisy image and the decoded code"
            raise ValueError(
                f"`unet` expects {in_channels} input channel(s), {reason}, beside {channels} output channel(s), got "
                f"{unet.config.in_channels}."
            )
        if "condition_widths" not in unet.config and predictor is None and encoder is None:
            raise ValueError(
                "`unet` expects a `CausalUNet2DModel`, which is told the image's parents, or a `predictor` or an "
                f"`encoder` beside it, got a {type(unet).__name__} alone."
            )
        for name, model in (("unet", unet), ("predictor", predictor)):
            if model is not None and "condition_widths" in model.config:
                # As lists, which have an order.
                got = [tuple(pair) for pair in dict(model.config.condition_widths).items()]
                if got != list(widths.items()):
                    raise ValueError(
                        f"`{name}` expects the image's parents in `scm.graph`, {widths}, got {dict(got)}."
                    )
        for name, model in (("predictor", predictor), ("encoder", encoder)):
            if model is not None and (model.config.in_channels, model.config.sample_size) != (channels, size):
                raise ValueError(
                    f"`{name}` expects images of {channels} channel(s), {size} pixels wide and high, as `unet` does, "
                    f"got {model.config.in_channels} channel(s) and {model.config.sample_size} pixels."
                )
        if encoder is not None and encoder.config.condition_dim != sum(widths.values()):
            raise ValueError(
                f"`encoder` expects a `condition_dim` of {sum(widths.values())}, the image's parents in `scm.graph`, "
                f"{widths}, got {encoder.config.condition_dim}."
            )
        if not getattr(scheduler, "is_invertible", False):
            # Imported here only: a saved pipeline brings its schedulers with it.
            from diffscm_diffusers.schedulers import DiffSCMDDIMScheduler

            scheduler = DiffSCMDDIMScheduler.from_noise_schedule(scheduler)
        if inverse_scheduler is None:
            inverse_scheduler = scheduler.inverse()
        scheduler.check_inverse(inverse_scheduler)
        check_dequantize(dequantize, inverse_scheduler)
        check_noise_decay(noise_decay, inverse_scheduler)
        networks = {"unet": unet, "predictor": predictor, "encoder": encoder}
        networks = {name: model for name, model in networks.items() if model is not None}
        check_trained_with(scheduler, **networks)
        check_causes(scm.graph, **networks)
        if encoder is not None:
            check_residual_std(unet, encoder)

        self.register_modules(
            unet=unet.eval(),
            scheduler=scheduler,
            inverse_scheduler=inverse_scheduler,
            scm=scm.eval(),
            predictor=predictor if predictor is None else predictor.eval(),
            encoder=encoder if encoder is None else encoder.eval(),
        )
        self.register_to_config(
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            default_abduction=default_abduction,
            default_tolerance=default_tolerance,
            dequantize=dequantize,
            noise_decay=noise_decay,
        )
        try:
            self.prepare_guidance(default_guidance_scale)
            self.check_inputs(abduction=default_abduction, tolerance=default_tolerance)
            self.prepare_schedulers(None)
        except (TypeError, ValueError) as error:
            settings = ", ".join(f"`{name}`" for name in self.config if name.startswith("default_"))
            raise type(error)(f"A call with {settings} cannot be made: {error}") from error
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @classmethod
    # Copied from pipelines.pipeline_diffscm_counterfactual.DiffSCMCounterfactualPipeline.from_pretrained
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        # Never a pickle, which can run any code where it is loaded.
        pipe = super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})
        if cls.__module__.split(".")[0] in LOADABLE_CLASSES:  # where the package is, and not this file alone
            from diffscm_diffusers.checksums import check_pipeline

            check_pipeline(pipe, kwargs)
        return pipe

    # Copied from pipelines.pipeline_diffscm_counterfactual.DiffSCMCounterfactualPipeline.save_config
    def save_config(self, save_directory, push_to_hub=False, **kwargs):
        # What `save_pretrained` does last, before it publishes.
        super().save_config(save_directory, push_to_hub, **kwargs)
        if type(self).__module__.split(".")[0] in LOADABLE_CLASSES:
            from diffscm_diffusers.checksums import write_weights_checksums

            write_weights_checksums(self, save_directory)

    @classmethod
    # Copied from pipelines.pipeline_diffscm_counterfactual.DiffSCMCounterfactualPipeline.from_pipe
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
    # Copied from pipelines.pipeline_diffscm_counterfactual.DiffSCMCounterfactualPipeline._dict_from_json_file
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
    def image_shape(self) -> tuple[int, int, int]:
        """`tuple[int, int, int]`: channels, height and width of the images."""
        size = self.unet.config.sample_size
        return (self.unet.config.out_channels, *((size, size) if isinstance(size, int) else size))

    # Copied from pipelines.pipeline_diffscm_counterfactual.DiffSCMCounterfactualPipeline.prepare_image
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

    def check_inputs(
        self,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        abduction: str | None = None,
        tolerance: float | None = None,
        max_iterations: int = 40,
        output_type: str = "pil",
    ):
        """Checks the arguments of a call that say how it is made."""
        for name, value in (("num_draws", num_draws), ("batch_size", batch_size)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"`{name}` expects a whole number of at least 1, got {value!r}.")
        abductions = (None, *getattr(self.inverse_scheduler, "abductions", ()))
        if abduction not in abductions:
            raise ValueError(
                f"`abduction` expects one of {abductions} with this inverse scheduler, got {abduction!r}."
            )
        if tolerance is not None and (not isinstance(tolerance, (int, float)) or not 0 < tolerance < float("inf")):
            raise ValueError(f"`tolerance` expects a finite number above 0, got {tolerance!r}.")
        if type(max_iterations) is not int or max_iterations < 1:
            raise ValueError(f"`max_iterations` expects a whole number of at least 1, got {max_iterations!r}.")
        if num_draws is not None and self.inverse_scheduler.order > 1:
            raise ValueError(
                f"`num_draws` expects None with {type(self.inverse_scheduler).__name__}, whose way up starts from the "
                f"image itself, got {num_draws}."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` expects 'pil', 'np' or 'pt', got {output_type!r}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` expects a `torch.Generator`, got {type(generator).__name__}.")

    def prepare_attributes(
        self, attributes: Mapping[str, Any] | None, images: torch.Tensor, batch_size: int
    ) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
        """Checks the factuals' attributes and reads those that are missing; returns the values and what was read."""
        graph, num_factuals = self.scm.graph, len(images)
        values = graph.check_values({} if attributes is None else attributes, num_factuals, "attributes")
        values = {name: value.to(images.device) for name, value in values.items()}
        missing = tuple(name for name in graph.attributes if name not in values)
        unreadable = [name for name in missing if self.predictor is None or name not in graph.image_parents]
        if unreadable:
            reason = "there is no predictor" if self.predictor is None else "it is no parent of the image"
            raise ValueError(
                f"`attributes` expects a value of {', '.join(map(repr, unreadable))}, which cannot be read off the "
                f"image, as {reason}; got {sorted(values)}."
            )
        if missing:
            # What is known is told to the heads that read the rest.
            any_values = graph.values(torch.zeros(num_factuals, sum(graph.condition_widths.values())))
            condition = graph.condition({name: values.get(name, any_values[name]) for name in graph.image_parents})
            known = torch.tensor([name in values for name in graph.image_parents], device=images.device)
            known = known.expand(num_factuals, -1)
            batches = zip(*(x.to(images.device).split(batch_size) for x in (images, condition, known)), strict=True)
            condition = torch.cat([self.predictor.predict(x, 0, c, k) for x, c, k in batches])
            values.update({name: value for name, value in graph.values(condition).items() if name in missing})
        return {name: values[name] for name in graph.attributes}, missing

    def prepare_intervention(
        self, do: Mapping[str, Any] | None, hold: str | Iterable[str], num_factuals: int
    ) -> tuple[dict[str, torch.Tensor], list[str], torch.Tensor]:
        """Checks `do` and `hold`; returns the values to set, the nodes to hold, and each counterfactual's factual."""
        do = {} if do is None else do
        if not isinstance(do, Mapping):
            raise TypeError(f"`do` expects a `dict` of attributes to values, got {type(do).__name__}.")
        lengths = {
            len(value)
            for value in do.values()
            if isinstance(value, (list, tuple)) or (isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim > 0)
        }
        # Several values of one factual: a counterfactual for each.
        num_images = max(1, *lengths) if num_factuals == 1 and lengths else num_factuals
        values = self.scm.graph.check_values(do, num_images, "do")
        if not isinstance(hold, (str, Iterable)):
            raise TypeError(f"`hold` expects the name of a node, or several, got {hold!r}.")
        hold = [hold] if isinstance(hold, str) else list(hold)
        self.scm.graph.check_names(hold, "hold")
        both = [name for name in hold if name in do]
        if both:
            raise ValueError(f"`hold` expects nodes that `do` does not set, got {both[0]!r}, which both name.")
        device = self._execution_device
        factuals = torch.arange(num_images, device=device) % num_factuals
        return {name: value.to(device) for name, value in values.items()}, hold, factuals

    def prepare_guidance(
        self,
        guidance_scale: float | Mapping[str, float] | None = None,
        do: Iterable[str] = (),
        hold: Iterable[str] = (),
    ) -> Guidance:
        r"""
        Checks scales and returns what they mean for the image's parents.

        A conditional denoiser gives the score of the image given any part of its parents. By the chain rule, told the
        groups one after the other, the mechanism's prediction is `eps() + [eps(kept) - eps()] + [eps(kept, descended)
        - eps(kept)] + [eps(kept, descended, intervened) - eps(kept, descended)]`. A group's scale multiplies its
        bracket. The weight of each evaluation is so the difference of two scales, and equal ones need none between
        them.
        """
        given = self.config.default_guidance_scale if guidance_scale is None else guidance_scale
        scales = dict(given) if isinstance(given, Mapping) else dict.fromkeys(self.groups, given)
        if not set(scales) <= set(self.groups) or not all(
            isinstance(s, (int, float)) and not isinstance(s, bool) and 0 <= s < float("inf") for s in scales.values()
        ):
            raise ValueError(
                f"`guidance_scale` expects a number of at least 0, or one for each group of {self.groups}, got "
                f"{given!r}."
            )
        if "condition_widths" not in self.unet.config and self.predictor is None and set(scales.values()) - {1}:
            raise ValueError(f"`guidance_scale` expects 1 without a predictor, got {given!r}.")
        descended = self.scm.graph.descendants(do, hold)
        parents = self.scm.graph.image_parents
        group = {n: "intervened" if n in do else "descended" if n in descended else "kept" for n in parents}

        levels = [name for name in self.groups if name in group.values()]
        told = [set(levels[:i]) for i in range(len(levels) + 1)]
        bounds = [1.0, *(float(scales.get(name, 1.0)) for name in levels), 0.0]
        passes = tuple(
            (tuple(group[name] in names for name in parents), bounds[i] - bounds[i + 1])
            for i, names in enumerate(told)
            if bounds[i] != bounds[i + 1]
        )
        return Guidance(tuple(float(scales.get(group[name], 1.0)) for name in parents), passes)

    def prepare_schedulers(
        self, num_inference_steps: int | None, abduction: str | None = None
    ) -> tuple[SchedulerMixin, SchedulerMixin]:
        """Returns the call's own copies of the schedulers, with their timesteps."""
        if not getattr(self.scheduler, "is_invertible", False):
            raise ValueError(
                "`scheduler` expects one whose moves can be inverted, such as DiffSCMDDIMScheduler without clipping, "
                f"got {type(self.scheduler).__name__}. Give another one to a new pipeline, which converts it."
            )
        self.scheduler.check_inverse(self.inverse_scheduler)
        if num_inference_steps is None:
            num_inference_steps = self.config.default_num_inference_steps
        scheduler, inverse_scheduler = copy.deepcopy(self.scheduler), copy.deepcopy(self.inverse_scheduler)
        inverse_scheduler.set_timesteps(
            num_inference_steps, **({} if abduction is None else {"evaluate_at": abduction})
        )
        scheduler.set_timesteps(num_inference_steps)
        return scheduler, inverse_scheduler

    def predict_noise(self, sample: torch.Tensor, timestep: int, causes: Causes) -> torch.Tensor:
        r"""
        Evaluates the mechanism: what the denoiser predicts of noisy images, given their causes, in float32.

        Args:
            sample (`torch.Tensor` of shape `(batch, channels, height, width)`): Noisy images.
            timestep (`int`): Their diffusion time.
            causes (`Causes`): What is known of their causes.
        """
        # A tensor, as `torch.compile` would compile the networks anew for every number.
        t = torch.tensor(timestep, device=sample.device)
        alpha_prod = self.scheduler.alphas_cumprod[timestep].item()
        prediction_type = self.scheduler.config.prediction_type
        inputs, mean, std = sample, 0.0, 1.0
        if causes.decoded is not None:
            inputs, mean, std = self.encoder.residual_prior(sample, causes.decoded, alpha_prod, prediction_type)
            inputs = torch.cat([inputs, causes.decoded], dim=1)
        inputs = inputs.to(self.unet.dtype)
        if "condition_widths" in self.unet.config:
            passes = causes.guidance.passes
            keep = torch.tensor([told for told, _ in passes], device=sample.device)
            predictions = self.unet(
                inputs.repeat(len(passes), 1, 1, 1),
                t,
                causes.condition.repeat(len(passes), 1),
                None if keep.all() else keep.repeat_interleave(len(sample), dim=0),
            ).sample.float()
            guided = sum(w * p for (_, w), p in zip(passes, predictions.chunk(len(passes)), strict=True))
            return mean + std * guided

        prediction = mean + std * self.unet(inputs, t).sample.float()
        # A denoiser that is given what the code means under the causes is the mechanism already.
        scales = torch.tensor(causes.guidance.scales, device=sample.device) - float(causes.decoded is not None)
        # Pure noise holds no trace of the causes: the true gradient is zero.
        if alpha_prod == 0 or not scales.any():
            return prediction
        gradient, _ = self.predictor.log_prob_gradient(sample, t, causes.condition, scales.expand(len(sample), -1))
        shift = -((1 - alpha_prod) ** 0.5)
        if prediction_type == "sample":
            shift = shift * -(((1 - alpha_prod) / alpha_prod) ** 0.5)
        elif prediction_type == "v_prediction":
            shift = shift / alpha_prod**0.5
        return prediction + shift * gradient

    # Copied from pipelines.pipeline_diffscm_counterfactual.DiffSCMCounterfactualPipeline.check_finite
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

    # Copied from pipelines.pipeline_diffscm_semantic.DiffSCMSemanticCounterfactualPipeline.draw_lowest_noise
    def draw_lowest_noise(self, images: torch.Tensor) -> torch.Tensor:
        """Standard normal noise of each image, always the same for the same image, whatever batch it is in."""
        seeds = [zlib.crc32(image.numpy().tobytes()) for image in images.cpu()]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return randn_tensor(images.shape, generators, images.device, images.dtype)

    # Copied from pipelines.pipeline_diffscm_semantic.DiffSCMSemanticCounterfactualPipeline.transfer_noise
    def transfer_noise(
        self, noise: torch.Tensor, fresh_noise: torch.Tensor, condition: torch.Tensor, other_condition: torch.Tensor
    ) -> torch.Tensor:
        """
        Spatial noise of a draw under other causes: the further they are, the less is known of it, and the more of it
        is fresh. A step of an Ornstein-Uhlenbeck process, whose time is the distance of the causes, keeps its law.
        """
        distance = (other_condition - condition).norm(dim=1)[:, None, None, None]
        correlation = (-self.config.noise_decay * distance).exp()
        return correlation * noise + (1 - correlation.square()).sqrt() * fresh_noise

    def _abduct(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        attributes: Mapping[str, Any] | None,
        do: Iterable[str],
        hold: str | Iterable[str],
        guidance_scale: float | Mapping[str, float] | None,
        num_inference_steps: int | None,
        num_draws: int | None,
        generator: torch.Generator | None,
        batch_size: int | None,
        abduction: str | None,
        tolerance: float | None,
        max_iterations: int,
    ) -> DiffSCMGraphAbductionOutput:
        """Abduction: the attributes' noise, the code, and the moves up under the factual parents."""
        # 1. Check inputs, and read what is missing
        self.check_inputs(num_draws, generator, batch_size, abduction, tolerance, max_iterations)
        abduction = self.config.default_abduction if abduction is None else abduction
        tolerance = self.config.default_tolerance if tolerance is None else tolerance
        images = self.prepare_image(image)
        batch_size = batch_size or len(images) * (num_draws or 1)
        attributes, read_attributes = self.prepare_attributes(attributes, images, batch_size)
        guidance_scale = self.config.default_guidance_scale if guidance_scale is None else guidance_scale
        guidance = self.prepare_guidance(guidance_scale, do, [hold] if isinstance(hold, str) else hold)
        scheduler, inverse_scheduler = self.prepare_schedulers(num_inference_steps, abduction)
        solver = {"tolerance": tolerance, "max_iterations": max_iterations} if abduction == "implicit" else None

        # 2. Attributes and code, with draws from their posterior: what is left open is drawn
        values = attributes
        if num_draws is not None:
            images = images.repeat(num_draws, 1, 1, 1)
            values = {name: value.repeat(num_draws) for name, value in attributes.items()}
        attribute_noise = self.scm.abduct(values, generator)
        condition = self.scm.graph.condition(values)
        code = lowest_noise = deviation = None
        if self.encoder is not None:
            batches = zip(images.split(batch_size), condition.split(batch_size), strict=True)
            outputs = [self.encoder.encode(*batch) for batch in batches]
            code = torch.cat([output.mean for output in outputs])
        if num_draws is not None:
            if code is not None:
                std = torch.cat([output.std for output in outputs])
                code = code + std * randn_tensor(code.shape, generator, code.device, code.dtype)
            lowest_noise = randn_tensor(images.shape, generator, images.device, images.dtype)
            if code is not None and self.encoder.config.transfer_scale > 0:
                deviation = std * randn_tensor(code.shape, generator, code.device, code.dtype)
        elif self.config.dequantize:
            lowest_noise = self.draw_lowest_noise(images)

        # 3. Spatial noise
        noise, remainders, residuals = [], [], []
        starts = range(0, len(images), batch_size)
        with self.progress_bar(total=len(starts) * len(inverse_scheduler.timesteps)) as progress_bar:
            progress_bar.set_description("Abduction")
            for start in starts:
                batch = slice(start, start + batch_size)
                decoded = None if code is None else self.encoder.decode(code[batch], condition[batch])
                causes = Causes(condition[batch], decoded, guidance)
                if lowest_noise is None:
                    sample, timesteps = inverse_scheduler.start(images[batch])
                else:
                    sample, timesteps = inverse_scheduler.start(images[batch], noise=lowest_noise[batch])
                    # The noise at the lowest level is exogenous as well: what the last move down leaves of the image.
                    last = scheduler.timesteps[-1].item()
                    prediction = self.predict_noise(sample, last, causes)
                    remainders.append(images[batch] - scheduler.step(prediction, last, sample).prev_sample)
                prediction, finite = None, []
                for timestep in timesteps:
                    if solver is None:
                        model_input = inverse_scheduler.scale_model_input(sample, timestep)
                        prediction = self.predict_noise(model_input, timestep, causes)
                        sample = inverse_scheduler.step(prediction, timestep, sample).prev_sample
                    else:  # the last move's prediction is the next one's first guess
                        solution = inverse_scheduler.solve(
                            self.predict_noise, timestep, sample, prediction, condition=causes, **solver
                        )
                        sample, prediction = solution.prev_sample, solution.model_output
                        residuals.append(solution.residual.max().item())
                    finite.append(sample.isfinite().all())
                    progress_bar.update()
                self.check_finite("abduction", timesteps, finite)
                noise.append(inverse_scheduler.finish(sample))
        if residuals and max(residuals) > tolerance:
            warnings.warn(
                f"Implicit abduction missed {solver}: residuals go up to {max(residuals):.2g}. Use more steps or "
                "iterations.",
                stacklevel=4,  # past the public method and its decorator, to the caller
            )
        exogenous_noise, fresh_noise = torch.cat(noise), None
        if num_draws is not None and self.config.noise_decay > 0:
            fresh_noise = randn_tensor(exogenous_noise.shape, generator, exogenous_noise.device, exogenous_noise.dtype)
        return DiffSCMGraphAbductionOutput(
            attributes=attributes,
            read_attributes=read_attributes,
            attribute_noise=attribute_noise,
            exogenous_noise=exogenous_noise,
            code=None if code is None else self.encoder.abduct(code, condition),
            remainder=torch.cat(remainders) if remainders else None,
            deviation=deviation,
            fresh_noise=fresh_noise,
            guidance_scale=guidance_scale,
            guidance=guidance,
            num_inference_steps=len(inverse_scheduler.timesteps),
            num_draws=num_draws,
        )

    def _predict(
        self,
        abduction: DiffSCMGraphAbductionOutput,
        do: dict[str, torch.Tensor],
        hold: list[str],
        factuals: torch.Tensor,
        shape: tuple[int, ...],
        batch_size: int | None,
        output_type: str,
        return_dict: bool,
    ) -> DiffSCMGraphPipelineOutput | tuple:
        """
        Action and prediction: the attributes under the intervention, and the moves down under the image's parents.
        `factuals` says which factual each counterfactual is of, and `shape` what axes they get.
        """
        if self.prepare_guidance(abduction.guidance_scale, do, hold) != abduction.guidance:
            raise ValueError(
                "`do` and `hold` expect the attributes that abduction was told, as groups have different scales in "
                f"`guidance_scale` {abduction.guidance_scale}, got {list(do)} and {hold}."
            )
        scheduler, _ = self.prepare_schedulers(abduction.num_inference_steps)

        # 1. Attributes: every draw of a factual meets every intervention on it
        draws, num_factuals = abduction.num_draws or 1, len(next(iter(abduction.attributes.values())))
        factuals = factuals.to(abduction.exogenous_noise.device)
        samples = (torch.arange(draws, device=factuals.device)[:, None] * num_factuals + factuals).flatten()
        values = {name: value[factuals].repeat(draws) for name, value in abduction.attributes.items()}
        values.update({name: value.repeat(draws) for name, value in do.items()})
        noise = {name: value[samples] for name, value in abduction.attribute_noise.items()}
        predicted = self.scm.predict(noise, {name: values[name] for name in (*do, *hold)})
        # What the intervention does not reach keeps its value, free of rounding.
        values.update({name: predicted[name] for name in self.scm.graph.descendants(do, hold)})
        broken = [name for name, value in values.items() if not value.isfinite().all()]
        if broken:
            raise ValueError(f"`scm` expects to predict finite values, got NaN or infinity of {broken}.")
        condition = self.scm.graph.condition(values)
        outside_support = self.scm.log_prob(values) < self.scm.log_prob_quantile
        codes = None if abduction.code is None else abduction.code[samples]
        factual_condition = self.scm.graph.condition(abduction.attributes)[factuals].repeat(draws, 1)
        if abduction.deviation is not None:
            codes = self.encoder.transfer(codes, abduction.deviation[samples], factual_condition, condition)
        exogenous_noise = abduction.exogenous_noise[samples]
        if abduction.fresh_noise is not None:
            exogenous_noise = self.transfer_noise(
                exogenous_noise, abduction.fresh_noise[samples], factual_condition, condition
            )

        # 2. Images
        images = []
        batch_size = batch_size or len(samples)
        starts = range(0, len(samples), batch_size)
        with self.progress_bar(total=len(starts) * len(scheduler.timesteps)) as progress_bar:
            progress_bar.set_description("Prediction")
            for start in starts:
                batch = slice(start, start + batch_size)
                sample, timesteps = scheduler.start(exogenous_noise[batch])
                decoded = None
                if self.encoder is not None:
                    code = self.encoder.predict(codes[batch], condition[batch])
                    decoded = self.encoder.decode(code, condition[batch])
                causes, finite = Causes(condition[batch], decoded, abduction.guidance), []
                for timestep in timesteps:
                    model_input = scheduler.scale_model_input(sample, timestep)
                    prediction = self.predict_noise(model_input, timestep, causes)
                    sample = scheduler.step(prediction, timestep, sample).prev_sample
                    finite.append(sample.isfinite().all())
                    progress_bar.update()
                self.check_finite("prediction", timesteps, finite)
                image = scheduler.finish(sample).float()
                if abduction.remainder is not None:
                    image = image + abduction.remainder[samples[batch]]
                images.append(image.clamp(-1, 1))

        # 3. Decode
        self.maybe_free_model_hooks()
        if outside_support.any():
            warnings.warn(
                f"{outside_support.sum()} of {len(samples)} counterfactuals have attributes that are less probable "
                "together than those of all but 1 % of the training data: their images are extrapolations. The "
                "output's `outside_support` says which.",
                stacklevel=4,  # past the public method and its decorator, to the caller
            )
        images = self.image_processor.postprocess(torch.cat(images), output_type=output_type)
        axes = shape if abduction.num_draws is None else (draws, *shape)
        if output_type == "pil":
            for size in axes[:0:-1]:
                images = [images[i : i + size] for i in range(0, len(images), size)]
        else:
            images = images.reshape(*axes, *images.shape[1:])
        noise, code, attribute_noise = abduction.exogenous_noise, abduction.code, abduction.attribute_noise
        remainder = abduction.remainder
        if abduction.num_draws is not None:
            noise, remainder = (part.unflatten(0, (draws, num_factuals)) for part in (noise, remainder))
            code = None if code is None else code.unflatten(0, (draws, num_factuals))
            attribute_noise = {name: x.unflatten(0, (draws, num_factuals)) for name, x in attribute_noise.items()}
        output = DiffSCMGraphPipelineOutput(
            images=images,
            attributes=abduction.attributes,
            counterfactual_attributes={name: value.reshape(axes) for name, value in values.items()},
            exogenous_noise=noise,
            code=code,
            attribute_noise=attribute_noise,
            outside_support=outside_support.reshape(axes),
            read_attributes=abduction.read_attributes,
            remainder=remainder,
        )
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def abduct(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        attributes: Mapping[str, Any] | None = None,
        do: Iterable[str] = (),
        hold: str | Iterable[str] = (),
        guidance_scale: float | Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        abduction: str | None = None,
        tolerance: float | None = None,
        max_iterations: int = 40,
    ) -> DiffSCMGraphAbductionOutput:
        r"""
        Abduction alone, for several predictions from the same exogenous noise.

        Args:
            image, attributes, guidance_scale, num_inference_steps, num_draws, generator, batch_size, abduction, \
            tolerance, max_iterations: See [`~DiffSCMGraphCounterfactualPipeline.__call__`].
            do, hold (`Iterable[str]`, *optional*):
                Names of the attributes that predictions will set and hold. They matter only where groups have
                different guidance scales, as they make the groups.

        Returns:
            [`DiffSCMGraphAbductionOutput`]: the exogenous noise, and what prediction needs beside it.
        """
        return self._abduct(
            image,
            attributes,
            do,
            hold,
            guidance_scale,
            num_inference_steps,
            num_draws,
            generator,
            batch_size,
            abduction,
            tolerance,
            max_iterations,
        )

    @torch.no_grad()
    def predict(
        self,
        abduction: DiffSCMGraphAbductionOutput,
        do: Mapping[str, Any] | None = None,
        hold: str | Iterable[str] = (),
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> DiffSCMGraphPipelineOutput | tuple:
        r"""
        Action and prediction alone, from what [`~DiffSCMGraphCounterfactualPipeline.abduct`] returned. Steps and
        guidance scales are those of the abduction.

        Args:
            abduction ([`DiffSCMGraphAbductionOutput`]): The factuals' exogenous noise.
            do, hold, batch_size, output_type, return_dict: See [`~DiffSCMGraphCounterfactualPipeline.__call__`].

        Raises:
            ValueError: beside the reasons of a call, if groups have different guidance scales and `do` and `hold` make
                other groups than in the abduction.

        Returns:
            [`DiffSCMGraphPipelineOutput`] or `tuple`: as from a call.
        """
        self.check_inputs(batch_size=batch_size, output_type=output_type)
        num_factuals = len(next(iter(abduction.attributes.values())))
        do, hold, factuals = self.prepare_intervention(do, hold, num_factuals)
        return self._predict(abduction, do, hold, factuals, (len(factuals),), batch_size, output_type, return_dict)

    @torch.no_grad()
    def sweep(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        node: str,
        values: list | np.ndarray | torch.Tensor,
        attributes: Mapping[str, Any] | None = None,
        do: Mapping[str, Any] | None = None,
        hold: str | Iterable[str] = (),
        guidance_scale: float | Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        abduction: str | None = None,
        tolerance: float | None = None,
        max_iterations: int = 40,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> DiffSCMGraphPipelineOutput | tuple:
        r"""
        Counterfactuals of each factual under each of several values of one attribute. Each factual is abducted once.

        Args:
            node (`str`): The attribute.
            values (`list` or `np.ndarray` or `torch.Tensor`): Its values.
            image, attributes, do, hold, guidance_scale, num_inference_steps, num_draws, generator, batch_size, \
            abduction, tolerance, max_iterations, output_type, return_dict:
                See [`~DiffSCMGraphCounterfactualPipeline.__call__`]; `do` sets other attributes, to one value or one
                per factual.

        Raises:
            ValueError: beside the reasons of a call, if `values` is empty, or `do` or `hold` names `node`.

        Returns:
            [`DiffSCMGraphPipelineOutput`] or `tuple`: as from a call, but counterfactuals have the axes
            `(num_factuals, num_values)`, and PIL images a list for each factual.
        """
        self.check_inputs(num_draws, generator, batch_size, abduction, output_type=output_type)
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) == 0:
            raise ValueError(f"`values` expects at least one value of {node!r} in a list or an array, got {values!r}.")
        if node in ({} if do is None else do):
            raise ValueError(f"`do` expects other attributes than `node`, got {node!r}.")
        num_factuals = len(self.prepare_image(image))
        swept, hold, _ = self.prepare_intervention({node: values}, hold, 1)
        others, _, factuals = self.prepare_intervention(do, hold, num_factuals)
        if len(factuals) != num_factuals:
            raise ValueError(f"`do` expects one value of each attribute for one factual, got {len(factuals)}.")
        factuals = factuals.repeat_interleave(len(values))
        do = {name: value.repeat_interleave(len(values)) for name, value in others.items()}
        do[node] = swept[node].repeat(num_factuals)
        noise = self._abduct(
            image,
            attributes,
            do,
            hold,
            guidance_scale,
            num_inference_steps,
            num_draws,
            generator,
            batch_size,
            abduction,
            tolerance,
            max_iterations,
        )
        return self._predict(
            noise, do, hold, factuals, (num_factuals, len(values)), batch_size, output_type, return_dict
        )

    @torch.no_grad()
    def __call__(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        attributes: Mapping[str, Any] | None = None,
        do: Mapping[str, Any] | None = None,
        hold: str | Iterable[str] = (),
        guidance_scale: float | Mapping[str, float] | None = None,
        num_inference_steps: int | None = None,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        abduction: str | None = None,
        tolerance: float | None = None,
        max_iterations: int = 40,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> DiffSCMGraphPipelineOutput | tuple:
        r"""
        Estimates counterfactuals: abduction of the factuals' exogenous noise, then prediction under an intervention.

        One image and several values in `do` give one counterfactual per value. With several images, `do` has one value
        for all of them or one per image; for each of several images under each of several values, see
        [`~DiffSCMGraphCounterfactualPipeline.sweep`].

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images: PIL images of mode `"L"` or `"RGB"`, arrays `(height, width, channels)` or, in
                grey, `(height, width)`, tensors `(channels, height, width)`, each alone, in a list or, but for PIL, as
                a batch. Arrays and tensors hold floats in [0, 1] or uint8 in [0, 255].
            attributes (`dict[str, Any]`, *optional*):
                The factuals' attributes: one value for all images or one per image, numbers in the node's unit, or
                labels or their indices. Parents of the image that are missing are read off it by the predictor; the
                output says which.
            do (`dict[str, Any]`, *optional*):
                The intervention: the attributes that are set, and their values. Default: none, which gives the factual
                back.
            hold (`str` or `Iterable[str]`, *optional*):
                Attributes that keep their factual value, whatever becomes of their parents. So the intervention's
                effect through them is left out.
            guidance_scale (`float` or `dict[str, float]`, *optional*, defaults to the checkpoint's):
                How strongly the image's parents act, in abduction and prediction: one number, or one for each group of
                parents, `"intervened"`, `"descended"` (those that the intervention changes) and `"kept"` (all others);
                a group that is not named has 1. At 1 for all the networks are evaluated once a step.
            num_inference_steps (`int`, *optional*, defaults to the checkpoint's):
                Number of steps in each direction, from 1 to the scheduler's `num_train_timesteps`.
            num_draws (`int`, *optional*):
                How many counterfactuals to draw of each. A draw takes all exogenous noise from its posterior: of
                discrete attributes, of the code, and of the image's lowest noise level, where a clean image leaves it
                open. Under other causes the code deviates as the encoder's `transfer_scale` says, and the spatial
                noise as `noise_decay` says. Their spread is the uncertainty that remains. Default: one, in which only
                the noise of discrete attributes is left to chance.
            generator (`torch.Generator`, *optional*): Makes the draws reproducible.
            batch_size (`int`, *optional*):
                The most images that are worked on at once. Default: all. Scales other than 1 evaluate a conditional
                denoiser up to four times as many.
            abduction (`str`, *optional*, defaults to `default_abduction`, or else to the inverse scheduler's):
                How the moves up are made, one of the inverse scheduler's `abductions`: `"source"` and `"destination"`
                are explicit, `"implicit"` is exact and takes several evaluations of each move.
            tolerance (`float`, *optional*, defaults to `default_tolerance`):
                The residual at which an implicit move has converged; see [`DiffSCMDDIMInverseScheduler.solve`]. A
                warning says if it is missed.
            max_iterations (`int`, *optional*, defaults to 40): The most evaluations for an implicit move.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`DiffSCMGraphPipelineOutput`] or a tuple.

        Raises:
            ValueError: if an argument is out of its range or does not fit the others, if an attribute is unknown,
                missing and unreadable, or has a value that it cannot have, or if the prediction is not finite.
            TypeError: if an argument is of another type.

        Returns:
            [`DiffSCMGraphPipelineOutput`] or `tuple`: images, attributes before and after, exogenous noise, and where
            the intervention leaves the support of the training data, of which a warning tells too.
        """
        # Before the long part
        self.check_inputs(num_draws, generator, batch_size, abduction, output_type=output_type)
        do, hold, factuals = self.prepare_intervention(do, hold, len(self.prepare_image(image)))
        noise = self._abduct(
            image,
            attributes,
            do,
            hold,
            guidance_scale,
            num_inference_steps,
            num_draws,
            generator,
            batch_size,
            abduction,
            tolerance,
            max_iterations,
        )
        return self._predict(noise, do, hold, factuals, (len(factuals),), batch_size, output_type, return_dict)
