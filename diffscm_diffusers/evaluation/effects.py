# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The effects of an intervention on attributes and image, in total and along the ways that it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline


@dataclass
class Effect:
    """
    One effect of an intervention on some factuals.

    Args:
        attributes (`dict[str, torch.Tensor]`):
            Value of each attribute, of shape `(num_draws, num_factuals)`, as [`CausalGraph.check_values`] gives them.
        images (`torch.Tensor` of shape `(num_draws, num_factuals, channels, height, width)`): Images in [0, 1].
    """

    attributes: dict[str, torch.Tensor]
    images: torch.Tensor


def estimate_effects(
    pipe: DiffSCMGraphCounterfactualPipeline,
    images: torch.Tensor,
    attributes: Mapping[str, Any] | None,
    do: Mapping[str, Any],
    num_draws: int = 8,
    num_inference_steps: int | None = None,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, Effect]]:
    r"""
    Estimates what an intervention changes in each factual ([Pearl,
    2001](https://arxiv.org/abs/1301.2300)):

    - `"total"`: all that `do` changes;
    - `"direct"`: what it changes while every descendant is held at its factual value;
    - `"indirect"`: what it changes through its descendants: they get the values that `do` would give them, and the
      attributes of `do` keep their factual ones.

    An attribute's direct effect holds all other descendants, so what is left of it is its own. All three start from
    the same exogenous noise, at a guidance scale of 1, the mechanism itself. Where the intervention has no
    descendants, only the total effect is there.

    Args:
        pipe ([`DiffSCMGraphCounterfactualPipeline`]): The causal model.
        images (`torch.Tensor` of shape `(num_factuals, channels, height, width)`): Factuals in [0, 1].
        attributes (`dict[str, Any]`, *optional*): Their attributes. Those that are missing are read.
        do (`dict[str, Any]`): The intervention, one value of an attribute for all factuals or one for each.
        num_draws (`int`, *optional*, defaults to 8): Draws of the exogenous noise of each factual.
        num_inference_steps (`int`, *optional*, defaults to the checkpoint's): Steps in each direction.
        generator (`torch.Generator`, *optional*): Makes the draws reproducible.
        batch_size (`int`, *optional*): The most images that are worked on at once. Default: all.

    Returns:
        `tuple`: the factuals' attributes, of shape `(num_factuals,)`, and the effects by name.

    Raises:
        ValueError, TypeError: see the pipeline's call. `do` must not be empty.
    """
    if not do:
        raise ValueError(f"`do` expects at least one attribute, got {do!r}.")
    graph, num_factuals = pipe.scm.graph, len(images)
    factual = {} if attributes is None else graph.check_values(attributes, num_factuals, "attributes")
    do = graph.check_values(do, num_factuals, "do")
    # Draws as a batch, so that each can be intervened on by itself.
    noise = pipe.abduct(
        images.repeat(num_draws, 1, 1, 1),
        {name: value.repeat(num_draws) for name, value in factual.items()},
        num_inference_steps=num_inference_steps,
        num_draws=1,
        generator=generator,
        batch_size=batch_size,
        guidance_scale=1.0,
    )
    factual = noise.attributes
    do = {name: value.repeat(num_draws).to(noise.exogenous_noise.device) for name, value in do.items()}
    descendants = graph.descendants(do)

    def predict(do, hold=()):
        output = pipe.predict(noise, do, hold, batch_size, output_type="pt")
        return {name: value[0] for name, value in output.counterfactual_attributes.items()}, output.images[0]

    def value_under(do, name):
        return pipe.scm.predict(noise.attribute_noise, do)[name] if name in graph.descendants(do) else factual[name]

    total, image = predict(do)
    results = {"total": (total, image)}
    if descendants:
        direct, image = predict(do, descendants)
        for name in descendants:
            direct[name] = value_under({**do, **{n: factual[n] for n in descendants - {name}}}, name)
        results["direct"] = (direct, image)
        indirect, image = predict({name: total[name] for name in descendants})
        for name in descendants:
            indirect[name] = value_under({n: total[n] for n in descendants - {name}}, name)
        results["indirect"] = (indirect, image)
    effects = {
        kind: Effect(
            {name: value.unflatten(0, (num_draws, num_factuals)) for name, value in values.items()},
            image.unflatten(0, (num_draws, num_factuals)),
        )
        for kind, (values, image) in results.items()
    }
    return {name: value[:num_factuals] for name, value in factual.items()}, effects
