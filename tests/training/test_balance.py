# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import math
import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import load_dataset

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.image_files import read_image
from diffscm_diffusers.training import balance
from diffscm_diffusers.training.balance import balance_causes, draw_by_weight, independence_weights
from diffscm_diffusers.training.trainer import Trainer
from tests.helpers import load_script, to_argv


def make_graph(**kinds) -> CausalGraph:
    nodes = {
        name: {"kind": "categorical", "labels": ["a", "b"]}
        if kind == "categorical"
        else {"kind": "continuous", "range": [-9, 9], "unit": "steps"}
        for name, kind in kinds.items()
    }
    return CausalGraph(nodes, [[name, "image"] for name in nodes])


SCRIPTS = {
    "train_diffusion": "unet",
    "train_classifier": "predictor",
    "train_semantic_encoder": "encoder",
    "train_vae": "vae",
}


@pytest.fixture
def get_flags(graph_flags, model_configs, tmp_path):
    """Flags of a run of a script on images of a shade and a level."""
    vae = {"_class_name": "ConditionalVAE2DModel", "sample_size": 8, "condition_dim": 1, "block_out_channels": [4, 4]}
    (tmp_path / "vae.json").write_text(json.dumps({**vae, "condition_features": 4}))
    configs = {**model_configs, "vae": tmp_path / "vae.json"}

    def get_flags(script):
        return {
            **graph_flags,
            "model_config_name_or_path": configs[SCRIPTS[script]],
            "train_batch_size": 6,
            "max_train_steps": 2,
            "lr_warmup_steps": 1,
            "report_to": "none",
            "output_dir": tmp_path / "run",
        }

    return get_flags


@pytest.fixture
def row_seven_only(monkeypatch):
    monkeypatch.setattr(balance, "independence_weights", lambda *args: 30 * torch.eye(30, dtype=torch.float64)[7])


def test_weights_of_categories_are_the_ratio_of_their_frequencies():
    counts = torch.tensor([[400, 100], [60, 240]])
    rows = torch.cat([torch.tensor([[i, j]]).expand(counts[i, j], 2) for i in range(2) for j in range(2)])
    weights = independence_weights(
        make_graph(shade="categorical", size="categorical"),
        {"shade": rows[:, 0], "size": rows[:, 1]},
        num_steps=200,
    )

    joint = counts / counts.sum()
    ratio = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0) / joint
    torch.testing.assert_close(weights, ratio[rows[:, 0], rows[:, 1]].double(), rtol=0.03, atol=0)


def test_weighted_numbers_are_uncorrelated_and_keep_their_spread():
    generator = torch.Generator().manual_seed(0)
    first, noise = torch.randn(2, 1500, generator=generator)
    values = {"first": first, "second": 0.5 * first + math.sqrt(0.75) * noise}
    assert np.corrcoef(*values.values())[0, 1] > 0.45
    weights = independence_weights(make_graph(first="continuous", second="continuous"), values, num_steps=100)

    covariance = np.cov(np.stack(list(values.values())), aweights=weights)
    assert abs(covariance[0, 1]) < 0.1
    assert covariance.diagonal() == pytest.approx([1, 1], abs=0.15)
    assert weights.mean().item() == pytest.approx(1)


@pytest.fixture
def weigh(monkeypatch):
    """Weights of rows whose densities are known: their logarithms with and without edges between the causes."""

    def weigh(log_weights):
        log_probs = iter([log_weights.double(), torch.zeros(len(log_weights)).double()])

        class KnownDensities:
            def __init__(self, graph):
                pass

            def fit(self, attributes, num_steps, seed):
                return self

            def log_prob(self, attributes):
                return next(log_probs)

        monkeypatch.setattr(balance, "StructuralCausalModel", KnownDensities)
        return independence_weights(make_graph(shade="categorical", size="categorical"), {})

    return weigh


@pytest.mark.parametrize("size", [5.0, 50.0, 5000.0])
def test_no_row_stands_for_too_many(weigh, size):
    """However large the weights of a few rows, they are lowered to 20 times the mean, and the others keep theirs."""
    log_weights = torch.linspace(-1, 1, 400)
    log_weights[:4] = torch.tensor([size, 1.1 * size, 1.2 * size, 1.3 * size])
    weights = weigh(log_weights)

    assert weights.mean().item() == pytest.approx(1)
    assert weights[:4].tolist() == pytest.approx([20] * 4)
    torch.testing.assert_close(weights[4:] / weights[4], (log_weights[4:] - log_weights[4]).exp().double())
    assert weights[4:].sum().item() == pytest.approx(400 - 4 * 20)


