# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput

from ..models import AntiCausalClassifier2DModel
from ..pipelines import DiffSCMCounterfactualPipeline


@dataclass
class BaselinePipelineOutput(BaseOutput):
    """
    The output of a [`BaselinePipeline`].

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            The counterfactuals: PIL, an array `(batch, height, width, channels)` or a tensor
            `(batch, channels, height, width)`, the last two in [0, 1].
        succeeded (`torch.Tensor`):
            Whether the method's own classifier sees the intervention in each image, as surely as the method asks for.
            Booleans of shape `(batch,)`.
        num_iterations (`torch.Tensor`): How many iterations each image took, int64 of shape `(batch,)`.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    succeeded: torch.Tensor
    num_iterations: torch.Tensor


class BaselinePipeline(DiffusionPipeline):
    """
    What the methods share that Diff-SCM is compared with: they search, from the factual image, for an image that a
    classifier takes for the intervention. They are called like [`DiffSCMCounterfactualPipeline`].

    A subclass gives [`~BaselinePipeline.search`], and a component `classifier` with `sample_size`, `in_channels` and
    `num_classes` in its configuration.
    """

    classifier: ModelMixin

    def __init__(self):
        super().__init__()
        self.image_processor = VaeImageProcessor(vae_scale_factor=1, do_normalize=False)

    # The same arguments mean the same, and are refused for the same reasons.
    prepare_image = DiffSCMCounterfactualPipeline.prepare_image

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`tuple`: channels, height and width of the images."""
        config = self.classifier.config
        return (config.in_channels, config.sample_size, config.sample_size)

    def search(
        self, factual: torch.Tensor, target: torch.Tensor, progress_bar
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Searches the counterfactuals of one batch. No image's result depends on the others.

        Args:
            factual (`torch.Tensor`): Images in [0, 1], shape `(batch, channels, height, width)`.
            target (`torch.Tensor`): The class that each is to become, shape `(batch,)`.
            progress_bar: Moves on by one with each image that is done.

        Returns:
            `tuple`: `images`, `succeeded` and `num_iterations`; see [`BaselinePipelineOutput`].
        """
        raise NotImplementedError

    @torch.no_grad()
    def __call__(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> BaselinePipelineOutput | tuple:
        r"""
        Estimates counterfactuals. One image and several interventions give one counterfactual per intervention;
        several images and one intervention give one per image; as many interventions as images are taken in pairs.
        Anything else is an error. The networks are put in evaluation mode, and stay there.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images: PIL images of mode `"L"` or `"RGB"`, arrays `(height, width, channels)` (or
                `(height, width)` if greyscale), tensors `(channels, height, width)`, each alone, in a list or, but
                for PIL, as a batch. Arrays and tensors hold floats in [0, 1] or uint8 in [0, 255]. Size and channels
                are `classifier`'s.
            intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`):
                The class that each image is to become: an index or a name from `classifier.id2label`.
            batch_size (`int`, *optional*): The most images that the networks see at once. Default: all.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`BaselinePipelineOutput`] or a tuple.

        Raises:
            ValueError: if an argument is out of its range or does not fit the others.
            TypeError: if an argument is of another type.

        Returns:
            [`BaselinePipelineOutput`] or `tuple`: images, whether they succeeded, and iterations taken.
        """
        targets = torch.tensor(
            AntiCausalClassifier2DModel.class_indices(self.classifier, intervention, "intervention"),
            device=self.device,
        )
        factuals = self.image_processor.denormalize(self.prepare_image(image))
        if len(factuals) > 1 and len(targets) not in (1, len(factuals)):
            raise ValueError(
                f"`intervention` takes one class for all images, or one per image, got {len(targets)} for "
                f"{len(factuals)} images."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` takes 'pil', 'np' or 'pt', got {output_type!r}.")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"`batch_size` expects a whole number of at least 1, got {batch_size!r}.")
        # Whoever trained a network after the pipeline was made gets the same images, and keeps its statistics.
        for component in self.components.values():
            component.eval()
        num_images = max(len(factuals), len(targets))
        factual_batches = factuals.expand(num_images, *self.image_shape).split(batch_size or num_images)
        target_batches = targets.expand(num_images).split(batch_size or num_images)

        with self.progress_bar(total=num_images) as progress_bar:
            results = [
                self.search(factual, target, progress_bar)
                for factual, target in zip(factual_batches, target_batches, strict=True)
            ]
        images, succeeded, num_iterations = (torch.cat(parts) for parts in zip(*results, strict=True))

        self.maybe_free_model_hooks()
        images = self.image_processor.postprocess(images, output_type=output_type)
        if not return_dict:
            return (images, succeeded, num_iterations)
        return BaselinePipelineOutput(images=images, succeeded=succeeded, num_iterations=num_iterations)
