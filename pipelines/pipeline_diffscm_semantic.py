# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import copy
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


@dataclass
class DiffSCMSemanticPipelineOutput(BaseOutput):
    """
    The output of [`DiffSCMSemanticCounterfactualPipeline`]. With `num_draws`, images and all tensors but
    `factual_class` have a first axis of that size, and PIL images a list for each draw.

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            PIL images, or in [0, 1] an array `(batch, height, width, channels)` or a tensor `(batch, channels, ...)`.
        exogenous_noise (`torch.Tensor` of shape `(num_factuals, channels, height, width)`):
            The spatial part of the exogenous noise, float32.
        code (`torch.Tensor` of shape `(num_factuals, code_dim)`): The semantic part of the exogenous noise, float32.
        factual_class (`torch.Tensor` of shape `(num_factuals,)`):
            The class under which each factual was abducted: the one given, or the one that the predictor reads.
        remainder (`torch.Tensor` of shape `(num_factuals, channels, height, width)`, *optional*):
            Its lowest level, with draws or `dequantize`: what the last move leaves out of the image, in [-1, 1].
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    exogenous_noise: torch.Tensor
    code: torch.Tensor
    factual_class: torch.Tensor
    remainder: torch.Tensor | None = None

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


def check_residual_std(unet: ModelMixin, encoder: ModelMixin):
    """Raises a `ValueError` if a denoiser says that it was trained around decoded images of another deviation."""
    trained_with = unet.config.get("_trained_with")
    if trained_with is not None and trained_with.get("residual_std") != encoder.config.residual_std:
        raise ValueError(
            f"`encoder` expects the `residual_std` that `unet` was trained with, {trained_with.get('residual_std')}, "
            f"got {encoder.config.residual_std}."
        )


def check_dequantize(dequantize: bool, inverse_scheduler: SchedulerMixin):
    """Raises an error unless abduction by `inverse_scheduler` can start as `dequantize` says."""
    if type(dequantize) is not bool:
        raise TypeError(f"`dequantize` expects True or False, got {dequantize!r}.")
    if dequantize and inverse_scheduler.order > 1:
        raise ValueError(
            f"`dequantize` expects False with {type(inverse_scheduler).__name__}, whose way up starts from the image "
            "itself, got True."
        )


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


class DiffSCMSemanticCounterfactualPipeline(DiffusionPipeline):
    r"""
    Pipeline for counterfactual images whose exogenous noise has two parts: a short semantic code and spatial noise.

    The code holds what an intervention should keep, such as slant and size, and its noise says nothing of the class;
    the spatial noise holds what the code leaves open ([Preechakul et al.,
    2022](https://huggingface.co/papers/2111.15640); [Pandey et al., 2022](https://huggingface.co/papers/2201.00308)).
    The denoiser knows both causes: it is given the image that the code means under the class. Counterfactuals follow
    Pearl's three steps: *abduction* reads the code under the factual's class and runs DDIM upwards, the *action* is
    `do(class = intervention)`, and *prediction* decodes the code under that class and runs DDIM downwards from the
    same noise. There is no guidance scale: the denoiser is the mechanism itself.

    ```py
    >>> from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline

    >>> pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained("checkpoints/diffscm-typeface")
    >>> counterfactuals = pipe(factual, ["2", "9"]).images
    ```

    Parameters:
        unet ([`UNet2DModel`]): The denoiser, with the noisy image and the decoded code as its input channels.
        encoder ([`SemanticEncoder2DModel`]): Reads the code under a class, and decodes it under another.
        classifier ([`AntiCausalClassifier2DModel`]):
            The anti-causal predictor. It names the classes, and reads that of factuals which come without.
        scheduler ([`SchedulerMixin`]):
            [`DiffSCMDDIMScheduler`]. Any other scheduler of betas is converted to one without clipping.
        inverse_scheduler ([`SchedulerMixin`], *optional*, defaults to `scheduler.inverse()`): Makes its moves upwards.
        default_num_inference_steps (`int`, *optional*, defaults to 25): What calls use that give none.
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
        ValueError: if `unet`, `encoder` and `classifier` expect different images or numbers of classes, if
            `scheduler` has no betas, or if `inverse_scheduler` does not match it.
    """

    model_cpu_offload_seq = "encoder->unet"
    _optional_components = ["inverse_scheduler"]

    def __init__(
        self,
        unet: UNet2DModel,
        encoder: ModelMixin,
        classifier: ModelMixin,
        scheduler: SchedulerMixin,
        inverse_scheduler: SchedulerMixin | None = None,
        default_num_inference_steps: int = 25,
        default_abduction: str | None = None,
        default_tolerance: float = 1e-6,
        dequantize: bool = False,
        noise_decay: float = 0.0,
    ):
        super().__init__()

        if not isinstance(getattr(unet, "_orig_mod", unet), UNet2DModel):  # which `torch.compile` wraps
            raise TypeError(f"`unet` expects a UNet2DModel, got {type(unet).__name__}.")
        if not hasattr(encoder, "decode") or "condition_dim" not in encoder.config:
            raise TypeError(f"`encoder` expects a SemanticEncoder2DModel, got {type(encoder).__name__}.")
        if not hasattr(classifier, "class_indices"):
            raise TypeError(f"`classifier` expects an AntiCausalClassifier2DModel, got {type(classifier).__name__}.")
        channels, size = encoder.config.in_channels, encoder.config.sample_size
        if (unet.config.in_channels, unet.config.out_channels) != (2 * channels, channels):
            raise ValueError(
                f"`unet` expects {2 * channels} input channels, the noisy image and the decoded code, and {channels} "
                f"output channels, got {unet.config.in_channels} and {unet.config.out_channels}."
            )
        for name, got, expected in (
            ("unet", unet.config.sample_size, size),
            ("classifier", classifier.config.sample_size, size),
            ("classifier", classifier.config.in_channels, channels),
            ("classifier", classifier.config.num_classes, encoder.config.condition_dim),
        ):
            if got != expected:
                raise ValueError(
                    f"`{name}` expects images of {channels} channel(s), {size} pixels wide and high, of "
                    f"{encoder.config.condition_dim} classes, as `encoder` does, got {got} for {expected}."
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
        check_trained_with(scheduler, unet=unet, encoder=encoder, classifier=classifier)
        check_residual_std(unet, encoder)

        self.register_modules(
            unet=unet.eval(),
            encoder=encoder.eval(),
            classifier=classifier.eval(),
            scheduler=scheduler,
            inverse_scheduler=inverse_scheduler,
        )
        self.register_to_config(
            default_num_inference_steps=default_num_inference_steps,
            default_abduction=default_abduction,
            default_tolerance=default_tolerance,
            dequantize=dequantize,
            noise_decay=noise_decay,
        )
        try:
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
        size = self.encoder.config.sample_size
        return (self.encoder.config.in_channels, size, size)

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
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` expects 'pil', 'np' or 'pt', got {output_type!r}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` expects a `torch.Generator`, got {type(generator).__name__}.")

    def prepare_classes(
        self, classes: int | str | list[int | str] | np.ndarray | torch.Tensor, num_factuals: int, argument: str
    ) -> torch.Tensor:
        """Checks classes, one for all factuals or one for each; returns their indices, int64."""
        indices = self.classifier.class_indices(classes, argument)
        if (num_factuals > 1 or argument == "factual_class") and len(indices) not in (1, num_factuals):
            raise ValueError(
                f"`{argument}` expects one class for all images, or one per image, got {len(indices)} for "
                f"{num_factuals} image(s)."
            )
        return torch.tensor(indices, device=self._execution_device).expand(max(num_factuals, len(indices)))

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

    def predict_noise(self, sample: torch.Tensor, timestep: int, decoded: torch.Tensor) -> torch.Tensor:
        """Evaluates the denoiser, given what the code means under the class."""
        # A tensor, as `torch.compile` would compile the network anew for every number.
        t = torch.tensor(timestep, device=sample.device)
        alpha_prod = self.scheduler.alphas_cumprod[timestep].item()
        prediction_type = self.scheduler.config.prediction_type
        inputs, mean, std = self.encoder.residual_prior(sample, decoded, alpha_prod, prediction_type)
        return mean + std * self.unet(torch.cat([inputs, decoded], dim=1).to(self.unet.dtype), t).sample.float()

    def condition(self, class_labels: torch.Tensor) -> torch.Tensor:
        """Each class as the encoder takes its causes: a one-hot vector."""
        return F.one_hot(class_labels, self.encoder.config.condition_dim).float()

    def decode(self, code: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
        """The image that each code's exogenous noise means under a class, in [-1, 1]."""
        condition = self.condition(class_labels)
        return self.encoder.decode(self.encoder.predict(code, condition), condition)

    def check_finite(self, process: str, timesteps: list[int], finite: list[torch.Tensor]):
        """Raises a `ValueError` that says since which of a process' steps samples are not finite, and why."""
        steps = torch.stack(finite).logical_not().nonzero().flatten().tolist()
        if steps:
            models = {name: part for name, part in self.components.items() if isinstance(part, torch.nn.Module)}
            broken = [name for name, m in models.items() if not all(w.isfinite().all() for w in m.parameters())]
            raise ValueError(
                f"The {process} is not finite since step {steps[0] + 1} of {len(timesteps)}, timestep "
                f"{timesteps[steps[0]]}: " + (f"the weights of {broken} are not." if broken else "compute in float32.")
            )

    def draw_lowest_noise(self, images: torch.Tensor) -> torch.Tensor:
        """Standard normal noise of each image, always the same for the same image, whatever batch it is in."""
        seeds = [zlib.crc32(image.numpy().tobytes()) for image in images.cpu()]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return randn_tensor(images.shape, generators, images.device, images.dtype)

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
        images: torch.Tensor,
        factual_class: torch.Tensor,
        scheduler: SchedulerMixin,
        inverse_scheduler: SchedulerMixin,
        num_draws: int | None,
        generator: torch.Generator | None,
        batch_size: int,
        solver: dict | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """
        Abduction: the code's noise, and the moves up to the spatial noise under code and class, implicit by a
        `solver`. With draws, also how the former is to deviate under other classes.
        """
        if num_draws is not None:
            images, factual_class = images.repeat(num_draws, 1, 1, 1), factual_class.repeat(num_draws)
        condition = self.condition(factual_class)
        outputs = [
            self.encoder.encode(*batch)
            for batch in zip(images.split(batch_size), condition.split(batch_size), strict=True)
        ]
        code = torch.cat([output.mean for output in outputs])
        lowest_noise = deviation = None
        if num_draws is not None:
            # A draw of both parts from the posterior: what the image leaves open is drawn.
            std = torch.cat([output.std for output in outputs])
            code = code + std * randn_tensor(code.shape, generator, code.device, code.dtype)
            lowest_noise = randn_tensor(images.shape, generator, images.device, images.dtype)
            if self.encoder.config.transfer_scale > 0:
                deviation = std * randn_tensor(code.shape, generator, code.device, code.dtype)
        elif self.config.dequantize:
            lowest_noise = self.draw_lowest_noise(images)

        exogenous_noise, remainders, residuals = [], [], []
        starts = range(0, len(images), batch_size)
        with self.progress_bar(total=len(starts) * len(inverse_scheduler.timesteps)) as progress_bar:
            progress_bar.set_description("Abduction")
            for start in starts:
                batch = slice(start, start + batch_size)
                decoded, finite = self.encoder.decode(code[batch], condition[batch]), []
                if lowest_noise is None:
                    sample, timesteps = inverse_scheduler.start(images[batch])
                else:
                    sample, timesteps = inverse_scheduler.start(images[batch], noise=lowest_noise[batch])
                    # The noise at the lowest level is exogenous as well: what the last move down leaves of the image.
                    last = scheduler.timesteps[-1].item()
                    prediction = self.predict_noise(sample, last, decoded)
                    remainders.append(images[batch] - scheduler.step(prediction, last, sample).prev_sample)
                prediction, residual = None, sample.new_zeros(len(sample))
                for timestep in timesteps:
                    if solver is None:
                        model_input = inverse_scheduler.scale_model_input(sample, timestep)
                        prediction = self.predict_noise(model_input, timestep, decoded)
                        sample = inverse_scheduler.step(prediction, timestep, sample).prev_sample
                    else:  # the last move's prediction is the next one's first guess
                        solution = inverse_scheduler.solve(
                            self.predict_noise, timestep, sample, prediction, condition=decoded, **solver
                        )
                        sample, prediction = solution.prev_sample, solution.model_output
                        residual = torch.maximum(residual, solution.residual)
                    finite.append(sample.isfinite().all())
                    progress_bar.update()
                self.check_finite("abduction", timesteps, finite)
                exogenous_noise.append(inverse_scheduler.finish(sample))
                residuals.append(residual)
        residual = torch.cat(residuals)
        if solver is not None and (residual > solver["tolerance"]).any():
            warnings.warn(
                f"Implicit abduction of {(residual > solver['tolerance']).sum()} of {len(residual)} image(s) missed "
                f"{solver}; residuals go up to {residual.max():.2g}. Use more steps or iterations.",
                stacklevel=4,  # past the call and its decorator, to the caller
            )
        code_noise = self.encoder.abduct(code, condition)
        return torch.cat(exogenous_noise), code_noise, torch.cat(remainders) if remainders else None, deviation

    def _predict(
        self,
        exogenous_noise: torch.Tensor,
        code: torch.Tensor,
        remainder: torch.Tensor | None,
        intervention: torch.Tensor,
        scheduler: SchedulerMixin,
        batch_size: int,
    ) -> torch.Tensor:
        """Action and prediction: the code decoded under the intervention, and the moves down to images in [-1, 1]."""
        images = []
        starts = range(0, len(intervention), batch_size)
        with self.progress_bar(total=len(starts) * len(scheduler.timesteps)) as progress_bar:
            progress_bar.set_description("Prediction")
            for start in starts:
                batch = slice(start, start + batch_size)
                sample, timesteps = scheduler.start(exogenous_noise[batch])
                decoded, finite = self.decode(code[batch], intervention[batch]), []
                for timestep in timesteps:
                    prediction = self.predict_noise(scheduler.scale_model_input(sample, timestep), timestep, decoded)
                    sample = scheduler.step(prediction, timestep, sample).prev_sample
                    finite.append(sample.isfinite().all())
                    progress_bar.update()
                self.check_finite("prediction", timesteps, finite)
                image = scheduler.finish(sample).float()
                image = image if remainder is None else image + remainder[batch]
                images.append(image.clamp(-1, 1))
        return torch.cat(images)

    @torch.no_grad()
    def __call__(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
        factual_class: int | str | list[int | str] | np.ndarray | torch.Tensor | None = None,
        num_inference_steps: int | None = None,
        num_draws: int | None = None,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        abduction: str | None = None,
        tolerance: float | None = None,
        max_iterations: int = 40,
    ) -> DiffSCMSemanticPipelineOutput | tuple:
        r"""
        Estimates counterfactuals: abduction of `image`'s code and noise, then prediction under
        `do(class = intervention)`.

        One image and several interventions give one counterfactual per intervention, several images and one
        intervention one per image; as many interventions as images are paired. Each image is abducted once, however
        many interventions it meets.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images: PIL images of mode `"L"` or `"RGB"`, arrays `(height, width, channels)` or, in
                grey, `(height, width)`, tensors `(channels, height, width)`, each alone, in a list or, but for PIL, as
                a batch. Arrays and tensors hold floats in [0, 1] or uint8 in [0, 255].
            intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`):
                The class that each image is to have been caused by: an index or a name from `classifier.id2label`.
            factual_class (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`, *optional*):
                The class that caused each factual, one for all or one per image. Default: the one that the predictor
                reads in the image; the output says which.
            num_inference_steps (`int`, *optional*, defaults to the checkpoint's):
                Number of steps in each direction, from 1 to the scheduler's `num_train_timesteps`.
            num_draws (`int`, *optional*):
                How many counterfactuals to draw of each. A draw takes the code from its posterior and starts abduction
                from the lowest noise level, and what the last move down leaves out of the factual is kept. Under
                another class the code deviates as the encoder's `transfer_scale` says, and the spatial noise as
                `noise_decay` says. The spread of several tells what the image leaves open
                ([`~DiffSCMSemanticPipelineOutput.mean_and_std`]). Default: one, from the mean code and what
                `dequantize` says, without chance.
            generator (`torch.Generator`, *optional*): Makes the draws reproducible.
            batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`DiffSCMSemanticPipelineOutput`] or a tuple.
            abduction (`str`, *optional*, defaults to `default_abduction`, or else to the inverse scheduler's):
                How the moves up are made ([`DiffSCMDDIMInverseScheduler`]). `"source"` and `"destination"` are
                explicit, one evaluation of the denoiser each, and miss the noise by an error that falls with the
                number of steps; `"implicit"` solves each move, for more evaluations, so that the null intervention
                gives the factual back at any.
            tolerance (`float`, *optional*, defaults to `default_tolerance`):
                The residual at which an implicit move has converged; see [`DiffSCMDDIMInverseScheduler.solve`]. A
                warning counts the images that do not get there; they keep the best that was found.
            max_iterations (`int`, *optional*, defaults to 40): The most evaluations for an image's implicit move.

        Raises:
            ValueError: if an argument is out of its range or does not fit the others, or if the prediction is not
                finite.
            TypeError: if an argument is of another type.

        Returns:
            [`DiffSCMSemanticPipelineOutput`] or `tuple`: images, exogenous noise, code, factual classes and remainder.
        """
        # 1. Check inputs
        self.check_inputs(num_draws, generator, batch_size, abduction, tolerance, max_iterations, output_type)

        abduction = self.config.default_abduction if abduction is None else abduction
        tolerance = self.config.default_tolerance if tolerance is None else tolerance

        # 2. Prepare the factual images, the classes and the schedulers
        images = self.prepare_image(image)
        num_factuals, draws = len(images), num_draws or 1
        batch_size = batch_size or max(num_factuals, 1) * draws
        intervention = self.prepare_classes(intervention, num_factuals, "intervention")
        if factual_class is None:
            batches = images.to(self.classifier.dtype).split(batch_size)
            logits = torch.cat([self.classifier(batch, 0).logits for batch in batches])
            if not logits.isfinite().all():
                raise ValueError("`classifier` expects to read the factuals' classes, got NaN or infinity as logits.")
            factual_class = logits.argmax(dim=1)
        factual_class = self.prepare_classes(factual_class, num_factuals, "factual_class")
        scheduler, inverse_scheduler = self.prepare_schedulers(num_inference_steps, abduction)
        solver = {"tolerance": tolerance, "max_iterations": max_iterations} if abduction == "implicit" else None

        # 3. Abduction
        noise, code, remainder, deviation = self._abduct(
            images, factual_class, scheduler, inverse_scheduler, num_draws, generator, batch_size, solver
        )

        # 4. Action and prediction: every draw of a factual meets every intervention
        num_images = len(intervention)
        factuals = torch.arange(draws * num_factuals, device=noise.device).view(draws, num_factuals)
        factuals = factuals.expand(draws, num_images).flatten()
        intervention = intervention.repeat(draws)
        conditions = self.condition(factual_class.repeat(draws)[factuals]), self.condition(intervention)
        codes = code[factuals]
        if deviation is not None:
            codes = self.encoder.transfer(codes, deviation[factuals], *conditions)
        spatial_noise = noise[factuals]
        if num_draws is not None and self.config.noise_decay > 0:
            fresh_noise = randn_tensor(noise.shape, generator, noise.device, noise.dtype)
            spatial_noise = self.transfer_noise(spatial_noise, fresh_noise[factuals], *conditions)
        remainders = None if remainder is None else remainder[factuals]
        images = self._predict(spatial_noise, codes, remainders, intervention, scheduler, batch_size)

        # 5. Decode
        self.maybe_free_model_hooks()
        images = self.image_processor.postprocess(images, output_type=output_type)
        if num_draws is not None:
            stack = {"pil": list, "np": np.stack, "pt": torch.stack}[output_type]
            images = stack([images[draw * num_images : (draw + 1) * num_images] for draw in range(num_draws)])
            noise, code, remainder = (part.unflatten(0, (draws, num_factuals)) for part in (noise, code, remainder))
        output = (images, noise, code, factual_class, remainder)
        return DiffSCMSemanticPipelineOutput(*output) if return_dict else output
