# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from functools import cached_property

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import DecodedImages
from diffscm_diffusers.metrics import MetricModels, Realism
from diffscm_diffusers.metrics.functional import (
    counterfactual_latent_divergence,
    counterfactual_latent_divergence_floor,
    effectiveness,
    im1,
    im2,
    minimality,
)
from diffscm_diffusers.metrics.functional.counterfactual_latent_divergence import check_latents
from diffscm_diffusers.metrics.networks import LatentVAE

from .pairs import Pairs


class LatentMean(nn.Module):
    """A VAE's encoder as a feature extractor."""

    def __init__(self, vae: LatentVAE):
        super().__init__()
        self.vae = vae

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(image)[0]


class Scorer:
    """
    Scores the images that different methods give for the same pairs. Processes share the pairs in batches that do not
    depend on how many processes there are.

    Args:
        accelerator (`Accelerator`): The processes and their devices.
        models ([`MetricModels`], *optional*):
            The networks that the metrics need. Without them, the distance from the factual is all that is scored.
        pairs (`Pairs`): The pairs.
        factuals (`DecodedImages`): Their factuals.
        reference (`DecodedImages`): Real images, whose latents are compared with.
        batch_size (`int`): How many images the networks see at once.

    Attributes:
        factual_mean (`torch.Tensor` of shape `(num_pairs, latent_dim)`): Means of the factuals' latents.
        reference_mean (`torch.Tensor` of shape `(num_references, latent_dim)`): Means of the reference images'.

    Raises:
        ValueError: if the models do not fit the images or their classes.
    """

    @torch.no_grad()
    def __init__(
        self,
        accelerator: Accelerator,
        models: MetricModels | None,
        pairs: Pairs,
        factuals: DecodedImages,
        reference: DecodedImages,
        batch_size: int,
    ):
        self.accelerator = accelerator
        self.models = None if models is None else models.to(accelerator.device)
        self.pairs = pairs
        self.factuals = factuals
        self.reference = reference
        self.batch_size = batch_size
        self.batches = self.share(torch.arange(len(pairs)).split(batch_size))

        # Models that don't fit the data fail here, not after hours of generation.
        self.score_batch(torch.arange(2), factuals.images(slice(2)))
        if models is not None:
            self.factual_mean, self.factual_variance = self.encode(factuals, "Encoding factuals")
            self.reference_mean, self.reference_variance = self.encode(reference, "Encoding references")

    @property
    def vae(self) -> LatentVAE | None:
        """[`LatentVAE`]: the one that scores; `None` without metric models."""
        return None if self.models is None else self.models.vae

    def share(self, batches: tuple) -> tuple:
        """The batches that are this process's."""
        return batches[self.accelerator.process_index :: self.accelerator.num_processes]

    def progress_bar(self, batches: tuple, description: str) -> tqdm:
        return tqdm(batches, description, leave=False, disable=not self.accelerator.is_main_process)

    def encode(self, images: DecodedImages, description: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and variances of the images' latents, of all images in every process."""
        means, variances = [], []
        for index in self.progress_bar(torch.arange(len(images)).split(self.batch_size), description):
            mean, variance = self.models.vae.encode(images.images(index).to(self.accelerator.device))
            means.append(mean.cpu())
            variances.append(variance.cpu())
        latents = torch.cat(means), torch.cat(variances)
        check_latents(vae=latents)
        return latents

    def score_batch(self, index: torch.Tensor, counterfactual: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the networks say of some pairs' images."""
        device = self.accelerator.device
        counterfactual = counterfactual.to(device)
        factual = self.factuals.images(index).to(device)
        factual_class = self.pairs.factual_class[index].to(device)
        intervention = self.pairs.intervention[index].to(device)
        scores = {norm: minimality(factual, counterfactual, norm).cpu() for norm in ("l1", "l2")}
        if self.models is None:
            return scores
        class_autoencoders, autoencoder = self.models.class_autoencoders, self.models.autoencoder
        mean, variance = self.models.vae.encode(counterfactual)
        scores |= {
            "im1": im1(counterfactual, factual_class, intervention, class_autoencoders),
            "im2": im2(counterfactual, intervention, class_autoencoders, autoencoder),
            "effectiveness": effectiveness(counterfactual, intervention, self.models.oracle),
            "mean": mean,
            "variance": variance,
        }
        return {name: score.cpu() for name, score in scores.items()}

    @cached_property
    def cld_floor(self) -> torch.Tensor:
        """The lowest CLD that this process's pairs could reach, whatever the method."""
        return counterfactual_latent_divergence_floor(*self.divergence_inputs)

    @cached_property
    def divergence_inputs(self) -> tuple[torch.Tensor, ...]:
        """What CLD needs to know of this process's pairs and of the reference set."""
        index = torch.cat(self.batches)
        return (
            self.factual_mean[index],
            self.factual_variance[index],
            self.pairs.factual_class[index],
            self.pairs.intervention[index],
            self.reference_mean,
            self.reference_variance,
            self.reference.classes,
        )

    @torch.no_grad()
    def score(self, counterfactual: torch.Tensor) -> pd.DataFrame:
        """
        Scores one method's images.

        Args:
            counterfactual (`torch.Tensor` of shape `(num_pairs, channels, height, width)`): Float32 in [0, 1].

        Returns:
            `pd.DataFrame`: one row per pair, in their order, the same in every process.
        """
        rows = pd.DataFrame()
        if self.batches:
            batches = [
                self.score_batch(index, counterfactual[index]) for index in self.progress_bar(self.batches, "Scoring")
            ]
            scores = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
            if self.models is not None:
                latents = scores.pop("mean"), scores.pop("variance")
                scores["cld"] = counterfactual_latent_divergence(*latents, *self.divergence_inputs)
                scores["cld_floor"] = self.cld_floor
                scores["cld_excess"] = scores["cld"] - scores["cld_floor"]
            index = torch.cat(self.batches)
            columns = {
                "index": index,
                "row": self.pairs.row[index],
                "factual_class": self.pairs.factual_class[index],
                "intervention": self.pairs.intervention[index],
                **scores,
            }
            rows = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
        return pd.concat(gather_object([rows])).sort_values("index", ignore_index=True)

    @cached_property
    @torch.no_grad()
    def realism_metric(self) -> Realism:
        """Has seen the reference images, and keeps them when it is reset."""
        metric = Realism(LatentMean(self.models.vae).eval(), self.factuals.pixels.shape[1:], reset_real_features=False)
        metric.to(self.accelerator.device)
        batches = self.share(torch.arange(len(self.reference)).split(self.batch_size))
        for index in self.progress_bar(batches, "Realism of references"):
            metric.update(self.reference.images(index).to(self.accelerator.device), real=True)
        return metric

    @torch.no_grad()
    def realism(self, counterfactual: torch.Tensor) -> float:
        """The Fréchet distance of one method's images from the reference images, on the means of their latents."""
        metric = self.realism_metric
        for index in self.progress_bar(self.batches, "Realism"):
            metric.update(counterfactual[index].to(self.accelerator.device), real=False)
        distance = metric.compute().item()
        metric.reset()
        return distance
