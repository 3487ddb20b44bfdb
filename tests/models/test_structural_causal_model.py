# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from diffusers import DDPMPipeline

from diffscm_diffusers import CausalGraph, StructuralCausalModel
from diffscm_diffusers.worlds import MorphoMNISTWorld


def continuous(low, high):
    return {"kind": "continuous", "range": [low, high]}


LINEAR = CausalGraph(
    {"a": continuous(-12, 12), "b": continuous(-30, 30), "c": continuous(-40, 40)},
    [("a", "b"), ("a", "c"), ("b", "c"), ("c", "image")],
)
MIXED = CausalGraph(
    {
        "group": {"kind": "categorical", "labels": ["red", "green", "blue"]},
        "grade": {"kind": "ordinal", "labels": ["low", "middle", "high"]},
        "length": continuous(0, 10),
    },
    [("group", "grade"), ("grade", "length"), ("length", "image"), ("group", "image")],
)


def linear_gaussian(num_samples, seed=0):
    """`a = u_a`, `b = 2 a + u_b`, `c = b - 1.5 a + 0.5 u_c`."""
    noise = torch.randn(3, num_samples, generator=torch.Generator().manual_seed(seed))
    return linear_values(noise), noise


def linear_values(noise, a=None, b=None):
    a = noise[0] if a is None else a
    b = 2 * a + noise[1] if b is None else b
    return {"a": a, "b": b, "c": b - 1.5 * a + 0.5 * noise[2]}


def mixed_table(num_samples=2000, seed=0):
    generator = np.random.default_rng(seed)
    group = generator.choice(3, num_samples, p=[0.5, 0.3, 0.2])
    probs = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    grade = (probs[group].cumsum(axis=1) < generator.random((num_samples, 1))).sum(axis=1)
    length = 10 / (1 + np.exp(-(grade - 1 + 0.5 * generator.standard_normal(num_samples))))
    return pd.DataFrame(
        {"group": np.array(["red", "green", "blue"])[group], "grade": grade, "length": length, "image": "x.png"}
    )


@pytest.fixture(scope="module")
def linear_model():
    return StructuralCausalModel(LINEAR).fit(
        linear_gaussian(5000)[0], num_steps=120, batch_size=256, progress_bar=False
    )


@pytest.fixture(scope="module")
def mixed_model():
    return StructuralCausalModel(MIXED).fit(mixed_table(), num_steps=80, batch_size=256, progress_bar=False)


def mixed_values(num_samples):
    generator = torch.Generator().manual_seed(1)
    return {
        "group": torch.randint(3, (num_samples,), generator=generator),
        "grade": torch.randint(3, (num_samples,), generator=generator),
        "length": 0.1 + 9.8 * torch.rand(num_samples, generator=generator),
    }


@pytest.mark.parametrize("do", [{"a": -1.5}, {"b": 2.0}, {"a": 0.5, "b": -1.0}])
def test_counterfactuals_of_a_linear_gaussian_graph_are_the_analytic_ones(linear_model, do):
    factual, noise = linear_gaussian(500, seed=1)
    truth = linear_values(noise, **{name: torch.full((500,), value) for name, value in do.items()})
    counterfactual = linear_model.counterfactual(factual, do)
    for name, value in truth.items():
        assert (counterfactual[name] - value).abs().mean() < 0.05 * factual[name].std(), name


def test_log_prob_is_the_density_of_a_linear_gaussian_graph(linear_model):
    values, noise = linear_gaussian(2000, seed=2)
    exact = -0.5 * noise.square().sum(dim=0) - 1.5 * math.log(2 * math.pi) - math.log(0.5)
    log_prob = linear_model.log_prob(values)
    assert log_prob.shape == (2000,)
    assert (log_prob - exact).mean().abs() < 0.05
    assert (log_prob - exact).abs().mean() < 0.15
    assert (log_prob < linear_model.log_prob_quantile).double().mean() == pytest.approx(0.01, abs=0.01)
    assert linear_model.log_prob({"a": 0.0, "b": 8.0, "c": 0.0}) < linear_model.log_prob_quantile


