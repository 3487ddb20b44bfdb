# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..metrics.networks import MLPEnsemble
from .baseline_pipeline import BaselinePipeline


class SchutPipeline(BaselinePipeline):
    r"""
    Counterfactuals by [Schut et al. (2021)](https://huggingface.co/papers/2103.08951): repeatedly change the most
    salient pixel by a small step until an ensemble of classifiers is confident of the intervention.

    The confidence is the mean of the members' probabilities of the target class. It is high only if each member is
    confident and all agree, so it avoids images with high aleatoric or epistemic uncertainty, which look unrealistic.
    The most salient pixel has the largest absolute gradient of the cross-entropy between the target class and the mean
    of the members' logits. It is changed by `step_size` against the gradient, within [0, 1], and at most
    `max_changes_per_pixel` times.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    Parameters:
        classifier ([`MLPEnsemble`]): The ensemble. It is set to evaluation mode.
        step_size (`float`, *optional*, defaults to 0.2): The size of one change of a pixel, in (0, 1].
        max_changes_per_pixel (`int`, *optional*, defaults to 5): The maximum number of changes of a pixel.
        confidence (`float`, *optional*, defaults to 0.99): The confidence at which the search ends, in (0, 1).
        max_iterations (`int`, *optional*, defaults to 5000): The maximum number of changes of an image.

    Raises:
        ValueError: If a setting is out of its range.
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
        if not isinstance(classifier, MLPEnsemble):
            raise TypeError(f"`classifier` expects an MLPEnsemble, got {type(classifier).__name__}.")
        if not isinstance(step_size, (int, float)) or not 0 < step_size <= 1:
            raise ValueError(f"`step_size` expects a number in (0, 1], got {step_size!r}.")
        if not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
            raise ValueError(f"`confidence` expects a number in (0, 1), got {confidence!r}.")
        for name, value in (("max_changes_per_pixel", max_changes_per_pixel), ("max_iterations", max_iterations)):
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` expects an integer of at least 1, got {value!r}.")
        self.register_modules(classifier=classifier.eval())
        self.register_to_config(
            step_size=step_size,
            max_changes_per_pixel=max_changes_per_pixel,
            confidence=confidence,
            max_iterations=max_iterations,
        )

    def evaluate(self, sample: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the confidence, of shape `(batch,)`, and the gradient of the cross-entropy, shaped like `sample`."""
        with torch.inference_mode(False), torch.enable_grad():
            # Autograd rejects tensors that were created in inference mode, but not their clones.
            sample, target = sample.clone().requires_grad_(), target.clone()
            # In float32, `1 - p` of a confident ensemble loses its digits, and the most salient pixel is arbitrary.
            logits = self.classifier(sample).double()
            loss = F.cross_entropy(logits.mean(dim=0), target, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, sample)
        probabilities = logits.detach().softmax(dim=-1).mean(dim=0)
        return probabilities.gather(1, target[:, None]).squeeze(1), gradient

    def search(
        self, factual: torch.Tensor, target: torch.Tensor, progress_bar: tqdm
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pixels = factual.flatten(1).clone()
        num_changes = torch.zeros_like(pixels, dtype=torch.int64)
        succeeded = torch.zeros_like(target, dtype=torch.bool)
        active = torch.arange(len(pixels), device=pixels.device)  # the images whose search has not ended

        for iteration in range(self.config.max_iterations + 1):
            current = pixels[active]
            confidence, gradient = self.evaluate(current.unflatten(1, factual.shape[1:]), target[active])
            gradient = gradient.flatten(1)
            succeeded[active] = confidence >= self.config.confidence

            # A step is against the gradient. It cannot make white pixels brighter or black pixels darker.
            can_change = torch.where(gradient < 0, current < 1, current > 0)
            can_change &= num_changes[active] < self.config.max_changes_per_pixel
            saliency, salient_pixel = torch.where(can_change, gradient.abs(), 0).max(dim=1)

            continues = ~succeeded[active] & (saliency > 0) & (iteration < self.config.max_iterations)
            progress_bar.update(int((~continues).sum()))
            active, salient_pixel = active[continues], salient_pixel[continues]
            if len(active) == 0:
                break
            step = -self.config.step_size * gradient[continues].gather(1, salient_pixel[:, None]).squeeze(1).sign()
            pixels[active, salient_pixel] = (pixels[active, salient_pixel] + step).clamp(0, 1)
            num_changes[active, salient_pixel] += 1
        return pixels.unflatten(1, factual.shape[1:]), succeeded, num_changes.sum(dim=1)
