# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ..pipelines.dummies import record_evaluations


@pytest.fixture(scope="module")
def benchmark(load_benchmark):
    return load_benchmark("pipeline_speed")


@pytest.fixture(scope="module")
def flags(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("factuals")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return ["--checkpoint", str(checkpoint), "--dataset", str(folder), "--batch_size", "2"]


@pytest.fixture
def inputs(benchmark, flags):
    return benchmark.load_pipeline(benchmark.parse_args(flags))


@pytest.mark.filterwarnings("ignore:Implicit abduction")
def test_everything_is_measured(benchmark, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "MEMORY", {"fast": benchmark.run_fast})
    timing = ["--repeats", "1", "--paper_steps", "5", "--skip_compile"]
    benchmark.main([*flags, *timing, "--output_dir", str(tmp_path)])

    results = json.loads((tmp_path / "results.json").read_text())
    summaries = [*results["stock"]["seconds_per_counterfactual"].values(), results["stock"]["stock_over_pipeline"]]
    summaries += [results["stock"]["pipeline_over_networks"], results["paper"]["float32_over_bf16"]]
    summaries += [*results["paper"]["seconds_per_counterfactual"].values(), *results["paper"]["paper_over"].values()]
    summaries += [*results["graph"]["seconds_per_counterfactual"].values(), *results["graph"]["class_over"].values()]
    for summary in summaries:
        for clock in ("elapsed", "processor"):
            assert 0 < summary[clock]["min"] <= summary[clock]["median"] <= summary[clock]["max"]
    assert results["paper"]["paper_over"].keys() == {"default", "fast", "fast, bf16"}
    assert 0 < results["memory"]["fast"]["loaded"] <= results["memory"]["fast"]["peak"]
    quality = results["stock"]["quality"]
    assert quality["pipeline, implicit"]["reconstruction_error"] < quality["pipeline"]["reconstruction_error"]
    assert "| pipeline_over_networks |" in capsys.readouterr().out


def test_the_graphs_pipelines_evaluate_no_more_than_the_classs(benchmark, inputs):
    pipe, factuals, targets = inputs
    evaluations = record_evaluations(pipe.unet)
    settings = {"num_inference_steps": 3, "guidance_scale": 1.0, "output_type": "pt"}
    pipe(factuals, targets, factual_class=targets.roll(1), marginal_abduction=False, **settings)
    by_class = len(evaluations)
    for graph_pipe in benchmark.make_graph_pipes(pipe).values():
        counted = record_evaluations(graph_pipe.unet)
        graph_pipe(factuals, attributes={"class": targets.roll(1)}, do={"class": targets}, **settings)
        assert len(counted) == by_class > 0


@pytest.mark.parametrize("guidance_scale", [0, 30.0])
def test_stock_loop_finds_the_same_counterfactuals(benchmark, inputs, guidance_scale):
    pipe, factuals, targets = inputs
    ours = pipe(factuals, targets, guidance_scale, 5, abduction="destination", output_type="pt").images
    torch.testing.assert_close(benchmark.run_stock(*inputs, 5, guidance_scale), ours, rtol=0, atol=1e-4)


def test_bare_calls_are_those_of_the_pipeline(benchmark, inputs):
    pipe, factuals, targets = inputs
    denoiser, classifier = record_evaluations(pipe.unet), record_evaluations(pipe.classifier)
    pipe(factuals, targets, guidance_scale=1, num_inference_steps=7, abduction="destination", output_type="pt")
    expected = list(denoiser), list(classifier)
    denoiser.clear(), classifier.clear()
    benchmark.run_networks(*inputs, 7)
    assert (denoiser, classifier) == expected


def test_factuals_come_over_and_over(benchmark, flags):
    _, factuals, _ = benchmark.load_pipeline(benchmark.parse_args([*flags, "--batch_size", "3"]))
    assert len(factuals) == 3
    assert torch.equal(factuals[2], factuals[0]) and not torch.equal(factuals[1], factuals[0])


def test_a_folder_without_factuals_is_refused(benchmark, flags, tmp_path):
    with pytest.raises(ValueError, match="`--dataset` takes a folder of PNG files, got"):
        benchmark.main([*flags, "--dataset", str(tmp_path)])
