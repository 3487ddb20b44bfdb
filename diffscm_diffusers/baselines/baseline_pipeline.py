# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers import ModelMixin
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import BaseOutput
from tqdm.auto import tqdm

from ..models import AntiCausalClassifier2DModel
from ..pipelines import DiffSCMCounterfactualPipeline
from .checked_pipeline import CheckedPipeline


@dataclass
class BaselinePipelineOutput(BaseOutput):
    """
    The output of a [`BaselinePipeline`].

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            The counterfactuals: PIL images, an array of shape `(batch, height, width, channels)` or a tensor of shape
            `(batch, channels, height, width)`. Arrays and tensors are in [0, 1].
        succeeded (`torch.Tensor` of shape `(batch,)`):
            Whether the method's own classifier predicts the intervention with the required confidence, as booleans.
        num_iterations (`torch.Tensor` of shape `(batch,)`): The number of iterations for each image, as int64.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    succeeded: torch.Tensor
    num_iterations: torch.Tensor


class BaselinePipeline(CheckedPipeline):
    """
    Base class of the methods that start from the factual image and search for an image that a classifier assigns to
    the intervention. They are called like [`DiffSCMCounterfactualPipeline`].

    A subclass implements [`~BaselinePipeline.search`] and has a component `classifier` with `sample_size`,
    `in_channels` and `num_classes` in its configuration.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).
    """

    classifier: ModelMixin

    def __init__(self):
        super().__init__()
        self.image_processor = VaeImageProcessor(vae_scale_factor=1, do_normalize=False)

    # Images are checked and converted in the same way, and components handed over.
    prepare_image = DiffSCMCounterfactualPipeline.prepare_image
    from_pipe = classmethod(DiffSCMCounterfactualPipeline.from_pipe.__func__)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`tuple[int, int, int]`: Channels, height and width of the images."""
        config = self.classifier.config
        return (config.in_channels, config.sample_size, config.sample_size)

    def search(
        self, factual: torch.Tensor, target: torch.Tensor, progress_bar: tqdm
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Searches for the counterfactuals of one batch. The result for an image does not depend on the other images.

        Args:
            factual (`torch.Tensor` of shape `(batch, channels, height, width)`): The factual images, in [0, 1].
            target (`torch.Tensor` of shape `(batch,)`): The target class indices.
            progress_bar (`tqdm`): Is advanced by one for each finished image.

        Returns:
            `tuple`: `images` as a tensor, `succeeded` and `num_iterations`; see [`BaselinePipelineOutput`].
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
        Generates counterfactuals: for one image, one per intervention; for several images, one per image, with either
        the same intervention for all or one intervention per image. The networks are set to evaluation mode.

        Args:
            image (`PIL.Image.Image` or `np.ndarray` or `torch.Tensor` or `list`):
                The factual images: a PIL image of mode `"L"` or `"RGB"`, an array of shape `(height, width, channels)`
                or, for greyscale, `(height, width)`, a tensor of shape `(channels, height, width)`, a list of one of
                these, or a batch in one array or tensor. Arrays and tensors hold floats in [0, 1] or uint8 in
                [0, 255]. Size and channels must be those of `classifier`.
            intervention (`int` or `str` or `list` or `np.ndarray` or `torch.Tensor`):
                The target classes: indices, or names from `classifier.id2label`.
            batch_size (`int`, *optional*): The maximum number of images that are searched at once. By default all are.
            output_type (`str`, *optional*, defaults to `"pil"`): `"pil"`, `"np"` or `"pt"`.
            return_dict (`bool`, *optional*, defaults to `True`):
                Whether to return a [`BaselinePipelineOutput`] instead of a tuple.

        Returns:
            [`BaselinePipelineOutput`] or `tuple`: `images`, `succeeded` and `num_iterations`.

        Raises:
            ValueError: If an argument is out of its range, or the numbers of images and interventions do not match.
            TypeError: If an argument has another type.
        """
        # 1. Check inputs
        classes = AntiCausalClassifier2DModel.class_indices(self.classifier, intervention, "intervention")
        targets = torch.tensor(classes, device=self._execution_device)
        factuals = self.image_processor.denormalize(self.prepare_image(image))
        if len(factuals) > 1 and len(targets) not in (1, len(factuals)):
            raise ValueError(
                f"`intervention` expects one class for all images or one per image, got {len(targets)} for "
                f"{len(factuals)} images."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` expects 'pil', 'np' or 'pt', got {output_type!r}.")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError(f"`batch_size` expects an integer of at least 1, got {batch_size!r}.")

        # 2. Split into batches
        num_images = max(len(factuals), len(targets))
        factual_batches = factuals.expand(num_images, *self.image_shape).split(batch_size or num_images)
        target_batches = targets.expand(num_images).split(batch_size or num_images)

        # 3. Search. The networks may have been trained since the pipeline was created.
        for component in self.components.values():
            component.eval()
        with self.progress_bar(total=num_images) as progress_bar:
            results = [
                self.search(factual, target, progress_bar)
                for factual, target in zip(factual_batches, target_batches, strict=True)
            ]
        images, succeeded, num_iterations = (torch.cat(parts) for parts in zip(*results, strict=True))

        # 4. Postprocess
        images = self.image_processor.postprocess(images, output_type=output_type)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (images, succeeded, num_iterations)
        return BaselinePipelineOutput(images=images, succeeded=succeeded, num_iterations=num_iterations)