def test_weights_that_are_small_enough_stay_as_they_are(weigh):
    log_weights = torch.linspace(-1, 2, 400)
    weights = weigh(log_weights)
    torch.testing.assert_close(weights, log_weights.double().exp() / log_weights.double().exp().mean())


def test_rows_are_drawn_as_often_as_their_weights_say():
    weights = torch.tensor([2.0, 0.5, 0.0, 1.5, 1.0, 1.0], dtype=torch.float64)
    drawn = np.array([draw_by_weight(weights, np.random.default_rng(seed)) for seed in range(2000)])
    assert drawn.shape == (2000, 6)
    counts = (drawn[:, :, None] == np.arange(6)).sum(axis=1)
    assert (np.abs(counts - weights.numpy()) < 1).all()
    assert counts.mean(axis=0) == pytest.approx(weights.numpy(), abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_is_between_the_data_and_independent_causes(graph_flags, monkeypatch, share):
    dataset = load_dataset(str(graph_flags["dataset_name"]), split="train", cache_dir=str(graph_flags["cache_dir"]))
    weights = torch.linspace(0, 2, 30, dtype=torch.float64)
    monkeypatch.setattr(balance, "independence_weights", lambda graph, attributes, seed: weights)
    asked = []
    monkeypatch.setattr(balance, "draw_by_weight", lambda weights, generator: asked.append(weights) or [0] * 30)
    graph = CausalGraph.from_json(graph_flags["graph"])
    assert balance_causes(Accelerator(cpu=True), dataset, graph, share, seed=0) == [0] * 30
    torch.testing.assert_close(asked[0], 1 - share + share * weights)


@pytest.mark.parametrize("script", list(SCRIPTS))
@pytest.mark.parametrize("storage", [{}, {"cache_images": True}], ids=["map", "cached"])
def test_scripts_train_on_the_drawn_rows(get_flags, row_seven_only, monkeypatch, script, storage):
    class Stop(Exception):
        pass

    class FirstBatch(Trainer):
        def batches(self):
            batches.append(next(super().batches()))
            raise Stop

    batches, module = [], load_script(script)
    monkeypatch.setattr(module, "Trainer", FirstBatch)
    flags = {**get_flags(script), **storage, "balance_causes": 1}
    if script in ("train_classifier", "train_semantic_encoder"):
        flags["num_validation_images"] = 6
    if script != "train_classifier":
        flags["validation_grid_size"] = 2
    with pytest.raises(Stop):
        module.main(to_argv(flags))
    images, levels = batches[0]["pixel_values"], batches[0]["attributes"]["level"]
    assert (images == images[0]).all() and (levels == levels[0]).all()


def test_broken_image_is_named_by_its_row_in_the_data_set(get_flags, row_seven_only, monkeypatch):
    def break_numbered(row, *args):
        if hasattr(row, "position"):
            raise ValueError(f"broken image in {row.position}")
        return read_image(row, *args)

    monkeypatch.setattr("diffscm_diffusers.data.images.read_image", break_numbered)
    with pytest.raises(ValueError, match="broken image in row 7$"):
        load_script("train_vae").main(to_argv({**get_flags("train_vae"), "balance_causes": 1}))


@pytest.mark.parametrize("script", ["train_diffusion", "train_classifier"])
def test_class_alone_cannot_be_balanced(get_flags, script):
    flags = {name: value for name, value in get_flags(script).items() if name != "graph"}
    with pytest.raises(ValueError, match=re.escape("`balance_causes` expects `--graph` beside it, got 0.5 alone.")):
        load_script(script).main(to_argv({**flags, "balance_causes": 0.5}))


def test_streamed_causes_cannot_be_balanced(get_flags):
    with pytest.raises(ValueError, match="`balance_causes` expects no `--streaming`"):
        load_script("train_vae").main(to_argv({**get_flags("train_vae"), "balance_causes": 0.5, "streaming": True}))


def test_single_cause_cannot_be_balanced():
    with pytest.raises(ValueError, match=r"at least two parents of the image to balance, got \['shade'\]"):
        independence_weights(make_graph(shade="categorical"), {"shade": torch.tensor([0, 1])})