def test_abducted_noise_is_standard_gaussian_and_independent_of_the_parents(linear_model):
    values, noise = linear_gaussian(2000, seed=3)
    for abducted, true in zip(linear_model.abduct(values).values(), noise, strict=True):
        assert abducted.mean().abs() < 0.1
        assert abducted.std() == pytest.approx(1, abs=0.1)
        assert torch.corrcoef(torch.stack([abducted.float(), true]))[0, 1] > 0.99


def test_counterfactual_of_morpho_mnist_is_near_the_truth():
    world = MorphoMNISTWorld(np.arange(784, dtype=np.uint32).reshape(1, 28, 28).astype(np.uint8), np.array([3]))
    graph = world.graph
    graph["nodes"].pop("digit")
    graph["edges"] = [edge for edge in graph["edges"] if edge[0] != "digit"]

    def draw(num_samples, seed):
        noise = world._sample_exogenous_noise(num_samples, torch.Generator().manual_seed(seed))
        values = {}
        for name in graph["nodes"]:
            values[name] = world._compute_variable(name, values, noise)
        return values, noise

    scm = StructuralCausalModel(CausalGraph.from_dict(graph)).fit(draw(4000, 0)[0], num_steps=60, progress_bar=False)
    factual, noise = draw(1000, 1)
    thickness = draw(1000, 2)[0]["thickness"]
    truth = world._compute_variable("intensity", {"thickness": thickness}, noise)
    counterfactual = scm.counterfactual(factual, do={"thickness": thickness})
    assert (counterfactual["intensity"] - truth).abs().mean() < 2
    assert (factual["intensity"] - truth).abs().mean() > 20


def test_values_follow_from_their_noise_exactly(mixed_model, linear_model):
    for scm, values in ((mixed_model, mixed_values(300)), (linear_model, linear_gaussian(300)[0])):
        predicted = scm.predict(scm.abduct(values, torch.Generator().manual_seed(0)))
        for name, value in values.items():
            assert predicted[name].dtype == value.dtype
            assert torch.allclose(predicted[name].double(), value.double(), atol=1e-5)


def test_null_intervention_gives_the_factual(mixed_model):
    values = mixed_values(300)
    counterfactual = mixed_model.counterfactual(values, {"group": values["group"]}, torch.Generator().manual_seed(0))
    assert torch.equal(counterfactual["grade"], values["grade"])
    assert torch.allclose(counterfactual["length"], values["length"], atol=1e-5)


def test_posterior_of_gumbel_noise_is_that_of_the_prior_given_the_category(mixed_model):
    """Rejection: noise from the prior, of which what gives the observed category is kept, is the exact posterior."""
    num_samples = 20000
    mechanism = mixed_model.mechanisms[mixed_model.graph.attributes.index("grade")]
    with torch.no_grad():
        parents = mixed_model._parents("grade", {"group": torch.zeros(num_samples, dtype=torch.int64)})
        prior = mechanism.sample_noise(num_samples, torch.Generator().manual_seed(0), parents.device)
        for grade in range(3):
            kept = prior[mechanism.predict(prior, parents) == grade]
            values = {"group": 0, "grade": torch.full((num_samples,), grade), "length": 5.0}
            drawn = mixed_model.abduct(values, torch.Generator().manual_seed(1))["grade"]
            for column in range(3):
                for level in (0.1, 0.5, 0.9):
                    below = (drawn[:, column] < kept[:, column].quantile(level)).double().mean()
                    assert below == pytest.approx(level, abs=0.03)


def test_law_of_categorical_counterfactuals_is_exact(mixed_model):
    """
    Over all factuals of the group "red", `do(group="blue")` gives the interventional law of "blue". And the law of one
    factual is the one that rejection sampling gives.
    """
    num_samples = 20000
    factual = mixed_model.sample(num_samples, {"group": "red"}, torch.Generator().manual_seed(0))
    counterfactual = mixed_model.counterfactual(factual, {"group": "blue"}, torch.Generator().manual_seed(1))
    mechanism = mixed_model.mechanisms[mixed_model.graph.attributes.index("grade")]
    with torch.no_grad():
        red, blue = (mixed_model._parents("grade", {"group": torch.tensor([group])}) for group in (0, 2))
        exact = mechanism.log_probs(blue).exp()[0]
        noise = mechanism.sample_noise(num_samples, torch.Generator().manual_seed(2), red.device)
        before, after = (mechanism.predict(noise, group.expand(num_samples, -1)) for group in (red, blue))
    shares = torch.bincount(counterfactual["grade"], minlength=3) / num_samples
    assert torch.allclose(shares.double(), exact, atol=0.015)
    for grade in range(3):
        shares, expected = (
            torch.bincount(cf[f == grade], minlength=3) / (f == grade).sum()
            for f, cf in ((factual["grade"], counterfactual["grade"]), (before, after))
        )
        assert torch.allclose(shares, expected, atol=0.04)


