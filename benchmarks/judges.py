# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The independent judge of the benchmarks: a classifier that is trained on a world's images and sees no checkpoint."""

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm


def train_judge(images: torch.Tensor, classes: torch.Tensor, num_steps: int, seed: int) -> nn.Module:
    """
    Trains a small convolutional classifier.

    Args:
        images (`torch.Tensor` of shape `(num_images, 1, 28, 28)`): Images in [0, 1].
        classes (`torch.Tensor` of shape `(num_images,)`): The class of each.
        num_steps (`int`): Training steps, of 128 images each.
        seed (`int`): Seed of weights and batches.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        judge = nn.Sequential(
            *(nn.Conv2d(1, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.Flatten()),
            *(nn.Dropout(0.2), nn.Linear(48 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, int(classes.max()) + 1)),
        )
        optimizer = torch.optim.AdamW(judge.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, num_steps)
        for _ in tqdm(range(num_steps), "Training the judge"):
            rows = torch.randint(len(images), (128,))
            # The noise keeps it from leaning on single grey levels.
            loss = F.cross_entropy(judge(images[rows] + 0.02 * torch.randn(128, 1, 28, 28)), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval().requires_grad_(False)
