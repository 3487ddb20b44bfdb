# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
import torch.nn.functional as F

from ..metrics.networks import ImageAutoencoder, ImageClassifier
from .baseline_pipeline import BaselinePipeline
from .class_prototypes import ClassPrototypes


class VanLooverenKlaisePipeline(BaselinePipeline):
    r"""
    Counterfactuals after [Van Looveren & Klaise (2021)](https://huggingface.co/papers/1907.02584), towards a given
    class. The change `d` of the image `x` minimises

    `c * max(0, max_{j != t} p_j - p_t + kappa) + beta * |d|_1 + |d|_2^2 + gamma * |x + d - AE(x + d)|_2^2
    + theta * |ENC(x + d) - proto_t|_2^2`,

    where `p` are the classifier's probabilities, `t` is the target class, `AE` an autoencoder, which keeps the image
    realistic, `ENC` its encoder and `proto_t` the target's prototype, which shows the way. In the paper the first term
    asks for any class but the factual one, and the prototype is that of the nearest class.

    The loss is minimised by FISTA ([Beck & Teboulle, 2009](https://doi.org/10.1137/080716542)): gradient descent on
    all terms but the L1 norm from a point that momentum has carried on, then shrinkage of the change by `beta`. The
    result is the image with the smallest `beta * |d|_1 + |d|_2^2` of all on the way that the classifier takes for the
    target. The minimisation is repeated `c_steps` times, each time with a lower `c` if the last one led to the target
    and a higher one if not; every image has its own. An image that is never taken for the target ends where its last
    minimisation does.

    Images are in [0, 1] here, in [-0.5, 0.5] in the paper. The loss is the same, given an autoencoder and a classifier
    that were trained on images in [0, 1].

    No image depends on the others in its batch. But where the learning rate is so high that the iteration oscillates,
    as the paper's does on MNIST at first, rounding errors grow, and with them the small differences between the sums
    that a processor takes for batches of one size and of another.

    This model inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.).

    Parameters:
        classifier ([`ImageClassifier`]): The classifier whose decision is to change. It is used in evaluation mode.
        autoencoder ([`ImageAutoencoder`]): An autoencoder of the same images.
        prototypes ([`ClassPrototypes`]): The mean encoding of each class' training images.
        kappa (`float`, *optional*, defaults to 0.0): By how much the target's probability exceeds every other.
        beta (`float`, *optional*, defaults to 0.1): Weight of the L1 norm, and threshold of the shrinkage.
        gamma (`float`, *optional*, defaults to 100.0): Weight of the reconstruction error.
        theta (`float`, *optional*, defaults to 100.0): Weight of the distance to the prototype.
        c_init (`float`, *optional*, defaults to 1.0): First weight `c` of the classification.
        c_steps (`int`, *optional*, defaults to 2): How many values of `c` are tried.
        max_iterations (`int`, *optional*, defaults to 1000): Iterations with each of them.
        learning_rate (`float`, *optional*, defaults to 0.01):
            First step size; it decays to zero with the square root of the iterations that are left.

    Raises:
        ValueError: if a setting is out of its range, or if the components do not take the same images, classes and
            encodings.
    """

    model_cpu_offload_seq = "classifier"
    # They take turns in every iteration, and are small.
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
        for name, value in (("kappa", kappa), ("beta", beta), ("gamma", gamma), ("theta", theta)):
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"`{name}` takes a number of at least 0, got {value!r}.")
        for name, value in (("c_init", c_init), ("learning_rate", learning_rate)):
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"`{name}` takes a positive number, got {value!r}.")
        for name, value in (("c_steps", c_steps), ("max_iterations", max_iterations)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` takes a whole number of at least 1, got {value!r}.")
        for name in ("sample_size", "in_channels"):
            if autoencoder.config[name] != classifier.config[name]:
                raise ValueError(
                    f"`autoencoder` takes the images of `classifier`, whose `{name}` is {classifier.config[name]}, "
                    f"got one whose `{name}` is {autoencoder.config[name]}."
                )
        if prototypes.config.num_classes != classifier.config.num_classes:
            raise ValueError(
                f"`prototypes` takes one for each of `classifier`'s {classifier.config.num_classes} classes, got "
                f"{prototypes.config.num_classes}."
            )
        # Convolutions with few channels are up to twice as fast on CPUs in this layout.
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
            # Some would broadcast, and the search would be led elsewhere.
            raise ValueError(
                f"`prototypes` takes encodings of `autoencoder`, of shape {encoding_shape}, got `encoding_shape` "
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
        """The loss' first term without its weight, `(batch,)`: zero where an image is taken for its target."""
        probabilities = self.classifier(image).softmax(dim=-1)
        is_target = F.one_hot(target, probabilities.shape[-1]).bool()
        rival = probabilities.masked_fill(is_target, 0).amax(dim=-1)
        return (rival - probabilities[is_target] + self.config.kappa).clamp(min=0)

    def smooth_gradient(
        self, image: torch.Tensor, factual: torch.Tensor, target: torch.Tensor, c: torch.Tensor
    ) -> torch.Tensor:
        """The gradient of all terms of the loss but the L1 norm, like `image`."""
        with torch.inference_mode(False), torch.enable_grad():
            # Tensors made under inference mode cannot enter autograd; their copies can.
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

    def search(
        self, factual: torch.Tensor, target: torch.Tensor, progress_bar
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        config = self.config
        best_image, best_distance = factual, torch.full(target.shape, torch.inf, device=factual.device)
        c_low, c_high = torch.zeros_like(best_distance), best_distance
        c = torch.full_like(best_distance, config.c_init)

        for _ in range(config.c_steps):
            reached = torch.zeros_like(target, dtype=torch.bool)
            image = momentum = factual
            for iteration in range(config.max_iterations):
                learning_rate = config.learning_rate * (1 - iteration / config.max_iterations) ** 0.5
                gradient = self.smooth_gradient(momentum, factual, target, c)
                change = F.softshrink(momentum - learning_rate * gradient - factual, config.beta)
                previous, image = image, (factual + change).clamp(0, 1)
                momentum = (image + iteration / (iteration + 3) * (image - previous)).clamp(0, 1)

                is_target = self.hinge(image, target) == 0
                change = (image - factual).flatten(1)
                distance = config.beta * change.abs().sum(dim=1) + change.square().sum(dim=1)
                # Until the target is reached, the last image is the best.
                improved = torch.where(is_target, distance < best_distance, best_distance.isinf())
                best_image = torch.where(improved[:, None, None, None], image, best_image)
                best_distance = torch.where(improved & is_target, distance, best_distance)
                reached |= is_target
            c_high = torch.where(reached, torch.minimum(c, c_high), c_high)
            c_low = torch.where(reached, c_low, torch.maximum(c, c_low))
            c = torch.where(c_high.isinf(), 10 * c, (c_low + c_high) / 2)
        progress_bar.update(len(factual))
        num_iterations = torch.full_like(target, config.c_steps * config.max_iterations)
        return best_image, best_distance.isfinite(), num_iterations
