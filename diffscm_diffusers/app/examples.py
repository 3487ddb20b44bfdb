# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Factual images to pick, and their true counterfactuals where a world knows them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffscm_diffusers.worlds import (
    MorphoMNISTWorld,
    TypefaceWorld,
    World,
    WorldSample,
    measure_intensity,
    measure_thickness,
)


# Beside the package in a checkout; an installed package has none.
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


@dataclass
class Examples:
    """
    Factual images to pick.

    Args:
        images (`list[PIL.Image.Image]`): As the networks take them.
        names (`list[str]`): What each shows.
        world ([`World`], *optional*): Where they come from.
        samples (`list[WorldSample]`): The sample of each image, if they come from a world.
        measures (`dict[str, Callable]`): Attributes that can be measured in an image of that world, and by what.
    """

    images: list[Image.Image]
    names: list[str]
    world: World | None = None
    samples: list[WorldSample] | None = None
    measures: dict[str, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def attributes(self, example: int) -> dict[str, Any]:
        """The attributes of an example from a world, as a call takes them."""
        return {name: value.item() for name, value in self.samples[example].variables.items()}

    def truth(self, example: int | None, do: dict[str, Any]) -> WorldSample | None:
        """The true counterfactual of an example, `None` where no one knows it."""
        if self.world is None or example is None:
            return None
        try:
            return self.world.counterfactual(self.samples[example], do)
        except ValueError:  # a world may have no truth of an intervention, such as another digit in the same hand
            return None


def to_picture(image: torch.Tensor) -> Image.Image:
    """A tensor `(channels, height, width)` in [0, 1] as a picture."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def from_world(world: World, num_samples: int, seed: int, name: str = "digit") -> Examples:
    """Examples drawn from a world, in the order of the node `name`."""
    drawn = world.sample(num_samples, torch.Generator().manual_seed(seed))
    samples = [
        WorldSample(
            *({key: value[i : i + 1] for key, value in part.items()} for part in parts), drawn.images[i : i + 1]
        )
        for i in range(num_samples)
        for parts in [(drawn.variables, drawn.exogenous_noise)]
    ]
    samples.sort(key=lambda sample: sample.variables[name].item())
    labels = world.graph["nodes"][name]["labels"]
    names = [labels[sample.variables[name].item()] for sample in samples]
    return Examples([to_picture(sample.images[0]) for sample in samples], names, world, samples)


def read_digits() -> tuple[list[Image.Image], list[str]]:
    """The shipped handwritten digits and their names; none where only the package is installed."""
    paths = sorted(DIGITS.glob("*.png"))
    return [Image.open(path).copy() for path in paths], [path.stem for path in paths]


def class_examples(checkpoint: str, image_shape: tuple[int, int, int], labels: list[str]) -> Examples:
    """
    Examples for a checkpoint with one class.

    Args:
        checkpoint (`str`): Its name. One with "typeface" in it knows printed digits, of [`TypefaceWorld`].
        image_shape (`tuple[int, int, int]`): What its networks take.
        labels (`list[str]`): Its classes.
    """
    if image_shape != (1, 28, 28) or not {str(digit) for digit in range(10)} >= set(labels):
        return Examples([], [])
    if "typeface" in Path(checkpoint).name:
        return from_world(TypefaceWorld(), 12, seed=2)
    return Examples(*read_digits())


def graph_examples(image_shape: tuple[int, int, int], nodes: list[str]) -> Examples:
    """Examples for a checkpoint with a causal graph of thickness and intensity of handwritten digits."""
    if image_shape != (1, 28, 28) or not {"digit", "thickness", "intensity"} >= set(nodes):
        return Examples([], [])
    measures = {"thickness": measure_thickness, "intensity": measure_intensity}
    measures = {name: measures[name] for name in nodes if name in measures}
    images, names = read_digits()
    if not images:
        return Examples([], [], measures=measures)
    world = MorphoMNISTWorld(np.stack([np.asarray(image) for image in images]), np.array([int(n) for n in names]))
    return replace(from_world(world, 10, seed=3), measures=measures)
