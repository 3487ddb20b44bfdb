# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .functional.exogenous_noise import check_cause, check_noise


# At least, and 20 times through the samples: what many samples say together is learned slowly.
NUM_STEPS = 600
NUM_EPOCHS = 20
BATCH_SIZE = 64
# At least, and once through the samples, before the probe is validated again.
VALIDATION_STEPS = 50


def probe_accuracy(noise: torch.Tensor, cause: torch.Tensor, seed: int = 0) -> dict[str, float]:
    """
    How well a small network reads the class of a cause from abducted exogenous noise, which should not tell it.

    The network is trained on four fifths of the samples and asked about the others. A tenth of the four fifths is kept
    apart, to choose the state of training that reads it best. Noise of images, of shape `(batch, channels, height,
    width)`, gets two convolutions and a hidden layer, other noise two hidden layers.

    Args:
        noise (`torch.Tensor` of shape `(batch, ...)`): Abducted exogenous noise, floats, of at least ten samples.
        cause (`torch.Tensor` of shape `(batch,)`): Class indices from 0.
        seed (`int`, *optional*, defaults to 0): Seed of the split, the network's weights and its training.

    Returns:
        `dict[str, float]`:
            `"accuracy"`, and `"chance"`: that of naming the commonest class. Both are fractions of the samples held
            out.

    Raises:
        ValueError: If the shapes do not match, there are fewer than ten samples, a class is negative, or values are
            not finite.
        TypeError: If the noise is not a tensor of floats, or the cause is not one of integers.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import probe_accuracy
        >>> cause = torch.arange(500) % 2
        >>> noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) + 10 * cause[:, None]
        >>> probe_accuracy(noise, cause)["accuracy"]
        1.0
    """
    check_probe(noise, cause)
    if cause.is_floating_point():
        raise TypeError(f"`cause` expects a tensor of integers, got {cause.dtype}.")
    if cause.min() < 0:
        raise ValueError(f"`cause` expects class indices from 0, got {cause.min().item()}.")
    logits, held_out = _train_probe(noise, cause.long(), int(cause.max()) + 1, F.cross_entropy, seed)
    return {
        "accuracy": (logits.argmax(dim=1) == held_out).double().mean().item(),
        "chance": held_out.bincount().max().item() / len(held_out),
    }


def probe_r2(noise: torch.Tensor, cause: torch.Tensor, seed: int = 0) -> float:
    """
    How well a small network reads a number, such as a thickness, from abducted exogenous noise, which should not tell
    it: the coefficient of determination. Network, training and split are those of [`probe_accuracy`].

    Args:
        noise (`torch.Tensor` of shape `(batch, ...)`): Abducted exogenous noise, floats, of at least ten samples.
        cause (`torch.Tensor` of shape `(batch,)`): Floats.
        seed (`int`, *optional*, defaults to 0): Seed of the split, the network's weights and its training.

    Returns:
        `float`: 1 minus the squared error over that of the mean of the training samples, on the samples held out. At
            most 1; around or below 0 if the noise does not tell the cause.

    Raises:
        ValueError: If the shapes do not match, there are fewer than ten samples, the cause never changes, or values
            are not finite.
        TypeError: If the noise or the cause are not tensors of floats.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.metrics import probe_r2
        >>> noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> probe_r2(noise, noise.sum(dim=1)) > 0.95
        True
    """
    check_probe(noise, cause)
    if not cause.is_floating_point():
        raise TypeError(f"`cause` expects a tensor of floats, got {cause.dtype}.")
    if cause.min() == cause.max():
        raise ValueError(f"`cause` expects values that differ, got {cause.min().item()} for all.")
    # In units of the standard deviation, so that one learning rate fits all.
    scaled = (cause.float() - cause.float().mean()) / cause.float().std()
    prediction, held_out = _train_probe(
        noise, scaled, 1, lambda output, target: F.mse_loss(output.squeeze(1), target), seed
    )
    train = _split(len(noise), seed)[0]
    residual = (prediction.squeeze(1) - held_out).square().sum()
    return (1 - residual / (held_out - scaled.cpu()[train].mean()).square().sum()).item()


def check_probe(noise: torch.Tensor, cause: torch.Tensor) -> None:
    """Raises an error unless there are enough samples to train a probe."""
    check_noise(noise)
    check_cause(noise, cause)
    if len(noise) < 10:
        raise ValueError(f"`noise` expects at least ten samples, got {len(noise)}.")


def _split(num_samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(seed))
    return order[num_samples // 5 :], order[: num_samples // 5]


def _train_probe(
    noise: torch.Tensor, target: torch.Tensor, out_features: int, loss: Callable, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Trains a network, and returns its outputs and the targets of the samples held out, on the CPU."""
    learned, test = _split(len(noise), seed)
    # A probe that learns its samples by heart reads others worse than one that was stopped in time.
    num_validation = max(1, len(learned) // 10)
    validation, train = learned[:num_validation], learned[num_validation:]
    generator = torch.Generator().manual_seed(seed)
    devices = [noise.device] if noise.is_cuda else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        noise, target = noise.detach().float().clone(), target.detach().clone()
        probe = _make_probe(noise.shape[1:], out_features).to(noise.device)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=1e-3, weight_decay=0.01)

        @torch.no_grad()
        def read(rows: torch.Tensor) -> torch.Tensor:
            probe.eval()
            outputs = torch.cat([probe(noise[index]) for index in rows.split(1000)])
            probe.train()
            return outputs

        best_loss, output = math.inf, None
        num_steps = max(NUM_STEPS, NUM_EPOCHS * len(train) // BATCH_SIZE)
        validation_steps = max(VALIDATION_STEPS, len(train) // BATCH_SIZE)
        for step in range(1, num_steps + 1):
            index = train[torch.randint(len(train), (BATCH_SIZE,), generator=generator)]
            optimizer.zero_grad()
            loss(probe(noise[index]), target[index]).backward()
            optimizer.step()
            if step % validation_steps == 0 or step == num_steps:
                validation_loss = loss(read(validation), target[validation]).item()
                if output is None or validation_loss < best_loss:
                    best_loss, output = validation_loss, read(test)
        if not output.isfinite().all():
            raise ValueError(f"`noise` expects values that a probe can learn from, got up to {noise.abs().max():g}.")
    return output.cpu(), target[test].cpu()


def _make_probe(shape: tuple[int, ...], out_features: int) -> nn.Module:
    if len(shape) == 3 and min(shape[1:]) >= 4:
        channels, height, width = shape
        body = [
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        ]
        features, hidden_features, dropout = 32 * (height // 4) * (width // 4), 128, 0.5
    else:
        features, hidden_features, dropout = 256, 256, 0.1
        body = [nn.Flatten(), nn.Linear(torch.Size(shape).numel(), features), nn.ReLU()]
    head = [nn.Linear(features, hidden_features), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*body, *head, nn.Linear(hidden_features, out_features))
