# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Which real images the controls show in place of a counterfactual."""

import numpy as np
import torch


def draw_references(
    index: torch.Tensor, intervention: torch.Tensor, reference_class: torch.Tensor, seed: int
) -> torch.Tensor:
    """
    Draws for each pair one reference image of its target class, uniformly. The draw depends on the seed and the pair
    alone.

    Args:
        index (`torch.Tensor` of shape `(batch,)`): The pairs' numbers.
        intervention (`torch.Tensor` of shape `(batch,)`): Their target class indices.
        reference_class (`torch.Tensor` of shape `(num_references,)`): Class indices, every target among them.
        seed (`int`): Seed of the draws.

    Returns:
        `torch.Tensor` of shape `(batch,)`: indices of reference images.
    """
    candidates = {c: torch.nonzero(reference_class == c).squeeze(1) for c in intervention.unique().tolist()}
    draws = [
        candidates[c][np.random.default_rng((seed, i)).integers(len(candidates[c]))]
        for i, c in zip(index.tolist(), intervention.tolist(), strict=True)
    ]
    return torch.stack(draws)


def find_nearest_references(
    factual: torch.Tensor, intervention: torch.Tensor, reference: torch.Tensor, reference_class: torch.Tensor
) -> torch.Tensor:
    """
    Finds for each factual the reference image of its target class at the least Euclidean distance.

    Args:
        factual (`torch.Tensor` of shape `(batch, num_features)`): What the distance is taken of: pixels or latents.
        intervention (`torch.Tensor` of shape `(batch,)`): The target class indices.
        reference (`torch.Tensor` of shape `(num_references, num_features)`): The same of the reference images.
        reference_class (`torch.Tensor` of shape `(num_references,)`): Class indices, every target among them.

    Returns:
        `torch.Tensor` of shape `(batch,)`: indices of reference images.
    """
    nearest = torch.empty_like(intervention)
    for c in intervention.unique().tolist():
        candidates = torch.nonzero(reference_class == c).squeeze(1)
        # Without matrix products, whose rounding depends on the batch.
        distance = torch.cdist(
            factual[intervention == c].float(),
            reference[candidates].float(),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        nearest[intervention == c] = candidates[distance.argmin(dim=1)]
    return nearest
