# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Turns rows with factuals into rows with counterfactuals."""

from collections.abc import Iterable, Iterator

import PIL.Image
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.image_files import BrokenImageError, NumberedRow
from diffscm_diffusers.data.images import ImageCollator

from .interventions import Interventions


class CounterfactualGenerator:
    """
    Estimates the counterfactuals of consecutive rows. The noise of each factual is abducted once for all its targets.

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`]): The causal model.
        interventions ([`Interventions`]): Chooses the targets.
        collate ([`ImageCollator`]): Reads rows; with a `label_column` if the factuals' classes are known.
        classes (`list[int]`, *optional*): The checkpoint's class index of each class of the data set.
        batch_size (`int`): The most images that the networks see at once.
        guidance_scale (`float`): Weight of the anti-causal predictor's gradient, positive.
        num_inference_steps (`int`): DDIM steps in each direction.
        strength (`float`, *optional*, defaults to 1.0): Fraction of the steps that are taken.
        abduction (`str`, *optional*): See [`DiffSCMCounterfactualPipeline.abduct`].
        guidance_interval (`tuple[int, int]`, *optional*): See [`DiffSCMCounterfactualPipeline.predict`].
        skip_broken (`bool`, *optional*, defaults to `False`): Whether to leave out images that cannot be used.

    Attributes:
        left_out (`list[str]`): Of the rows that are being read: which were left out, and why.
    """

    def __init__(
        self,
        pipe: DiffSCMCounterfactualPipeline,
        interventions: Interventions,
        collate: ImageCollator,
        classes: list[int] | None,
        batch_size: int,
        guidance_scale: float,
        num_inference_steps: int,
        strength: float = 1.0,
        abduction: str | None = None,
        guidance_interval: tuple[int, int] | None = None,
        skip_broken: bool = False,
    ):
        self.skip_broken = skip_broken
        self.left_out = []
        self.pipe = pipe
        self.interventions = interventions
        self.collate = collate
        self.classes = classes
        self.batch_size = batch_size
        steps = {"num_inference_steps": num_inference_steps, "strength": strength}
        self.prediction = {**steps, "guidance_scale": guidance_scale, "guidance_interval": guidance_interval}
        self.abduction = {**self.prediction, "abduction": abduction}

    def read_factuals(
        self, start: int, rows: Iterable[dict]
    ) -> tuple[list[int], list[torch.Tensor], list[int | None]]:
        """
        Reads factuals from rows whose images are not decoded yet.

        Returns:
            `tuple`: the numbers of their rows, their images, uint8, `(1, channels, height, width)`, and the class of
            each, or `None`.

        Raises:
            ValueError: if a row has no image, one that cannot be used, or no label; it names the row.
        """
        numbers, factuals, factual_classes = [], [], []
        self.left_out = []
        for number, row in enumerate(rows, start):
            try:
                batch = self.collate([NumberedRow(row, f"row {number}")])
            except BrokenImageError as error:
                if not self.skip_broken:
                    raise
                self.left_out.append(error.problem)
                continue
            numbers.append(number)
            factuals.append((batch["pixel_values"] * 127.5 + 127.5).round().byte())
            factual_classes.append(None if self.classes is None else self.classes[batch["labels"].item()])
        return numbers, factuals, factual_classes

    def generate(self, start: int, rows: Iterable[dict]) -> Iterator[dict[str, list]]:
        """
        Estimates the counterfactuals of consecutive rows.

        Args:
            start (`int`): The first row's number in the data set.
            rows (`Iterable[dict]`): The rows, with images that are not decoded.

        Returns:
            `Iterator[dict[str, list]]`: columns of [`counterfactual_features`], at most `batch_size` rows at a time.
        """
        numbers, factuals, factual_classes = self.read_factuals(start, rows)
        if not factuals:
            return
        factuals = torch.cat(factuals)
        exogenous_noise = self.pipe.abduct(factuals, batch_size=self.batch_size, **self.abduction)
        pairs = [
            (position, target)
            for position, factual_class in enumerate(factual_classes)
            for target in self.interventions.targets(numbers[position], factual_class)
        ]
        for first in range(0, len(pairs), self.batch_size):
            positions, targets = map(list, zip(*pairs[first : first + self.batch_size], strict=True))
            output = self.pipe.predict(exogenous_noise[positions], targets, output_type="pt", **self.prediction)
            factual, counterfactual = factuals[positions], output.images.float().cpu()
            columns = {
                "index": [numbers[position] for position in positions],
                "factual": to_pil(factual),
                "factual_class": [factual_classes[position] for position in positions],
                "counterfactual": to_pil((counterfactual * 255).round().byte()),
                "target": targets,
                "target_probability": output.log_probs.float().exp().tolist(),
                "difference": list((counterfactual - factual.float() / 255).movedim(1, -1).numpy()),
            }
            if self.classes is None:
                columns.pop("factual_class")
            yield columns


def to_pil(images: torch.Tensor) -> list[PIL.Image.Image]:
    """Converts uint8 images, `(batch, channels, height, width)`."""
    arrays = images.movedim(1, -1).numpy()
    return [PIL.Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]
