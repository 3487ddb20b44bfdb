# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers.utils import BaseOutput

from diffscm_diffusers.metrics.functional.counterfactual_latent_divergence import (
    check_latents,
    check_reference,
    find_floor,
    gaussian_divergence,
    reference_divergences,
    score_divergence,
)
from diffscm_diffusers.pipelines import DiffSCMCounterfactualPipeline


@dataclass
class GuidanceScaleSearchOutput(BaseOutput):
    """
    The output of [`GuidanceScaleSearch`].

    Args:
        images (`list[PIL.Image.Image]` or `np.ndarray` or `torch.Tensor`):
            The counterfactuals at the scales that were chosen; see [`DiffSCMCounterfactualPipelineOutput`].
        guidance_scale (`torch.Tensor` of shape `(batch,)`): The scale of each.
        cld (`torch.Tensor` of shape `(batch,)`):
            The counterfactual latent divergence of each, in [0.693, 1.693], under the encoder of the search.
        log_probs (`torch.Tensor` of shape `(batch,)`): `log p(y_cf | x)` of each under the anti-causal predictor.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    guidance_scale: torch.Tensor
    cld: torch.Tensor
    log_probs: torch.Tensor


def encode_pixels(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as means, with variances of 1: divergences are then half the squared distances between images."""
    pixels = image.flatten(1)
    return pixels, torch.ones_like(pixels)


