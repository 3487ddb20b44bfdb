# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch

from diffscm_diffusers.evaluation.pairs import draw_pairs


CLASSES = torch.arange(4).repeat_interleave(500)  # sorted, as an image folder is


def test_targets_are_uniform_over_the_other_classes():
    pairs = draw_pairs(CLASSES, num_classes=4, seed=0)
    counts = torch.zeros(4, 4)
    for factual_class, intervention in zip(pairs.factual_class, pairs.intervention, strict=True):
        counts[factual_class, intervention] += 1
    assert (counts.diagonal() == 0).all()
    # 500 draws with probability 1/3: the standard deviation is 10.5.
    others = counts[~torch.eye(4, dtype=torch.bool)]
    assert (others - 500 / 3).abs().max() < 4 * 10.5


def test_every_factual_comes_once_and_a_few_are_of_all_classes():
    pairs = draw_pairs(CLASSES, num_classes=4, seed=0)
    assert pairs.row.sort().values.tolist() == list(range(2000))
    assert torch.equal(pairs.factual_class, CLASSES[pairs.row])
    assert set(draw_pairs(CLASSES, 4, seed=0, max_samples=40).factual_class.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("max_samples", [2, 17, 1999])
def test_pairs_do_not_depend_on_how_many_there_are(max_samples):
    everything, some = draw_pairs(CLASSES, 4, seed=3), draw_pairs(CLASSES, 4, seed=3, max_samples=max_samples)
    assert len(some) == max_samples
    for name in ("row", "factual_class", "intervention"):
        assert torch.equal(getattr(some, name), getattr(everything, name)[:max_samples])


def test_pairs_depend_on_the_seed_alone():
    first, again, other = (draw_pairs(CLASSES, 4, seed) for seed in (0, 0, 1))
    assert torch.equal(first.row, again.row) and torch.equal(first.intervention, again.intervention)
    assert not torch.equal(first.row, other.row) and not torch.equal(first.intervention, other.intervention)


@pytest.mark.parametrize(
    ("classes", "num_classes", "max_samples", "message"),
    [
        ([0, 0, 0], 1, None, "at least two classes"),
        ([0, -1, 1], 2, None, "without a label"),
        ([0, 1, 1], 2, 1, "at least two pairs"),
    ],
)
def test_bad_input(classes, num_classes, max_samples, message):
    with pytest.raises(ValueError, match=message):
        draw_pairs(torch.tensor(classes), num_classes, 0, max_samples)
