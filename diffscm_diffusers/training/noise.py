# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Noise that depends on the seed and the step alone, so that runs can be resumed and shared out exactly."""

from collections.abc import Callable

import numpy as np
import torch


def seed_dropout(seed: int, step: int, process_index: int = 0):
    """Seeds torch's global generators, from which dropout draws, for one step of one process."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, 1 + process_index)).generate_state(1)[0]))


def draw_noise(
    sample: torch.Tensor,
    num_train_timesteps: int,
    seed: int,
    step: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Draws the noise and the uniform timesteps with which one process trains on its share of a global batch.

    The draw for the whole global batch is a function of `seed` and `step`; each process takes its slice. So a resumed
    run sees the noise of the uninterrupted one, and two processes see together what a single one would.

    Args:
        sample (`torch.Tensor`): This process' clean images, shape `(batch, channels, height, width)`.
        num_train_timesteps (`int`): Timesteps are uniform in `[0, num_train_timesteps)`.
        seed (`int`): The run's seed.
        step (`int`): Index of the global batch since the start of the run.
        process_index (`int`, *optional*, defaults to 0): Which slice of the global batch `sample` is.
        num_processes (`int`, *optional*, defaults to 1): Number of equal slices.

    Returns:
        `tuple`: noise like `sample`, and timesteps of shape `(batch,)`.
    """
    state = np.random.SeedSequence((seed, step)).generate_state(2)
    generator = torch.Generator(sample.device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    batch = sample.shape[0]
    own = slice(process_index * batch, (process_index + 1) * batch)
    noise = torch.randn(
        (batch * num_processes, *sample.shape[1:]), generator=generator, device=sample.device, dtype=sample.dtype
    )
    timesteps = torch.randint(num_train_timesteps, (batch * num_processes,), generator=generator, device=sample.device)
    return noise[own], timesteps[own]


def draw_shared(
    sampler: Callable[..., torch.Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    stream: int,
    seed: int,
    step: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> torch.Tensor:
    """
    Draws further random numbers for one process' share of a global batch, in the way of [`draw_noise`] and
    independently of it.

    Args:
        sampler (`Callable`): `torch.randn` or `torch.rand`.
        shape (`tuple[int, ...]`): Shape of this process' share; the first axis is the batch.
        device (`torch.device`): Where to.
        stream (`int`): Which draw of the step this is: other streams are independent.
        seed (`int`): The run's seed.
        step (`int`): Index of the global batch since the start of the run.
        process_index (`int`, *optional*, defaults to 0): Which slice of the global batch is drawn.
        num_processes (`int`, *optional*, defaults to 1): Number of equal slices.
    """
    # The others' seeds have 0 for the fourth number, as numpy fills them up.
    state = np.random.SeedSequence((seed, step, 0, 1 + stream)).generate_state(2)
    generator = torch.Generator(device).manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
    batch, *rest = shape
    draws = sampler((batch * num_processes, *rest), generator=generator, device=device)
    return draws[process_index * batch : (process_index + 1) * batch]
