# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch

from diffscm_diffusers.training.noise import draw_noise, draw_shared, seed_dropout


def test_noise_depends_on_seed_and_step_alone():
    images = torch.zeros(4, 1, 8, 8)
    noise, timesteps = draw_noise(images, 1000, seed=1, step=2)
    torch.manual_seed(5)
    again, timesteps_again = draw_noise(images + 1, 1000, seed=1, step=2)
    assert torch.equal(noise, again) and torch.equal(timesteps, timesteps_again)
    for seed, step in ((1, 3), (2, 2), (2, 1)):
        other, other_timesteps = draw_noise(images, 1000, seed=seed, step=step)
        assert not torch.equal(noise, other) and not torch.equal(timesteps, other_timesteps)


def test_noise_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    draw_noise(torch.zeros(4, 1, 8, 8), 1000, seed=0, step=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_slices_of_the_processes_make_up_the_whole():
    whole = draw_noise(torch.zeros(6, 1, 4, 4), 1000, seed=3, step=7)
    slices = [draw_noise(torch.zeros(2, 1, 4, 4), 1000, 3, 7, process_index=i, num_processes=3) for i in range(3)]
    for expected, parts in zip(whole, zip(*slices, strict=True), strict=True):
        assert torch.equal(torch.cat(parts), expected)


def test_further_draws_depend_on_seed_step_and_stream_alone():
    first = draw_shared(torch.randn, (4, 8), torch.device("cpu"), 0, seed=1, step=2)
    torch.manual_seed(5)
    assert torch.equal(draw_shared(torch.randn, (4, 8), torch.device("cpu"), 0, seed=1, step=2), first)
    others = [draw_noise(torch.zeros(4, 8), 10, seed=1, step=2)[0]]
    for stream, seed, step in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        others.append(draw_shared(torch.randn, (4, 8), torch.device("cpu"), stream, seed, step))
    assert not any(torch.equal(first, other) for other in others)

    parts = [draw_shared(torch.randn, (2, 8), torch.device("cpu"), 0, 1, 2, i, num_processes=2) for i in (0, 1)]
    assert torch.equal(torch.cat(parts), first)


def test_noise_is_standard_normal_and_timesteps_are_uniform():
    draws = [draw_noise(torch.zeros(100, 1, 4, 4), 10, seed=0, step=step) for step in range(100)]
    noise, timesteps = torch.cat([d[0] for d in draws]), torch.cat([d[1] for d in draws])
    # Four standard errors of each estimate.
    assert noise.mean().abs() < 4 / noise.numel() ** 0.5
    assert (noise.var() - 1).abs() < 4 * (2 / noise.numel()) ** 0.5
    counts = torch.bincount(timesteps, minlength=10)
    assert len(counts) == 10
    assert (counts - 1000).abs().max() < 4 * (10000 * 0.1 * 0.9) ** 0.5


def test_dropout_is_seeded_by_seed_step_and_process():
    def mask(*position):
        seed_dropout(*position)
        return torch.nn.functional.dropout(torch.ones(64))

    assert torch.equal(mask(1, 2, 0), mask(1, 2, 0))
    for other in ((1, 2, 1), (1, 3, 0), (2, 2, 0)):
        assert not torch.equal(mask(1, 2, 0), mask(*other))
