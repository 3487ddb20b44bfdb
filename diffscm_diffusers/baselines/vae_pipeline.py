# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import ModelMixin
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput

from ..files import load_whole
from ..pipelines import DiffSCMGraphCounterfactualPipeline
from ..pipelines.pipeline_diffscm_graph import check_causes
from .checked_pipeline import CheckedPipeline
from .conditional_vae import ConditionalVAE2DModel
from .hierarchical_vae import HierarchicalVAE2DModel


# The models that `train_vae.py` trains, by the names in their configurations.
VAE_MODELS = {model.__name__: model for model in (ConditionalVAE2DModel, HierarchicalVAE2DModel)}


def load_vae(folder: str) -> ConditionalVAE2DModel | HierarchicalVAE2DModel:
    """
    Loads a VAE of either kind.

    Args:
        folder (`str`): The folder that `train_vae.py` wrote, or a name on the Hub.

    Raises:
        ValueError: if another model is there.
        OSError: if there is none.
    """
    class_name = ConditionalVAE2DModel.load_config(folder).get("_class_name")
    if class_name not in VAE_MODELS:
        raise ValueError(f"`folder` expects one of {list(VAE_MODELS)}, got {folder!r}: it holds {class_name}.")
    return load_whole(VAE_MODELS[class_name], folder)


