# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from diffscm_diffusers.metrics import CounterfactualLatentDivergence
from diffscm_diffusers.metrics.functional import (
    counterfactual_latent_divergence,
    counterfactual_latent_divergence_floor,
)


NUM_CLASSES, LATENT_DIM = 3, 4


def make_latents(num_samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(num_samples, LATENT_DIM, generator=generator)
    return mean, torch.rand(num_samples, LATENT_DIM, generator=generator) + 0.1


def make_inputs() -> dict[str, torch.Tensor]:
    """Eleven pairs of overlapping classes against 60 references, of which the classes have unequal numbers."""
    generator = torch.Generator().manual_seed(0)
    factual_class = torch.randint(NUM_CLASSES, (11,), generator=generator)
    reference_class = torch.tensor([0, 1, 2, 2, 1, 2]).repeat(10)
    intervention = (factual_class + torch.randint(1, NUM_CLASSES, (11,), generator=generator)) % NUM_CLASSES
    inputs = {"factual_class": factual_class, "intervention": intervention}
    for seed, name in enumerate(("counterfactual", "factual", "reference")):
        mean, variance = make_latents(60 if name == "reference" else 11, seed)
        inputs |= {f"{name}_mean": mean, f"{name}_variance": variance}
    inputs["reference_mean"] += reference_class[:, None]
    inputs["factual_mean"] += factual_class[:, None]
    inputs["counterfactual_mean"] += inputs["intervention"][:, None]
    return inputs | {"reference_class": reference_class}


def without_counterfactual(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if not name.startswith("counterfactual")}


def cld_of(div: float, to_factual_class: list[float], to_target_class: list[float]) -> float:
    not_minimal = sum(d <= div for d in to_target_class) / len(to_target_class)
    not_changed = sum(d >= div for d in to_factual_class) / len(to_factual_class)
    return math.log(math.exp(not_minimal) + math.exp(not_changed))


def double_loop(inputs: dict[str, torch.Tensor]) -> tuple[list[float], list[float]]:
    """CLD and floor as Eq. 8 to 10 say them, one pair of Gaussians at a time."""

    def gaussian(name: str, i: int) -> Independent:
        mean, variance = inputs[f"{name}_mean"][i].double(), inputs[f"{name}_variance"][i].double()
        return Independent(Normal(mean, variance.sqrt()), 1)

    clds, floors = [], []
    for i in range(len(inputs["factual_class"])):
        factual = gaussian("factual", i)
        sets = {c: [] for c in range(NUM_CLASSES)}
        for j, c in enumerate(inputs["reference_class"].tolist()):
            sets[c].append(kl_divergence(gaussian("reference", j), factual).item())
        pair = sets[inputs["factual_class"][i].item()], sets[inputs["intervention"][i].item()]
        clds.append(cld_of(kl_divergence(gaussian("counterfactual", i), factual).item(), *pair))
        steps = sorted([0.0, *pair[0], *pair[1]])
        between = [(low + high) / 2 for low, high in zip(steps, steps[1:], strict=False)]
        floors.append(min(cld_of(div, *pair) for div in [*steps, *between, steps[-1] + 1]))
    return clds, floors


def test_equals_a_double_loop():
    inputs = make_inputs()
    clds, floors = double_loop(inputs)
    assert len(set(clds)) > 5 and max(floors) > 0.7  # the inputs tell wrong formulas from right ones

    torch.testing.assert_close(counterfactual_latent_divergence(**inputs), torch.tensor(clds))
    torch.testing.assert_close(
        counterfactual_latent_divergence_floor(**without_counterfactual(inputs)), torch.tensor(floors)
    )


def test_chunks_do_not_change_the_result():
    inputs = make_inputs()
    whole = counterfactual_latent_divergence(**inputs)
    for chunk_size in (1, 2):
        assert torch.equal(counterfactual_latent_divergence(**inputs, chunk_size=chunk_size), whole)


def test_probabilities_of_gaussian_classes():
    """
    In one dimension with unit variances `div = (difference of means)^2 / 2`. So with class means distributed as
    N(a, 1) and the factual at 0, `P(S <= t^2 / 2) = P(|N(a, 1)| <= t)`. The references stand at the quantiles.
    """
    num_references = 20_000
    quantiles = Normal(0.0, 1.0).icdf((torch.arange(num_references, dtype=torch.float64) + 0.5) / num_references)
    centres = {0: 0.5, 1: 2.0}
    t = torch.tensor([0.1, 1.0, 1.5, 3.0], dtype=torch.float64)

    def within(centre: float, t: torch.Tensor) -> torch.Tensor:
        normal = Normal(torch.tensor(centre, dtype=torch.float64), 1.0)
        return normal.cdf(t) - normal.cdf(-t)

    factual = torch.zeros(4, 1), torch.ones(4, 1), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    reference = (
        torch.cat([quantiles + centres[0], quantiles + centres[1]])[:, None],
        torch.ones(2 * num_references, 1),
        torch.arange(2).repeat_interleave(num_references),
    )
    cld = counterfactual_latent_divergence(t[:, None], torch.ones(4, 1), *factual, *reference)
    expected = torch.logaddexp(within(centres[1], t), 1 - within(centres[0], t))
    torch.testing.assert_close(cld, expected.float(), atol=2e-4, rtol=0)

    grid = torch.linspace(0, 6, 10_001, dtype=torch.float64)
    expected_floor = torch.logaddexp(within(centres[1], grid), 1 - within(centres[0], grid)).min()
    floor = counterfactual_latent_divergence_floor(*factual, *reference)
    torch.testing.assert_close(floor, expected_floor.float().expand(4), atol=2e-4, rtol=0)


def test_bounds():
    """Classes apart, seen from the factual: log 2 between them, log(1 + e) at either end; swapped: log(2 e)."""
    factual = torch.zeros(1, 1), torch.ones(1, 1)
    reference = torch.tensor([[1.0], [-2.0], [5.0], [-6.0]]), torch.ones(4, 1), torch.tensor([0, 0, 1, 1])

    def cld(mean: float, factual_class: int) -> float:
        classes = torch.tensor([factual_class]), torch.tensor([1 - factual_class])
        counterfactual = torch.full((1, 1), mean), torch.ones(1, 1)
        return counterfactual_latent_divergence(*counterfactual, *factual, *classes, *reference).item()

    assert cld(3.0, factual_class=0) == pytest.approx(math.log(2))
    assert cld(0.0, factual_class=0) == pytest.approx(math.log(1 + math.e))
    assert cld(9.0, factual_class=0) == pytest.approx(math.log(1 + math.e))
    assert cld(3.0, factual_class=1) == pytest.approx(math.log(2 * math.e))


def test_floor_counts_ties():
    """Just above the divergence that a reference image of either class has, one of two target images is nearer."""
    factual = torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([0]), torch.tensor([1])
    reference = torch.tensor([[1.0], [2.0], [2.0], [3.0]]), torch.ones(4, 1), torch.tensor([0, 0, 1, 1])
    floor = counterfactual_latent_divergence_floor(*factual, *reference)
    assert floor.item() == pytest.approx(math.log(1 + math.exp(0.5)))


def test_reference_image_as_counterfactual_counts_itself():
    """A reference's divergence is the same to the last bit when the image comes as a counterfactual."""
    inputs = make_inputs()
    of_target = [torch.nonzero(inputs["reference_class"] == c)[3].item() for c in inputs["intervention"].tolist()]
    for parameter in ("mean", "variance"):
        inputs[f"counterfactual_{parameter}"] = inputs[f"reference_{parameter}"][of_target]
    torch.testing.assert_close(counterfactual_latent_divergence(**inputs), torch.tensor(double_loop(inputs)[0]))


def test_factual_is_its_own_nearest_reference():
    """The factual as counterfactual, and in the reference set: div = 0 to the last bit, nowhere below."""
    inputs = make_inputs()
    for parameter in ("mean", "variance"):
        inputs[f"counterfactual_{parameter}"] = inputs[f"factual_{parameter}"]
        inputs[f"reference_{parameter}"] = torch.cat(
            [inputs[f"reference_{parameter}"], inputs[f"factual_{parameter}"]]
        )
    inputs["reference_class"] = torch.cat([inputs["reference_class"], inputs["factual_class"]])
    expected = torch.full((11,), math.log(1 + math.e))
    torch.testing.assert_close(counterfactual_latent_divergence(**inputs), expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_metric_equals_the_function(reduction):
    inputs = make_inputs()
    expected = counterfactual_latent_divergence(**inputs)
    metric = CounterfactualLatentDivergence(reduction=reduction)
    reference = {name: inputs.pop(name) for name in list(inputs) if name.startswith("reference")}
    metric.fit(**reference)
    for _ in range(2):
        metric.reset()  # which keeps the reference set
        for part in (slice(0, 4), slice(4, None)):
            metric.update(**{name: value[part] for name, value in inputs.items()})
        torch.testing.assert_close(metric.compute(), expected.mean() if reduction == "mean" else expected)

    floor = metric.floor(**without_counterfactual(inputs))
    assert torch.equal(floor, counterfactual_latent_divergence_floor(**without_counterfactual(inputs), **reference))
    assert (floor <= expected).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"counterfactual_mean": torch.zeros(10, LATENT_DIM)},
            "`counterfactual_mean` and `counterfactual_variance` must have the same shape",
        ),
        (
            {"factual_mean": torch.zeros(9, 4), "factual_variance": torch.ones(9, 4)},
            "`counterfactual_mean` and `factual_mean` must have the same shape",
        ),
        ({"factual_class": torch.zeros(10, dtype=torch.long)}, "factual_class.*11 samples"),
        ({"intervention": torch.zeros(11, 1, dtype=torch.long)}, "intervention.*11 samples"),
        ({"reference_class": torch.zeros(59, dtype=torch.long)}, "reference_class.*60 samples"),
        (
            {"reference_mean": torch.zeros(60, 3), "reference_variance": torch.ones(60, 3)},
            "same `latent_dim`, got 4 and 3",
        ),
        ({"intervention": torch.full((11,), 7)}, r"`intervention` expects classes .* got \[7\]"),
        ({"factual_class": torch.full((11,), -1)}, r"`factual_class` expects classes .* got \[-1\]"),
        ({"reference_class": torch.tensor([5] + 59 * [0])}, r"at least two images of each class, got one of \[5\]"),
        ({"factual_variance": torch.zeros(11, LATENT_DIM)}, "factual_variance.*above 0"),
        ({"factual_mean": torch.full((11, LATENT_DIM), torch.nan)}, "factual_mean.*finite"),
        ({"chunk_size": 0}, "chunk_size"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        counterfactual_latent_divergence(**{**make_inputs(), **change})


def test_bad_types():
    inputs = make_inputs()
    with pytest.raises(TypeError, match="intervention.*integers"):
        counterfactual_latent_divergence(**{**inputs, "intervention": inputs["intervention"].float()})
    with pytest.raises(TypeError, match="factual_mean.*floats"):
        counterfactual_latent_divergence(**{**inputs, "factual_mean": inputs["factual_mean"].long()})


def test_unfitted_metric():
    inputs = make_inputs()
    metric = CounterfactualLatentDivergence()
    reference = {name: inputs.pop(name) for name in list(inputs) if name.startswith("reference")}
    with pytest.raises(RuntimeError, match="call .fit. first"):
        metric.update(**inputs)
    with pytest.raises(RuntimeError, match="call .fit. first"):
        metric.floor(**without_counterfactual(inputs))
    with pytest.raises(ValueError, match="at least two images of each class"):
        metric.fit(**{name: value[:1] for name, value in reference.items()})
    metric.fit(**reference)
    with pytest.raises(RuntimeError, match="no samples yet"):
        metric.compute()
