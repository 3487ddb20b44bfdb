# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Turns rows with factuals into rows with counterfactuals."""

from collections.abc import Iterable, Iterator

import PIL.Image
import torch
from datasets import Image

from diffscm_diffusers import DiffSCMCounterfactualPipeline
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
    ):
        self.pipe = pipe
        self.interventions = interventions
        self.collate = collate
        self.classes = classes
        self.batch_size = batch_size
        steps = {"num_inference_steps": num_inference_steps, "strength": strength}
        self.abduction = {**steps, "abduction": abduction}
        self.prediction = {**steps, "guidance_scale": guidance_scale, "guidance_interval": guidance_interval}

    def read_factuals(self, start: int, rows: Iterable[dict]) -> tuple[torch.Tensor, list[int | None]]:
        """
        Reads factuals from rows whose images are not decoded yet.

        Returns:
            `tuple`: images, uint8, `(num_factuals, channels, height, width)`, and the class of each, or `None`.

        Raises:
            ValueError: if a row has no image, one that cannot be decoded, or no label; it names the row.
        """
        column = self.collate.image_column
        factuals, factual_classes = [], []
        for index, row in enumerate(rows, start):
            try:
                if row[column] is None:
                    raise ValueError("there is none")
                batch = self.collate([{**row, column: Image().decode_example(row[column])}])
            except (OSError, ValueError) as error:
                raise ValueError(f"Row {index} of the data set cannot be used, its image or label: {error}") from error
            factuals.append((batch["pixel_values"] * 127.5 + 127.5).round().byte())
            factual_classes.append(None if self.classes is None else self.classes[batch["labels"].item()])
        return torch.cat(factuals), factual_classes

    def generate(self, start: int, rows: Iterable[dict]) -> Iterator[dict[str, list]]:
        """
        Estimates the counterfactuals of consecutive rows.

        Args:
            start (`int`): The first row's number in the data set.
            rows (`Iterable[dict]`): The rows, with images that are not decoded.

        Returns:
            `Iterator[dict[str, list]]`: columns of [`counterfactual_features`], at most `batch_size` rows at a time.
        """
        factuals, factual_classes = self.read_factuals(start, rows)
        exogenous_noise = self.pipe.abduct(factuals, batch_size=self.batch_size, **self.abduction)
        pairs = [
            (position, target)
            for position, factual_class in enumerate(factual_classes)
            for target in self.interventions.targets(start + position, factual_class)
        ]
        for first in range(0, len(pairs), self.batch_size):
            positions, targets = map(list, zip(*pairs[first : first + self.batch_size], strict=True))
            output = self.pipe.predict(exogenous_noise[positions], targets, output_type="pt", **self.prediction)
            factual, counterfactual = factuals[positions], output.images.float().cpu()
            columns = {
                "index": [start + position for position in positions],
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
