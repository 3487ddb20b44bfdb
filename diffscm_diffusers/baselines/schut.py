# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F

from ..metrics.networks import MLPEnsemble
from .baseline_pipeline import BaselinePipeline


class SchutPipeline(BaselinePipeline):
    r"""
    Counterfactuals after [Schut et al. (2021)](https://huggingface.co/papers/2103.08951): the pixel that matters most
    is changed by a small step, again and again, until an ensemble is sure of the intervention. Being sure, the mean of
    the members' probabilities, needs each member to be sure and all to agree, so that both kinds of uncertainty, and
    with them unrealistic images, are avoided.

    The pixel that matters most is the one with the largest gradient of the cross-entropy between the target class and
    the mean of the members' logits. A pixel is changed by `step_size` against the gradient, within [0, 1], and at most
    `max_changes_per_pixel` times.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    Parameters:
        classifier ([`MLPEnsemble`]): The ensemble. It is used in evaluation mode.
        step_size (`float`, *optional*, defaults to 0.2): How far a pixel is changed at once, in (0, 1].
        max_changes_per_pixel (`int`, *optional*, defaults to 5): How often a pixel is changed at most.
        confidence (`float`, *optional*, defaults to 0.99):
            The target's mean probability from which on an image is done, in (0, 1).
        max_iterations (`int`, *optional*, defaults to 5000): How many changes an image takes at most.

    Raises:
        ValueError: if a setting is out of its range.
    """

    model_cpu_offload_seq = "classifier"

    def __init__(
        self,
        classifier: MLPEnsemble,
        step_size: float = 0.2,
        max_changes_per_pixel: int = 5,
        confidence: float = 0.99,
        max_iterations: int = 5000,
    ):
        super().__init__()
        if not isinstance(step_size, (int, float)) or not 0 < step_size <= 1:
            raise ValueError(f"`step_size` takes a number in (0, 1], got {step_size!r}.")
        if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
            raise ValueError(f"`confidence` takes a number in (0, 1), got {confidence!r}.")
        for name, value in (("max_changes_per_pixel", max_changes_per_pixel), ("max_iterations", max_iterations)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` takes a whole number of at least 1, got {value!r}.")
        self.register_modules(classifier=classifier.eval())
        self.register_to_config(
            step_size=step_size,
            max_changes_per_pixel=max_changes_per_pixel,
            confidence=confidence,
            max_iterations=max_iterations,
        )

    def evaluate(self, sample: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the target's mean probability, `(batch,)`, and the gradient of its cross-entropy, like `sample`."""
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors made under inference mode cannot enter autograd; their copies can.
            sample, target = sample.clone().requires_grad_(), target.clone()
            # In float32 little is left of `1 - p` once the ensemble is sure, and ties between pixels go either way.
            logits = self.classifier(sample).double()
            loss = F.cross_entropy(logits.mean(dim=0), target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, sample)
        probabilities = logits.detach().softmax(dim=-1).mean(dim=0)
        return probabilities.gather(1, target[:, None]).squeeze(1), gradient

    def search(
        self, factual: torch.Tensor, target: torch.Tensor, progress_bar
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pixels = factual.flatten(1).clone()
        num_changes = torch.zeros_like(pixels, dtype=torch.int64)
        succeeded = torch.zeros_like(target, dtype=torch.bool)
        searching = torch.arange(len(pixels), device=pixels.device)  # the images that are not done

        for iteration in range(self.config.max_iterations + 1):
            current = pixels[searching]
            confidence, gradient = self.evaluate(current.unflatten(1, factual.shape[1:]), target[searching])
            gradient = gradient.flatten(1)
            succeeded[searching] = confidence >= self.config.confidence

            # Against the gradient, but beyond black and white there is nothing to step to.
            can_change = torch.where(gradient < 0, current < 1, current > 0)
            can_change &= num_changes[searching] < self.config.max_changes_per_pixel
            saliency, salient = torch.where(can_change, gradient.abs(), 0).max(dim=1)

            unfinished = ~succeeded[searching] & (saliency > 0)
            if iteration == self.config.max_iterations:
                unfinished[:] = False
            progress_bar.update(int((~unfinished).sum()))
            searching, salient = searching[unfinished], salient[unfinished]
            if len(searching) == 0:
                break
            step = -self.config.step_size * gradient[unfinished].gather(1, salient[:, None]).squeeze(1).sign()
            pixels[searching, salient] = (pixels[searching, salient] + step).clamp(0, 1)
            num_changes[searching, salient] += 1
        return pixels.unflatten(1, factual.shape[1:]), succeeded, num_changes.sum(dim=1)
