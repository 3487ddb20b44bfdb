# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..metrics.networks import ImageAutoencoder, ImageClassifier
from .baseline_pipeline import BaselinePipeline
from .class_prototypes import ClassPrototypes


class VanLooverenKlaisePipeline(BaselinePipeline):
    r"""
    Counterfactuals by [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584) for a given target
    class. The change `d` of the image `x` minimises

    `c * max(0, max_{j != t} p_j - p_t + kappa) + beta * |d|_1 + |d|_2^2 + gamma * |x + d - AE(x + d)|_2^2
    + theta * |ENC(x + d) - proto_t|_2^2`,

    where `p` are the classifier's probabilities, `t` is the target class, `AE` is an autoencoder, `ENC` is its encoder
    and `proto_t` is the prototype of the target class. The autoencoder's term keeps the image realistic, and the
    prototype's term leads to the target class. In the paper, the first term accepts any class but the factual one, and
    the prototype is that of the nearest class.

    The loss is minimised with FISTA ([Beck & Teboulle, 2009](https://doi.org/10.1137/080716542)): a gradient step on
    all terms but the L1 norm, shrinkage of the change by `beta`, and a momentum step. The minimisation is repeated
    `c_steps` times with a bisection over `c`, separately for each image: `c` decreases if an iterate was classified as
    the target, otherwise it increases. The result is the iterate classified as the target with the smallest
    `beta * |d|_1 + |d|_2^2`. If there is none, it is the last iterate.

    Images are in [0, 1] here and in [-0.5, 0.5] in the paper. The loss is the same if autoencoder and classifier were
    trained on images in [0, 1].

    The result for an image does not depend on the other images of its batch, up to rounding. Rounding errors grow if
    the learning rate is so high that the iteration oscillates, as it does at first with the paper's settings on MNIST.
    Then results can depend on the batch size.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    Parameters:
        classifier ([`ImageClassifier`]): The classifier to explain. It is set to evaluation mode.
        autoencoder ([`ImageAutoencoder`]): An autoencoder for the same images.
        prototypes ([`ClassPrototypes`]): The mean encoding of each class.
        kappa (`float`, *optional*, defaults to 0.0):
            The margin by which the target class's probability must exceed all others.
        beta (`float`, *optional*, defaults to 0.1): Weight of the L1 norm, and threshold of the shrinkage.
        gamma (`float`, *optional*, defaults to 100.0): Weight of the reconstruction error.
        theta (`float`, *optional*, defaults to 100.0): Weight of the distance to the prototype.
        c_init (`float`, *optional*, defaults to 1.0): The first weight `c` of the classification.
        c_steps (`int`, *optional*, defaults to 2): The number of values of `c`.
        max_iterations (`int`, *optional*, defaults to 1000): The number of iterations for each value of `c`.
        learning_rate (`float`, *optional*, defaults to 0.01):
            The first step size. It decays to zero with the square root of the number of remaining iterations.

    Raises:
        ValueError: If a setting is out of its range, or the components differ in the shape of images or encodings, or
            in the number of classes.
    """

    model_cpu_offload_seq = "classifier"
    # Small, and used in every iteration.
    _exclude_from_cpu_offload = ["autoencoder", "prototypes"]

    def __init__(
        self,
        classifier: ImageClassifier,
        autoencoder: ImageAutoencoder,
        prototypes: ClassPrototypes,
        kappa: float = 0.0,
        beta: float = 0.1,
        gamma: float = 100.0,
        theta: float = 100.0,
        c_init: float = 1.0,
        c_steps: int = 2,
        max_iterations: int = 1000,
        learning_rate: float = 0.01,
    ):
        super().__init__()
        for name, part, kind in (
            ("classifier", classifier, ImageClassifier),
            ("autoencoder", autoencoder, ImageAutoencoder),
            ("prototypes", prototypes, ClassPrototypes),
        ):
            if not isinstance(part, kind):
                raise TypeError(f"`{name}` expects {kind.__name__}, got {type(part).__name__}.")
        for name, value in (("kappa", kappa), ("beta", beta), ("gamma", gamma), ("theta", theta)):
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"`{name}` expects a finite number of at least 0, got {value!r}.")
        for name, value in (("c_init", c_init), ("learning_rate", learning_rate)):
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"`{name}` expects a finite number above 0, got {value!r}.")
        for name, value in (("c_steps", c_steps), ("max_iterations", max_iterations)):
            if type(value) is not int or value < 1:
                raise ValueError(f"`{name}` expects an integer of at least 1, got {value!r}.")
        for name in ("sample_size", "in_channels"):
            if autoencoder.config[name] != classifier.config[name]:
                raise ValueError(
                    f"`autoencoder` expects the `{name}` of `classifier`, {classifier.config[name]}, got "
                    f"{autoencoder.config[name]}."
                )
        if prototypes.config.num_classes != classifier.config.num_classes:
            raise ValueError(
                f"`prototypes` expects one prototype for each of the {classifier.config.num_classes} classes of "
                f"`classifier`, got {prototypes.config.num_classes}."
            )
        # On CPUs, convolutions with few channels are up to twice as fast in this memory format.
        classifier.eval().to(memory_format=torch.channels_last)
        autoencoder.eval().to(memory_format=torch.channels_last)
        image = torch.zeros(
            1,
            classifier.config.in_channels,
            classifier.config.sample_size,
            classifier.config.sample_size,
            dtype=autoencoder.dtype,
            device=autoencoder.device,
        )
        with torch.no_grad():
            encoding_shape = tuple(autoencoder.encode(image).shape[1:])
        if tuple(prototypes.config.encoding_shape) != encoding_shape:
            # Some other shapes broadcast, so the search would run and return wrong images.
            raise ValueError(
                f"`prototypes` expects the `encoding_shape` of `autoencoder`, {encoding_shape}, got "
                f"{tuple(prototypes.config.encoding_shape)}."
            )
        self.register_modules(classifier=classifier, autoencoder=autoencoder, prototypes=prototypes.eval())
        self.register_to_config(
            kappa=kappa,
            beta=beta,
            gamma=gamma,
            theta=theta,
            c_init=c_init,
            c_steps=c_steps,
            max_iterations=max_iterations,
            learning_rate=learning_rate,
        )

    def hinge(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The first term of the loss without `c`, of shape `(batch,)`: 0 for images classified as their targets."""
        probabilities = self.classifier(image).softmax(dim=-1)
        is_target = F.one_hot(target, probabilities.shape[-1]).bool()
        rival = probabilities.masked_fill(is_target, 0).amax(dim=-1)
        return (rival - probabilities[is_target] + self.config.kappa).clamp(min=0)

    def smooth_gradient(
        self, image: torch.Tensor, factual: torch.Tensor, target: torch.Tensor, c: torch.Tensor
    ) -> torch.Tensor:
        """The gradient of all terms of the loss but the L1 norm, in the shape of the images."""
        with torch.inference_mode(False), torch.enable_grad():
            # Autograd rejects tensors that were created in inference mode, but not their clones.
            image, factual, target, c = image.clone().requires_grad_(), factual.clone(), target.clone(), c.clone()
            encoding = self.autoencoder.encode(image)
            loss = (
                c * self.hinge(image, target)
                + (image - factual).square().sum(dim=(1, 2, 3))
                + self.config.gamma * (image - self.autoencoder.decode(encoding)).square().sum(dim=(1, 2, 3))
                + self.config.theta * (encoding - self.prototypes(target)).square().sum(dim=(1, 2, 3))
            )
            (gradient,) = torch.autograd.grad(loss.sum(), image)
        return gradient

    def minimise(self, factual: torch.Tensor, target: torch.Tensor, c: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the iterates of FISTA, images in [0, 1]."""
        max_iterations = self.config.max_iterations
        image = momentum = factual
        for iteration in range(max_iterations):
            learning_rate = self.config.learning_rate * (1 - iteration / max_iterations) ** 0.5
            gradient = self.smooth_gradient(momentum, factual, target, c)
            change = F.softshrink(momentum - learning_rate * gradient - factual, self.config.beta)
            previous, image = image, (factual + change).clamp(0, 1)
            momentum = (image + iteration / (iteration + 3) * (image - previous)).clamp(0, 1)
            yield image

    def search(
        self, factual: torch.Tensor, target: torch.Tensor, progress_bar: tqdm
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        c = torch.full(target.shape, float(self.config.c_init), device=factual.device)
        c_low, c_high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        best_image, best_distance = factual, torch.full_like(c, torch.inf)

        for _ in range(self.config.c_steps):
            reached = torch.zeros_like(target, dtype=torch.bool)
            for image in self.minimise(factual, target, c):
                is_target = self.hinge(image, target) == 0
                change = (image - factual).flatten(1)
                distance = self.config.beta * change.abs().sum(dim=1) + change.square().sum(dim=1)
                # Until the target is reached, the best image is the last one.
                is_better = torch.where(is_target, distance < best_distance, best_distance.isinf())
                best_image = torch.where(is_better[:, None, None, None], image, best_image)
                best_distance = torch.where(is_better & is_target, distance, best_distance)
                reached |= is_target
            c_high = torch.where(reached, torch.minimum(c, c_high), c_high)
            c_low = torch.where(reached, c_low, torch.maximum(c, c_low))
            c = torch.where(c_high.isinf(), 10 * c, (c_low + c_high) / 2)
        progress_bar.update(len(factual))
        num_iterations = torch.full_like(target, self.config.c_steps * self.config.max_iterations)
        return best_image, best_distance.isfinite(), num_iterations
