# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""In a world that is linear, the total effect is the sum of the direct and the indirect one, and each is known."""

import pytest
import torch

from diffscm_diffusers.evaluation.effects import estimate_effects
from tests.pipelines.graph_dummies import get_gaussian_factuals, get_gaussian_graph_pipe, move


pytestmark = pytest.mark.filterwarnings("ignore:.*less probable")


def test_effects_are_those_of_the_world():
    factuals, attributes = get_gaussian_factuals(3)
    pipe = get_gaussian_graph_pipe(edges=[("thickness", "tint")])
    factual, effects = estimate_effects(
        pipe, factuals, attributes, {"thickness": 6.5}, num_draws=2, num_inference_steps=50, batch_size=4
    )
    change = 6.5 - attributes["thickness"]
    expected = {
        "total": ((change / 5, 0.1 * change), 0.1 * change),
        "direct": ((change / 5, 0.0), 0.1 * change),  # of the tint: its own, as it has no other way
        "indirect": ((0.0, 0.1 * change), 0 * change),
    }
    assert effects.keys() == expected.keys()
    for kind, (moved, tint) in expected.items():
        images = effects[kind].images
        assert images.shape == (2, 3, 1, 2, 2)
        torch.testing.assert_close(images, move(factuals, *moved).expand_as(images), atol=0.03, rtol=0)
        got = effects[kind].attributes["tint"] - factual["tint"]
        torch.testing.assert_close(got, tint.expand(2, -1), atol=1e-6, rtol=0)
    assert (effects["total"].attributes["thickness"] == 6.5).all()
    torch.testing.assert_close(
        effects["indirect"].attributes["thickness"], factual["thickness"].expand(2, -1), atol=0, rtol=0
    )


def test_without_descendants_there_is_but_the_total_effect():
    factuals, attributes = get_gaussian_factuals(2)
    _, effects = estimate_effects(
        get_gaussian_graph_pipe(), factuals, attributes, {"thickness": 6.5}, num_draws=1, num_inference_steps=4
    )
    assert list(effects) == ["total"]


def test_an_intervention_is_needed():
    factuals, attributes = get_gaussian_factuals(1)
    with pytest.raises(ValueError, match="`do` expects at least one attribute"):
        estimate_effects(get_gaussian_graph_pipe(), factuals, attributes, {})