def test_fitted_probabilities_are_the_frequencies(mixed_model):
    table = mixed_table()
    drawn = mixed_model.sample(20000, generator=torch.Generator().manual_seed(0))
    for name in ("group", "grade"):
        column = table[name] if name == "grade" else table[name].map(["red", "green", "blue"].index)
        shares = np.bincount(column, minlength=3) / len(table)
        assert np.bincount(drawn[name], minlength=3) / 20000 == pytest.approx(shares, abs=0.03)


def test_what_does_not_descend_from_the_intervention_keeps_its_value(mixed_model, linear_model):
    values = mixed_values(50)
    counterfactual = mixed_model.counterfactual(values, {"grade": "high"})
    assert list(counterfactual) == list(MIXED.attributes)
    assert torch.equal(counterfactual["group"], values["group"])
    assert counterfactual["grade"].tolist() == [2] * 50
    assert not torch.allclose(counterfactual["length"], values["length"], atol=0.01)


def test_held_attributes_leave_the_direct_effect(linear_model):
    factual, noise = linear_gaussian(500, seed=1)
    held = linear_model.counterfactual(factual, {"a": -1.5}, hold={"b"})
    assert torch.equal(held["b"], factual["b"])
    truth = linear_values(noise, a=torch.full((500,), -1.5), b=factual["b"])
    # Further from the data than what would have happened to `b`.
    assert (held["c"] - truth["c"]).abs().mean() < 0.1 * factual["c"].std()
    assert (held["c"] - linear_values(noise, a=torch.full((500,), -1.5))["c"]).abs().mean() > factual["c"].std()
    assert torch.equal(linear_model.counterfactual(factual, {"a": -1.5}, hold="c")["c"], factual["c"])


def test_predictions_stay_in_the_range_and_ends_of_the_range_can_change(mixed_model):
    noise = {name: 8 * value for name, value in mixed_model.abduct(mixed_values(2000)).items()}
    for sign in (-1, 1):
        length = mixed_model.predict({**noise, "length": sign * noise["length"].abs()})["length"]
        assert length.isfinite().all() and length.min() >= 0 and length.max() <= 10
    ends = {"group": "red", "grade": "middle", "length": [0.0, 10.0]}
    abducted = mixed_model.abduct(ends)
    assert abducted["length"].isfinite().all()
    assert mixed_model.predict(abducted)["length"].tolist() == [0, 10]
    assert mixed_model.log_prob(ends).isfinite().all()


def test_samples_under_an_intervention_follow_it(mixed_model):
    sample = mixed_model.sample(500, {"grade": [0] * 250 + [2] * 250}, torch.Generator().manual_seed(0))
    assert sample["length"][250:].mean() - sample["length"][:250].mean() > 3
    again = mixed_model.sample(500, {"grade": [0] * 250 + [2] * 250}, torch.Generator().manual_seed(0))
    assert all(torch.equal(sample[name], again[name]) for name in sample)


def test_fit_is_the_same_from_each_kind_of_table_and_the_same_seed():
    frame = mixed_table(300)
    features = Features(
        {
            "length": Value("float64"),
            "grade": Value("int64"),
            # In another order than the graph's: the names count.
            "group": ClassLabel(names=["blue", "red", "green"]),
        }
    )
    columns = {"length": frame["length"].tolist(), "grade": frame["grade"].tolist(), "group": frame["group"].tolist()}
    tensors = {
        "length": torch.tensor(frame["length"]),
        "grade": torch.tensor(frame["grade"]),
        "group": torch.tensor([["red", "green", "blue"].index(label) for label in frame["group"]]),
    }
    states = []
    for table in (frame, Dataset.from_dict(columns, features=features), tensors):
        scm = StructuralCausalModel(MIXED, hidden_features=4).fit(table, num_steps=3, progress_bar=False)
        states.append(scm.state_dict())
    with torch.no_grad():  # as a benchmark may have it
        scm = StructuralCausalModel(MIXED, hidden_features=4).fit(frame, num_steps=3, progress_bar=False)
        states.append(scm.state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())


