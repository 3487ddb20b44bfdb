# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A network that measures attributes of images, such as a rotation or the typeface."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import DecodedImages
from diffscm_diffusers.files import load_whole, save_whole, written_whole
from diffscm_diffusers.metrics.networks import ImageClassifier


BATCH_SIZE = 128
MAX_LEARNING_RATE = 2e-3


class MeasuringNetwork:
    """
    Reads the attributes of images that a world rendered: a convolutional network with one output for each entry of the
    graph's condition. It is trained on real images, without noise, and shares nothing with a causal model.

    Args:
        graph ([`CausalGraph`]): The attributes are the causes of its image.
        network ([`ImageClassifier`]): The network.
    """

    def __init__(self, graph: CausalGraph, network: ImageClassifier):
        self.graph = graph
        self.network = network.eval()

    @classmethod
    def train(
        cls,
        graph: CausalGraph,
        images: DecodedImages,
        attributes: dict[str, torch.Tensor],
        num_steps: int,
        seed: int,
        show_progress: bool = True,
    ) -> "MeasuringNetwork":
        """
        Trains a network on the CPU, with squared errors of numbers in units of their range and cross-entropies of
        categories.

        Args:
            graph ([`CausalGraph`]): The attributes are the causes of its image.
            images (`DecodedImages`): The images.
            attributes (`dict[str, torch.Tensor]`): Their attributes, as [`CausalGraph.check_values`] gives them.
            num_steps (`int`): Number of steps, of 128 images each.
            seed (`int`): Seed of weights and batches.
            show_progress (`bool`, *optional*, defaults to `True`): Whether there is a progress bar.
        """
        condition, widths = graph.condition(attributes), list(graph.condition_widths.values())
        _, channels, size, _ = images.pixels.shape
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            network = ImageClassifier(size, channels, sum(widths), block_dropouts=(0.0, 0.0), hidden_features=256)
            network.train()
            optimizer = torch.optim.AdamW(network.parameters(), MAX_LEARNING_RATE)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LEARNING_RATE, num_steps)
            for _ in tqdm(range(num_steps), "Training the measuring network", disable=not show_progress):
                rows = torch.randint(len(images), (BATCH_SIZE,))
                outputs = network(images.images(rows)).split(widths, dim=1)
                loss = 0
                for output, target in zip(outputs, condition[rows].split(widths, dim=1), strict=True):
                    is_number = target.shape[1] == 1
                    loss = loss + (F.mse_loss(output, target) if is_number else F.cross_entropy(output, target))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return cls(graph, network)

    @torch.no_grad()
    def measure(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Measures images in [0, 1], of shape `(batch, channels, height, width)`: the value of each attribute, as
        [`CausalGraph.values`] gives it.
        """
        return self.graph.values(torch.cat([self.network(batch) for batch in images.split(500)]))

    def save(self, folder: Path, settings: dict):
        """Writes the network, and what it was trained with, to a folder."""
        with written_whole(folder) as unfinished:
            save_whole(self.network, unfinished)
            (unfinished / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def load(cls, graph: CausalGraph, folder: Path, settings: dict) -> "MeasuringNetwork | None":
        """
        Reads a network that was saved; `None` where there is none.

        Raises:
            ValueError: if it was trained with other settings.
        """
        path = folder / "settings.json"
        if not path.is_file():
            return None
        recorded = json.loads(path.read_text())
        if recorded != settings:
            raise ValueError(
                f"{str(folder)!r} expects a network that was trained with {settings}, got one trained with "
                f"{recorded}. Take another `--output_dir`."
            )
        return cls(graph, load_whole(ImageClassifier, folder))