class GuidanceScaleSearch:
    r"""
    Gives each image its own guidance scale, that at which the intervention changes as much as it has to and no more.

    How much has to change differs by image: little makes a 9 of an upright 4, much a 1 of an 8. One scale for all (the
    paper's, Fig. 4) changes the first too little and the second too much, as CLD, the counterfactual latent
    divergence, sees it (paper, Eq. 8 to 10). CLD asks that a counterfactual be farther from its factual than images of
    the factual's class are, and nearer than images of the target class are. So the divergence at which it is lowest is
    known before any counterfactual is made, from the factual and real images alone. A counterfactual's divergence
    grows with its scale, and bisection of the scale's logarithm leads to the one wanted. A scale at which the
    anti-causal predictor gives the target a probability below `target_probability` counts as too low.

    A checkpoint that abducts marginally does so once, so `n` candidates cost `n` predictions and one abduction; any
    other abducts anew for each candidate, as it climbs that one's guided moves under the factual's class. Of the
    candidates that give the target its probability, or of all where none does, the one with the lowest CLD is
    returned.

    Whoever scores the result by CLD takes another encoder than the search's: a search fits its own judge.

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`]): Makes the counterfactuals.
        reference_images (`torch.Tensor` of shape `(num_references, channels, height, width)`):
            Real images in [0, 1] to compare with, at least two of each class, the training images for instance.
        reference_class (`torch.Tensor` of shape `(num_references,)`): Their class indices.
        encode (`Callable`, *optional*):
            Maps images in [0, 1] to means and variances of latent Gaussians, each of shape `(batch, latent_dim)`, as
            [`LatentVAE.encode`] does. Default: the pixels themselves, with variances of 1.
        scale_range (`tuple[float, float]`, *optional*, defaults to `(0.5, 32.0)`):
            The lowest and the highest scale, above 0.
        num_candidates (`int`, *optional*, defaults to 5): How many scales are tried for each image.
        target_probability (`float`, *optional*, defaults to 0.999):
            The least probability, in (0, 1), that the anti-causal predictor has to give the target. Other classifiers
            miss some of what this one, whose gradient led there, takes for the target with little more than 1/2.

    Raises:
        ValueError: if the references are not as described, or the other arguments are out of their range.
        TypeError: if the references are no tensors, or `encode` is no function.

    Example:

    ```py
    >>> search = GuidanceScaleSearch(pipe, training_images, training_labels)
    >>> output = search(factuals, "3", num_inference_steps=10, abduction="source")
    >>> output.images, output.guidance_scale
    ```
    """

    @torch.no_grad()
    def __init__(
        self,
        pipe: DiffSCMCounterfactualPipeline,
        reference_images: torch.Tensor,
        reference_class: torch.Tensor,
        encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        scale_range: tuple[float, float] = (0.5, 32.0),
        num_candidates: int = 5,
        target_probability: float = 0.999,
    ):
        for name, value in (("reference_images", reference_images), ("reference_class", reference_class)):
            if not torch.is_tensor(value):
                raise TypeError(f"`{name}` expects a tensor, got {type(value).__name__}.")
        if encode is not None and not callable(encode):
            raise TypeError(f"`encode` expects a function, got {encode!r}.")
        if tuple(reference_images.shape[1:]) != pipe.image_shape or len(reference_images) == 0:
            raise ValueError(
                f"`reference_images` expects images of shape {pipe.image_shape}, got a batch of shape "
                f"{tuple(reference_images.shape)}."
            )
        low, high = torch.aminmax(reference_images)
        if not reference_images.is_floating_point() or not (low >= 0 and high <= 1):
            raise ValueError(
                f"`reference_images` expects floats in [0, 1], got {reference_images.dtype} from {low:.4g} to "
                f"{high:.4g}."
            )
        is_pair = isinstance(scale_range, (tuple, list)) and len(scale_range) == 2
        is_pair = is_pair and all(isinstance(scale, (int, float)) for scale in scale_range)
        if not is_pair or not 0 < scale_range[0] < scale_range[1] < float("inf"):
            raise ValueError(f"`scale_range` expects two scales above 0, the lower one first, got {scale_range!r}.")
        if type(num_candidates) is not int or num_candidates < 1:
            raise ValueError(f"`num_candidates` expects a whole number of at least 1, got {num_candidates!r}.")
        if not isinstance(target_probability, float) or not 0 < target_probability < 1:
            raise ValueError(f"`target_probability` expects a number in (0, 1), got {target_probability!r}.")
        self.pipe = pipe
        self.encode = encode_pixels if encode is None else encode
        self.scale_range = scale_range
        self.num_candidates = num_candidates
        self.target_probability = target_probability
        latents = self.encode_batches(batch.to(pipe.device) for batch in reference_images.split(500))
        self.reference = *latents, reference_class.to(pipe.device)
        check_reference(*self.reference)

    def encode_batches(self, batches: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and variances of the latents of images that come in batches."""
        # In full precision always, as what the latents are compared with was encoded.
        with torch.autocast(self.pipe.device.type, enabled=False):
            means, variances = zip(*map(self.encode, batches), strict=True)
        latents = torch.cat(means), torch.cat(variances)
        check_latents(encode=latents)
        return latents

    @torch.no_grad()
    def __call__(
        self,
        image: PIL.Image.Image | np.ndarray | torch.Tensor | list,
        intervention: int | str | list[int | str] | np.ndarray | torch.Tensor,
        num_inference_steps: int | None = None,
        guidance_interval: tuple[int, int] | None = None,
        abduction: str | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
    ) -> GuidanceScaleSearchOutput:
        """
        Estimates counterfactuals, each at the best of its candidate scales.

        The arguments are those of [`DiffSCMCounterfactualPipeline`]. The factual's class is the one that the
        anti-causal predictor sees in it. The divergences of all images from the references of two classes are held at
        once, eight bytes each, so many images are best given in parts.

        Raises:
            ValueError: as the pipeline, and if the references have no image of a class.
            TypeError: as the pipeline.

        Returns:
            [`GuidanceScaleSearchOutput`]: images, and the scale of each.
        """
        pipe = self.pipe
        pipe.check_inputs(
            abduction=abduction, guidance_interval=guidance_interval, batch_size=batch_size, output_type=output_type
        )
        factual = pipe.prepare_image(image)
        guidance, num_images = pipe.prepare_guidance(intervention, 1.0, guidance_interval, len(factual))
        targets = guidance.target
        factual_batches = factual.split(batch_size or len(factual))
        factual_latent = self.encode_batches(map(pipe.image_processor.denormalize, factual_batches))
        factual_latent = [parameter.expand(num_images, -1) for parameter in factual_latent]
        logits = torch.cat([pipe.classifier(x.to(pipe.classifier.dtype), 0).logits for x in factual_batches])
        if not logits.isfinite().all():
            raise ValueError("`classifier` expects to read the factuals' classes, got NaN or infinity as logits.")
        factual_class = logits.argmax(dim=1)
        classes = factual_class.expand(num_images), targets
        # The sets that CLD compares with, the same for all candidates.
        chunks = list(reference_divergences(*factual_latent, *classes, *self.reference, chunk_size=16))
        wanted = torch.empty(num_images, dtype=torch.float64, device=factual.device)
        for index, *sets in chunks:
            _, wanted[index] = find_floor(*sets)

        # Marginal abduction serves all scales; abduction under the factual's class climbs the moves of each.
        is_marginal = pipe.config.default_marginal_abduction
        how = {"num_inference_steps": num_inference_steps, "batch_size": batch_size, "abduction": abduction}
        if is_marginal:
            exogenous_noise = pipe.abduct(image, **how)
        else:
            repeated = pipe.image_processor.denormalize(factual).expand(num_images, *pipe.image_shape)
        lower, upper = (factual.new_full((num_images,), scale) for scale in self.scale_range)
        chosen = None
        for _ in range(self.num_candidates):
            scale = (lower * upper).sqrt()
            if not is_marginal:
                under_class = {"factual_class": classes[0], "guidance_scale": scale}
                exogenous_noise = pipe.abduct(repeated, guidance_interval=guidance_interval, **under_class, **how)
            output = pipe.predict(
                exogenous_noise,
                targets,
                guidance_scale=scale,
                num_inference_steps=num_inference_steps,
                guidance_interval=guidance_interval,
                batch_size=batch_size,
                output_type="pt",
            )
            latent = self.encode_batches(output.images.split(batch_size or num_images))
            divergence = gaussian_divergence(*(parameter.double() for parameter in (*latent, *factual_latent)))
            cld = torch.empty_like(divergence)
            for index, *sets in chunks:
                cld[index] = score_divergence(divergence[index], *sets)

            candidate = {
                "images": output.images,
                "guidance_scale": scale,
                "cld": cld.float(),
                "log_probs": output.log_probs,
            }
            missed = self.misses_target(candidate)
            if chosen is None:
                chosen = candidate
            else:
                # One that shows the target is better than any that doesn't; among equals, the lower CLD.
                chosen_missed = self.misses_target(chosen)
                lower_cld = candidate["cld"] < chosen["cld"]
                better = (missed < chosen_missed) | ((missed == chosen_missed) & lower_cld)
                chosen = {
                    name: torch.where(better.reshape(-1, *[1] * (kept.ndim - 1)), candidate[name], kept)
                    for name, kept in chosen.items()
                }
            too_low = missed | (divergence <= wanted)
            lower, upper = torch.where(too_low, scale, lower), torch.where(too_low, upper, scale)

        images = pipe.image_processor.normalize(chosen.pop("images"))
        images = pipe.image_processor.postprocess(images, output_type=output_type)
        return GuidanceScaleSearchOutput(images=images, **chosen)

    def misses_target(self, candidate: dict[str, torch.Tensor]) -> torch.Tensor:
        """Whether the anti-causal predictor gives the target of each image less than `target_probability`."""
        return candidate["log_probs"] < math.log(self.target_probability)