def test_model_is_the_same_after_saving_also_as_a_part_of_a_pipeline(mixed_model, tmp_path):
    mixed_model.save_pretrained(tmp_path / "scm")
    assert {path.name for path in (tmp_path / "scm").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    loaded = StructuralCausalModel.from_pretrained(tmp_path / "scm")
    assert loaded.graph == MIXED
    assert torch.equal(loaded.log_prob_quantile, mixed_model.log_prob_quantile)
    values = mixed_values(20)
    first, second = (
        scm.counterfactual(values, {"group": "blue"}, torch.Generator().manual_seed(0))
        for scm in (mixed_model, loaded)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not StructuralCausalModel(MIXED).log_prob_quantile.isfinite()
    # A pipeline looks the class up in this package.
    assert DDPMPipeline(unet=mixed_model, scheduler=None).unet is mixed_model


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grade": None}, ValueError, r"`table` expects a column for each of \['group', 'grade', 'length'\], got"),
        ({"length": [1.0, float("nan"), 2.0]}, ValueError, r"`table\['length'\]` expects a value .* none in row 1"),
        ({"group": ["red", "green", None]}, ValueError, r"`table\['group'\]` expects a value .* none in row 2"),
        (
            {"length": [1.0, 2.0, 11.0]},
            ValueError,
            r"`table\['length'\]` expects values in \[0, 10\], got 11 in row 2",
        ),
        ({"length": ["1", "2", "x"]}, TypeError, r"`table\['length'\]` expects numbers, got '1' in row 0"),
        ({"length": [2.0, 2.0, 2.0]}, ValueError, r"`table\['length'\]` expects more than one value, got 2"),
        ({"group": ["red", "pink", "blue"]}, ValueError, r"labels among \['red', .*\], got 'pink' in row 1"),
        ({"group": ["red", "blue", "blue"]}, ValueError, r"each label at least once, got no row with 'green'"),
        ({"grade": [0, 1, 3]}, ValueError, r"`table\['grade'\]` expects .* numbers among .*, got 3 in row 2"),
        ({"grade": [0.0, 1.0, 2.0]}, TypeError, r"`table\['grade'\]` expects .* indices, got float64"),
        ({"grade": [True, False, True]}, TypeError, r"`table\['grade'\]` expects numbers or labels, got bool"),
    ],
)
def test_tables_that_do_not_fit_the_graph_are_refused_by_their_row(change, error, message):
    columns = {"group": ["red", "green", "blue"], "grade": [0, 1, 2], "length": [1.0, 2.0, 3.0], **change}
    columns = {name: column for name, column in columns.items() if column is not None}
    scm = StructuralCausalModel(MIXED, hidden_features=4)
    # The index of a selection is not the row.
    frame = pd.DataFrame(columns, index=[5, 6, 7])
    with pytest.raises(error, match=message):
        scm.fit(frame, num_steps=1, progress_bar=False)
    if change.get("length") != ["1", "2", "x"]:
        with pytest.raises(error, match=message):
            scm.fit(Dataset.from_dict(columns), num_steps=1, progress_bar=False)


