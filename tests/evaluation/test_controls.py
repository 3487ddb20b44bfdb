# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import torch

from diffscm_diffusers.evaluation.controls import draw_references, find_nearest_references


def test_nearest_references_are_those_of_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    factual, reference = (torch.randn(n, 5, generator=generator) for n in (40, 70))
    reference_class = torch.randint(3, (70,), generator=generator)
    intervention = torch.randint(3, (40,), generator=generator)

    expected = []
    for features, target in zip(factual.tolist(), intervention.tolist(), strict=True):
        candidates = [i for i in range(70) if reference_class[i] == target]
        expected.append(min(candidates, key=lambda i: math.dist(features, reference[i].tolist())))
    nearest = find_nearest_references(factual, intervention, reference, reference_class)
    assert nearest.tolist() == expected


def test_nearest_references_in_pixels_take_eight_bits():
    reference = torch.tensor([[0], [250], [130]], dtype=torch.uint8)
    factual, intervention = torch.tensor([[255], [10]], dtype=torch.uint8), torch.tensor([0, 0])
    assert find_nearest_references(factual, intervention, reference, torch.tensor([0, 0, 0])).tolist() == [1, 0]


def test_random_references_are_uniform_over_the_target_class():
    reference_class = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    intervention = torch.tensor([0, 1]).repeat(1000)
    drawn = draw_references(torch.arange(2000), intervention, reference_class, seed=0)
    assert torch.equal(reference_class[drawn], intervention)
    # 1000 draws each, with probability 1/4 and 1/3: the standard deviations are 14 and 15.
    counts = drawn.bincount()
    expected = torch.tensor([1000 / 4, 1000 / 3])[reference_class]
    assert (counts - expected).abs().max() < 4 * 15


def test_a_random_reference_depends_on_pair_and_seed_alone():
    reference_class = torch.arange(2).repeat(500)
    index = torch.arange(100)
    intervention = index % 2
    drawn = draw_references(index, intervention, reference_class, seed=0)
    part = slice(30, 50)
    assert torch.equal(draw_references(index[part], intervention[part], reference_class, seed=0), drawn[part])
    assert not torch.equal(draw_references(index, intervention, reference_class, seed=1), drawn)