@dataclass
class VAECounterfactualPipelineOutput(BaseOutput):
    """
    The output of a [`VAECounterfactualPipeline`].

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            PIL images, or in [0, 1] an array `(batch, height, width, channels)` or a tensor `(batch, channels, ...)`.
        attributes (`dict[str, torch.Tensor]`): Value of each attribute of each factual, shape `(num_factuals,)`.
        counterfactual_attributes (`dict[str, torch.Tensor]`): The same under the intervention, shape `(batch,)`.
        latents (`torch.Tensor` of shape `(num_factuals, latent_dim)`): The latents, exogenous noise of the image.
        exogenous_noise (`torch.Tensor` of shape `(num_factuals, channels, height, width)`): The noise of each pixel.
        attribute_noise (`dict[str, torch.Tensor]`): Exogenous noise of each attribute, first axis `num_factuals`.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    attributes: dict[str, torch.Tensor]
    counterfactual_attributes: dict[str, torch.Tensor]
    latents: torch.Tensor
    exogenous_noise: torch.Tensor
    attribute_noise: dict[str, torch.Tensor]


class VAECounterfactualPipeline(CheckedPipeline):
    r"""
    Counterfactuals of a causal graph whose image has a variational autoencoder as its mechanism
    ([Pawlowski et al., 2020](https://huggingface.co/papers/2006.06485)), to compare with
    [`DiffSCMGraphCounterfactualPipeline`], which is called alike.

    Abduction takes the latents' posterior mean under the factual parents, and the noise of each pixel, `u = (x - mean)
    / scale`. Prediction decodes the same latents under the counterfactual parents, and adds the same noise, `mean +
    scale * u`, brought into the range of an image.

    Parameters:
        vae ([`ConditionalVAE2DModel`] or [`HierarchicalVAE2DModel`]): The mechanism of the image.
        scm ([`StructuralCausalModel`]): The graph, and the mechanisms of the attributes.

    Raises:
        TypeError: if a component is another one.
        ValueError: if `vae` was trained on other parents than those of `scm.graph`.
    """

    model_cpu_offload_seq = "vae"
    _exclude_from_cpu_offload = ["scm"]
    # Nothing reads attributes that are missing.
    predictor = None

    # Images, attributes and interventions are checked in the same way.
    prepare_image = DiffSCMGraphCounterfactualPipeline.prepare_image
    prepare_attributes = DiffSCMGraphCounterfactualPipeline.prepare_attributes
    prepare_intervention = DiffSCMGraphCounterfactualPipeline.prepare_intervention

    def __init__(self, vae: ModelMixin, scm: ModelMixin):
        super().__init__()
        for name, part, method, expected in (
            ("vae", vae, "decode", "a `ConditionalVAE2DModel` or a `HierarchicalVAE2DModel`"),
            ("scm", scm, "abduct", "a `StructuralCausalModel`"),
        ):
            if not hasattr(part, method):
                raise TypeError(f"`{name}` expects {expected}, got {type(part).__name__}.")
        widths = scm.graph.condition_widths
        if vae.config.condition_dim != sum(widths.values()):
            raise ValueError(
                f"`vae` expects a `condition_dim` of {sum(widths.values())}, the image's parents in `scm.graph`, "
                f"{widths}, got {vae.config.condition_dim}."
            )
        check_causes(scm.graph, vae=vae)
        self.register_modules(vae=vae.eval(), scm=scm.eval())
        self.image_processor = VaeImageProcessor(vae_scale_factor=1)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`tuple[int, int, int]`: channels, height and width of the images."""
        config = self.vae.config
        return (config.in_channels, config.sample_size, config.sample_size)

    @torch.no_grad()
    def __call__(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        attributes: Mapping[str, Any],
        do: Mapping[str, Any] | None = None,
        hold: str | Iterable[str] = (),
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> VAECounterfactualPipelineOutput | tuple:
        r"""
        Estimates counterfactuals: for one image, one per value in `do`; for several images, one per image.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images: PIL images of mode `"L"` or `"RGB"`, arrays `(height, width, channels)` or, in
                grey, `(height, width)`, tensors `(channels, height, width)`, each alone, in a list or, but for PIL, as
                a batch. Arrays and tensors hold floats in [0, 1] or uint8 in [0, 255].
            attributes (`dict[str, Any]`): The factuals' attributes: one value for all images or one per image.
            do (`dict[str, Any]`, *optional*): The attributes that are set, and their values. Default: none.
            hold (`str` or `Iterable[str]`, *optional*): Attributes that keep their factual value.
            generator (`torch.Generator`, *optional*): Of the draws of discrete attributes' noise.
            batch_size (`int`, *optional*): The most images that are worked on at once. Default: all.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`VAECounterfactualPipelineOutput`] instead of a tuple.

        Returns:
            [`VAECounterfactualPipelineOutput`] or `tuple`.

        Raises:
            ValueError: If an argument is out of its range, or does not fit the graph or the number of images.
            TypeError: If an argument has another type.
        """
        # 1. Check inputs
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` expects 'pil', 'np' or 'pt', got {output_type!r}.")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"`batch_size` expects a whole number of at least 1, got {batch_size!r}.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"`generator` expects a `torch.Generator`, got {type(generator).__name__}.")
        images = self.prepare_image(image)
        attributes, _ = self.prepare_attributes(attributes, images, len(images))
        do, hold, factuals = self.prepare_intervention(do, hold, len(images))

        # 2. Attributes
        attribute_noise = self.scm.abduct(attributes, generator)
        values = {name: value[factuals] for name, value in attributes.items()} | do
        noise = {name: value[factuals] for name, value in attribute_noise.items()}
        predicted = self.scm.predict(noise, {name: values[name] for name in (*do, *hold)})
        # What the intervention does not reach keeps its value, free of rounding.
        values.update({name: predicted[name] for name in self.scm.graph.descendants(do, hold)})
        condition = self.scm.graph.condition(attributes)
        counterfactual_condition = self.scm.graph.condition(values)

        # 3. Images. The network may have been trained since the pipeline was created.
        self.vae.eval()
        latents, pixel_noise, counterfactuals = [], [], []
        for rows in torch.arange(len(images), device=images.device).split(batch_size or len(images)):
            latents.append(self.vae.encode(images[rows], condition[rows]))
            mean, scale = self.vae.decode(latents[-1], condition[rows])
            pixel_noise.append((images[rows] - mean) / scale)
        latents, pixel_noise = torch.cat(latents), torch.cat(pixel_noise)
        for rows in torch.arange(len(factuals), device=images.device).split(batch_size or len(factuals)):
            mean, scale = self.vae.decode(latents[factuals[rows]], counterfactual_condition[rows])
            counterfactuals.append((mean + scale * pixel_noise[factuals[rows]]).clamp(-1, 1))

        # 4. Postprocess
        self.maybe_free_model_hooks()
        output = VAECounterfactualPipelineOutput(
            images=self.image_processor.postprocess(torch.cat(counterfactuals), output_type=output_type),
            attributes=attributes,
            counterfactual_attributes=values,
            latents=latents,
            exogenous_noise=pixel_noise,
            attribute_noise=attribute_noise,
        )
        return output if return_dict else output.to_tuple()
