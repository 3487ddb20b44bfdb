# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The card of a checkpoint of several causes."""

import json
import re
from unittest import mock

import pytest
from diffusers import DDIMScheduler
from huggingface_hub import ModelCard

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.commands import card
from diffscm_diffusers.hub.cards import make_graph_card, read_section
from tests.helpers import to_argv
from tests.pipelines.graph_dummies import get_random_graph_pipe


@pytest.fixture
def pipe():
    pipe = get_random_graph_pipe(
        edges=[("thickness", "tint")], scheduler=DDIMScheduler(num_train_timesteps=60, clip_sample=False)
    )
    pipe.register_to_config(default_num_inference_steps=7, default_guidance_scale={"intervened": 2.0})
    return pipe


def test_card_draws_the_graph_and_lists_the_attributes(pipe):
    written = make_graph_card(pipe, "ada/strokes", effect="stroke").text
    assert re.search(r"```mermaid\n(.*?)\n```", written, re.DOTALL)[1] == pipe.scm.graph.mermaid().strip()
    assert "| `thickness` | 0 to 10 |  |\n| `tint` | -1 to 1 | `thickness` |\n" in written
    assert "8 x 8 pixels with 1 channel(s)" in written
    hyperparameters = read_section(written, "Hyperparameters")
    assert re.search(r"\| denoiser \| `CausalUNet2DModel`, \S+ parameters \|", hyperparameters)
    assert "predictor" not in hyperparameters and "60 timesteps, betas `linear`" in hyperparameters
    assert "7 steps each way, guidance scale {'intervened': 2.0}" in hyperparameters
    assert "had an attribute been another" in written and "## Training" not in written


def test_categories_are_listed_by_their_labels(pipe):
    pipe.scm.graph = CausalGraph(
        {"shape": {"kind": "categorical", "labels": ["disc", "square"]}}, [["shape", "image"]]
    )
    written = make_graph_card(pipe, "ada/shapes").text
    assert "| `shape` | one of `disc`, `square` |  |" in written
    assert 'factual = {"shape": "disc"}' in written and 'do={"shape": "square"}' in written


def test_example_runs(pipe):
    code = re.search(r"```python\n(.*?)```", make_graph_card(pipe, "ada/strokes").text, re.DOTALL)[1]
    factual = json.loads(re.search(r"factual = (.*)", code)[1])
    do = json.loads(re.search(r"do=(\{.*?\})", code)[1])
    assert set(factual) == {"thickness", "tint"} and do == {"thickness": 10.0}
    pipe.scm.graph.check_values(factual, 1, "attributes")
    pipe.scm.graph.check_values(do, 1, "do")
    compile(code, "card", "exec")


def test_command_keeps_what_was_written(pipe, tmp_path):
    (tmp_path / "README.md").write_text(
        "# old\n\n## Training\n\nby hand\n\n## Results\n\ngood\n\n## Limits\n\nOnly by day.\n"
    )
    flags = {"pretrained_model_name_or_path": tmp_path, "dataset_name": "ada/data", "license": "cc-by-4.0"}
    with mock.patch.object(card, "load_checkpoint", return_value=pipe):
        for _ in range(2):
            card.main(to_argv(flags))
        written = ModelCard.load(tmp_path / "README.md")
        (tmp_path / "summary.json").write_text("{}")
        with pytest.raises(ValueError, match="`--evaluation` expects a checkpoint of one class, got one of a graph"):
            card.main(to_argv({**flags, "evaluation": tmp_path}))
    assert [read_section(written.text, name) for name in ("Training", "Results", "Limits")] == [
        "by hand",
        "good",
        "Only by day.",
    ]
    assert written.data.datasets == ["ada/data"] and written.data.license == "cc-by-4.0"