def test_other_bad_tables_and_arguments_are_refused():
    scm = StructuralCausalModel(MIXED, hidden_features=4)
    with pytest.raises(TypeError, match="`table` expects a pandas data frame"):
        scm.fit([1, 2])
    with pytest.raises(ValueError, match="at least one row"):
        scm.fit(mixed_table().iloc[:0])
    with pytest.raises(ValueError, match="columns of one length"):
        scm.fit({"group": torch.tensor([0, 1]), "grade": torch.tensor([0]), "length": torch.tensor([1.0, 2.0])})
    for argument in ({"num_steps": 0}, {"batch_size": 1.5}, {"learning_rate": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(argument))}` expects a positive"):
            scm.fit(mixed_table(50), **argument)
    with pytest.raises(ValueError, match=r"`learning_rate` of 1e\+30 led to a loss of nan in step 1\."):
        scm.fit(mixed_table(50), num_steps=2, learning_rate=1e30)
    with pytest.raises(ValueError, match="`num_bins` expects a positive integer, got 0"):
        StructuralCausalModel(MIXED, num_bins=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda scm, v: scm.abduct({**v, "hue": 1}), ValueError, "`values` expects attributes among .*'hue'"),
        (
            lambda scm, v: scm.abduct({"group": 0}),
            ValueError,
            r"`values` expects .* got none of \['grade', 'length'\]",
        ),
        (
            lambda scm, v: scm.abduct({**v, "grade": [0, 1]}),
            ValueError,
            r"`values\['.*'\]` expects one value or shape",
        ),
        (lambda scm, v: scm.log_prob({**v, "length": 11}), ValueError, r"`values\['length'\]` expects .* got 11"),
        (lambda scm, v: scm.counterfactual(v, {"image": 1}), ValueError, "`do` expects .*'image', which is the image"),
        (lambda scm, v: scm.counterfactual(v, {"grade": "top"}), ValueError, r"`do\['grade'\]` expects labels among"),
        (lambda scm, v: scm.counterfactual(v, {"grade": 1}, hold="hue"), ValueError, "`hold` expects .*'hue'"),
        (
            lambda scm, v: scm.counterfactual(v, {"grade": 1}, hold={"grade"}),
            ValueError,
            r"`hold` expects other attributes than `do`, got \['grade'\] in both",
        ),
        (lambda scm, v: scm.sample(0), ValueError, "`num_samples` expects a positive integer, got 0"),
        (lambda scm, v: scm.predict({}), TypeError, "`noise` expects a `dict`"),
        (lambda scm, v: scm.predict({"length": torch.zeros(3)}), ValueError, "got none of 'group'"),
        (
            lambda scm, v: scm.predict({**scm.abduct(v), "grade": torch.zeros(3)}),
            ValueError,
            r"`noise\['grade'\]` expects shape \(3, 3\), got \(3,\)",
        ),
        (
            lambda scm, v: scm.predict({**scm.abduct(v), "length": torch.full((3,), math.nan)}),
            ValueError,
            r"`noise\['length'\]` expects finite",
        ),
    ],
)
def test_bad_input_is_refused(mixed_model, call, error, message):
    with pytest.raises(error, match=message):
        call(mixed_model, mixed_values(3))


def test_finite_weights_that_lead_to_no_finite_value_are_named():
    scm = StructuralCausalModel(MIXED)
    network = scm.mechanisms[2].parameters_from_parents.network
    network[0].bias.data.fill_(10)  # hidden features that add up, whatever the initial weights are
    network[2].weight.data.fill_(1e38)
    noise = {"group": torch.zeros(1, 3), "grade": torch.zeros(1, 3), "length": torch.zeros(1)}
    with pytest.raises(
        ValueError, match=r"`noise\['length'\]` expects numbers that lead to finite values, got tensor"
    ):
        scm.predict(noise)


def test_counterfactuals_agree_with_dowhy(linear_model):
    """DoWhy fits linear models with additive noise here, an independent implementation of the same three steps."""
    gcm = pytest.importorskip("dowhy.gcm", reason="needs DoWhy: pip install -e '.[dowhy]'")
    import networkx

    frame = pd.DataFrame({name: value.numpy() for name, value in linear_gaussian(5000)[0].items()})
    reference = gcm.InvertibleStructuralCausalModel(networkx.DiGraph([("a", "b"), ("a", "c"), ("b", "c")]))
    reference.set_causal_mechanism("a", gcm.EmpiricalDistribution())
    for name in "bc":
        reference.set_causal_mechanism(name, gcm.AdditiveNoiseModel(gcm.ml.create_linear_regressor()))
    gcm.fit(reference, frame)

    factual = linear_gaussian(200, seed=1)[0]
    for name, value in (("a", -1.5), ("b", 2.0)):
        expected = gcm.counterfactual_samples(
            reference,
            {name: lambda _, value=value: value},
            observed_data=pd.DataFrame({key: column.numpy() for key, column in factual.items()}),
        )
        counterfactual = linear_model.counterfactual(factual, {name: value})
        for key in "abc":
            error = np.abs(counterfactual[key].numpy() - expected[key].to_numpy()).mean()
            assert error < 0.05 * frame[key].std(), (name, key)
