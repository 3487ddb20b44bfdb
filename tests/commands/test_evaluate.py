# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import dataclasses
import json
import math
import os
import shutil
import socket
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from diffscm_diffusers import DiffSCMCounterfactualPipeline, LatentVAE
from diffscm_diffusers.baselines import ClassPrototypes, SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.evaluation.counterfactual_files import read_chunks
from diffscm_diffusers.evaluation.measuring import MeasuringNetwork
from diffscm_diffusers.evaluation.methods import METHODS as REGISTRY
from diffscm_diffusers.files import locked
from diffscm_diffusers.guidance import posterior_mean
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.metrics.networks import ImageAutoencoder, ImageClassifier, MLPEnsemble
from tests.evaluation.conftest import CLASSES
from tests.evaluation.small_world import write_world
from tests.helpers import load_script, start_script, to_argv
from tests.pipelines.test_semantic import get_semantic_pipe


# What the module's fixtures make is made once, in one worker.
pytestmark = pytest.mark.xdist_group("evaluate")

evaluate = load_script("evaluate")

METHODS = ["diff-scm", "factual", "random-real", "nearest-real-in-pixels", "nearest-real-in-latents"]


# Few samples, as what is repeated is slow.
FEW = {"criteria_samples": 4, "repeated_samples": 2}


def run(flags: dict, output_dir, methods=METHODS, **more):
    evaluate.main([*to_argv({**FEW, **flags, "output_dir": output_dir, **more}), "--methods", *methods])
    return pd.read_csv(output_dir / "samples.csv")


def chunk_times(output_dir) -> dict:
    paths = [path for name in ("counterfactuals", "criteria") for path in (output_dir / name).rglob("*.safetensors")]
    return {path.relative_to(output_dir): path.stat().st_mtime_ns for path in paths}


@pytest.fixture(autouse=True)
def few_cycles(monkeypatch):
    """`finished` is made before, and goes ten times there and back. The other runs go twice."""
    monkeypatch.setattr("diffscm_diffusers.evaluation.criteria.NUM_CYCLES", 2)


@pytest.fixture(scope="module")
def finished(image_folder, cache_dir, checkpoint, metric_models, tmp_path_factory):
    """A whole run."""
    output_dir = tmp_path_factory.mktemp("evaluation")
    flags = {
        "train_data_dir": image_folder,
        "cache_dir": cache_dir,
        "pretrained_model_name_or_path": checkpoint,
        "metric_models": metric_models,
        "batch_size": 4,
    }
    return output_dir, run(flags, output_dir)


def test_every_method_meets_the_same_pairs(finished):
    _, samples = finished
    assert samples["method"].unique().tolist() == METHODS
    pairs = ["index", "row", "factual_class", "intervention", "cld_floor"]
    first, *others = (rows[pairs].reset_index(drop=True) for _, rows in samples.groupby("method"))
    assert first["index"].tolist() == list(range(12))
    assert sorted(first["row"]) == list(range(12))
    assert (first["factual_class"] != first["intervention"]).all()
    for other in others:
        pd.testing.assert_frame_equal(other, first)


def test_controls_score_as_what_they_are(finished, metric_models):
    output_dir, samples = finished
    by_method = {name: rows.reset_index(drop=True) for name, rows in samples.groupby("method")}
    factual = by_method["factual"]
    assert (factual["l1"] == 0).all() and (factual["l2"] == 0).all()
    assert factual["cld"].tolist() == pytest.approx([math.log(1 + math.e)] * 12, abs=1e-5)
    assert (by_method["nearest-real-in-pixels"]["l2"] <= by_method["random-real"]["l2"] + 1e-6).all()
    assert (samples["cld_excess"] >= -1e-6).all()

    # The latents' distance is the least for the nearest in them.
    vae = MetricModels.from_pretrained(metric_models).vae
    means = {name: vae.encode(read_chunks(output_dir / "counterfactuals" / name)[0])[0] for name in METHODS}
    distance = {name: (mean - means["factual"]).norm(dim=1) for name, mean in means.items()}
    for name in ("random-real", "nearest-real-in-pixels"):
        assert (distance["nearest-real-in-latents"] <= distance[name] + 1e-6).all()


def test_scores_are_those_of_each_image_alone(finished, metric_models):
    output_dir, samples = finished
    models = MetricModels.from_pretrained(metric_models)
    factual, counterfactual = (read_chunks(output_dir / "counterfactuals" / m)[0] for m in ("factual", "diff-scm"))
    rows = samples[samples["method"] == "diff-scm"]
    for i, row in enumerate(rows.itertuples()):
        image = counterfactual[i : i + 1]
        errors = [(image - models.class_autoencoders[c](image)).square().sum().item() for c in range(3)]
        assert row.im1 == pytest.approx(errors[row.intervention] / (errors[row.factual_class] + 1e-7), rel=1e-3)
        disagreement = models.class_autoencoders[row.intervention](image) - models.autoencoder(image)
        assert row.im2 == pytest.approx(disagreement.square().sum().item() / image.sum().item(), rel=1e-3)
        assert row.effectiveness == (models.oracle(image).argmax().item() == row.intervention)
        assert row.l1 == pytest.approx((factual[i] - counterfactual[i]).abs().mean().item(), abs=1e-5)


def test_summary_and_table_are_of_the_samples(finished):
    output_dir, samples = finished
    summary = json.loads((output_dir / "summary.json").read_text())
    assert summary["num_pairs"] == 12
    assert summary["methods"]["diff-scm"]["settings"]["guidance_scale"] == 1.5
    for name, rows in samples.groupby("method"):
        for score in ("im1", "im2", "cld", "cld_excess", "effectiveness", "l1"):
            assert summary["methods"][name]["scores"][score]["mean"] == pytest.approx(rows[score].mean(), rel=1e-4)
        assert summary["methods"][name]["realism"] >= 0
    table = (output_dir / "table.md").read_text().splitlines()
    assert table[0].startswith("| | Diff-SCM | *the factual itself* | ") and table[0].count(" | ") == len(METHODS)
    # Without a truth the criteria that need none lead.
    assert [line.split(" | ")[0] for line in table[2:5]] == [
        "| null intervention, L1 ↓",
        "| there and back, L1 ↓",
        "| ten times there and back, L1 ↓",
    ]
    assert table[-2].startswith("| L1 from the factual ↓ | ")
    criteria = summary["methods"]["diff-scm"]
    assert criteria["noise"]["noise"]["std"] > 0 and criteria["scores"]["null_intervention"]["mean"] > 0
    assert summary["methods"]["factual"]["noise"] == {}


def test_baselines_are_called_as_the_pipeline_is(flags, finished, tmp_path):
    torch.manual_seed(0)
    # Another order of the classes than the checkpoint's.
    id2label = dict(enumerate(["light", "dark", "grey"]))
    classifier = ImageClassifier(8, 1, 3, id2label=id2label, block_out_channels=(4, 4), hidden_features=8)
    ensemble = MLPEnsemble(8, num_classes=3, id2label=id2label, num_members=2, hidden_features=(8,))
    autoencoder = ImageAutoencoder(8, encoder_layers=(2, "pool", 1), decoder_layers=("up", 2))
    prototypes = ClassPrototypes(3, encoding_shape=(1, 4, 4))
    baselines = {
        "schut": SchutPipeline(ensemble, max_iterations=3),
        "van-looveren-klaise": VanLooverenKlaisePipeline(classifier, autoencoder, prototypes, max_iterations=3),
    }
    for name, baseline in baselines.items():
        baseline.save_pretrained(tmp_path / "baselines" / name)

    flags["baselines"] = tmp_path / "baselines"
    samples = run(flags, tmp_path / "output", ["factual", *baselines])
    pairs = ["row", "factual_class", "intervention"]
    for name, baseline in baselines.items():
        assert samples[samples["method"] == name][pairs].values.tolist() == finished[1][pairs][:12].values.tolist()
        factual, counterfactual = (
            read_chunks(tmp_path / "output" / "counterfactuals" / method)[0] for method in ("factual", name)
        )
        intervention = [CLASSES[c] for c in samples["intervention"][:12]]
        torch.testing.assert_close(counterfactual, baseline(factual, intervention, output_type="pt").images)

    flags["baselines"] = tmp_path / "again"
    baselines["schut"].register_to_config(step_size=0.5)
    baselines["schut"].save_pretrained(tmp_path / "again" / "schut")
    with pytest.raises(ValueError, match="`weights` '.*' there and '.*' here"):
        run(flags, tmp_path / "output", ["schut"])


def test_judges_are_asked_by_name(flags, finished, metric_models, tmp_path):
    """The same metric models with their classes in another order give the same scores."""
    order = [2, 0, 1]
    folder = shutil.copytree(metric_models, tmp_path / "metrics")
    for new, old in enumerate(order):
        shutil.rmtree(folder / "class_autoencoders" / str(new))
        shutil.copytree(metric_models / "class_autoencoders" / str(old), folder / "class_autoencoders" / str(new))
    oracle = ImageClassifier.from_pretrained(metric_models, subfolder="oracle")
    last = [module for module in oracle.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.weight.data, last.bias.data = last.weight.data[order], last.bias.data[order]
    oracle.register_to_config(id2label={new: CLASSES[old] for new, old in enumerate(order)})
    oracle.save_pretrained(folder / "oracle")

    flags["metric_models"] = folder
    samples = run(flags, tmp_path / "output", ["diff-scm"]).drop(columns="seconds")
    expected = finished[1][finished[1]["method"] == "diff-scm"].drop(columns="seconds")
    pd.testing.assert_frame_equal(samples, expected.reset_index(drop=True), rtol=1e-5)

    oracle.register_to_config(id2label=dict(enumerate(["dark", "grey", "white"])))
    oracle.save_pretrained(folder / "oracle")
    with pytest.raises(ValueError, match=r"There are \['dark', 'grey', 'light'\] and \['dark', 'grey', 'white'\]"):
        run(flags, tmp_path / "output", ["diff-scm"])


def test_a_restarted_run_does_only_what_is_missing(flags, tmp_path):
    methods = ["diff-scm", "random-real"]
    samples = run(flags, tmp_path, methods)
    before = chunk_times(tmp_path)
    # Three of each method, and one for each of the criteria: null intervention, twice there and back, one draw.
    assert len(before) == 6 + 4
    lost = tmp_path / "counterfactuals" / "diff-scm" / "00004-00007.safetensors"
    lost.unlink()

    again = run(flags, tmp_path, methods)
    after = chunk_times(tmp_path)
    assert {path for path in before if before[path] != after[path]} == {lost.relative_to(tmp_path)}
    assert after.keys() == before.keys()
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), samples.drop(columns="seconds"))


def test_more_samples_keep_those_there_are(flags, tmp_path):
    few = run(flags, tmp_path, ["diff-scm", "factual"], max_samples=6)
    before = chunk_times(tmp_path)
    many = run(flags, tmp_path, ["diff-scm", "factual"])
    after = chunk_times(tmp_path)
    assert all(after[path] == time for path, time in before.items())
    assert len(many) == 24
    pd.testing.assert_frame_equal(many[many["index"] < 6].reset_index(drop=True), few, rtol=1e-4)


def test_a_second_run_in_the_same_folder_is_refused(flags, finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    with locked(folder), pytest.raises(OSError, match="is being written by another run. Wait until it has ended"):
        run(flags, folder)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interruption_leaves_no_new_results_beside_old_ones(flags, finished, tmp_path):
    folder = tmp_path / "evaluation"
    shutil.copytree(finished[0], folder)
    replace = os.replace

    def interrupt(source, target):
        if Path(target).name == "summary.json":
            raise KeyboardInterrupt
        replace(source, target)

    with mock.patch("os.replace", interrupt), pytest.raises(KeyboardInterrupt):
        run(flags, folder, ["factual"])
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "counterfactuals", "criteria", "samples.csv"]
    assert set(pd.read_csv(folder / "samples.csv")["method"]) == {"factual"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"guidance_scale": 2}, "guidance_scale` 1.5 there and 2.0 here"),
        ({"abduction": "source"}, "abduction` None there and 'source' here"),
        ({"split": "train"}, "split` 'test' there and 'train' here"),
    ],
)
def test_other_settings_are_refused(flags, finished, change, named):
    with pytest.raises(ValueError, match=named):
        run(flags, finished[0], **change)


def test_other_weights_are_refused(flags, checkpoint, tmp_path):
    flags["pretrained_model_name_or_path"] = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    run(flags, tmp_path / "output", ["diff-scm"])
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.unet.conv_out.bias.data += 1e-3
    pipe.save_pretrained(flags["pretrained_model_name_or_path"])
    with pytest.raises(ValueError, match="`weights` '.*' there and '.*' here"):
        run(flags, tmp_path / "output", ["diff-scm"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def test_two_processes_equal_one(flags, finished, tmp_path):
    argv = [*to_argv({**FEW, **flags, "output_dir": tmp_path}), "--methods", *METHODS]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    ranks = [start_script("evaluate", argv, RANK=rank, LOCAL_RANK=rank, **shared) for rank in ("0", "1")]
    for rank in ranks:
        rank.join(timeout=100)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    samples = pd.read_csv(tmp_path / "samples.csv")
    pd.testing.assert_frame_equal(samples.drop(columns="seconds"), finished[1].drop(columns="seconds"))
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (finished[0], tmp_path))
    for name in METHODS:
        assert two["methods"][name]["realism"] == pytest.approx(one["methods"][name]["realism"], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "methods", "message"),
    [
        ({"split": "validation"}, METHODS, "`split` expects a split .* 'validation'"),
        ({}, ["schut"], "`--baselines` is needed for the method 'schut'"),
        (
            {"baselines": "nowhere"},
            ["van-looveren-klaise"],
            "`--baselines` expects a folder that train_baselines.py wrote, got 'nowhere'",
        ),
        ({"metric_models": "nowhere"}, METHODS, "nowhere"),
    ],
)
def test_bad_input(flags, tmp_path, change, methods, message):
    with pytest.raises(ValueError, match=message):
        run(flags, tmp_path, methods, **change)


def test_unknown_method(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(flags, tmp_path, ["diff_scm"])
    assert "invalid choice: 'diff_scm'" in capsys.readouterr().err


class TestScaleSearch:
    """`--search_scale`: every image at its own guidance scale."""

    def test_in_pixels_and_in_latents(self, flags, metric_models, tmp_path):
        vaes = [str(tmp_path / name) for name in ("vae", "other-vae")]
        for seed, folder in enumerate(vaes, start=1):
            torch.manual_seed(seed)
            LatentVAE(8, latent_dim=3, block_out_channels=(4,), hidden_features=8).save_pretrained(folder)
        changes = {}
        for name, encoder in (("pixels", ["pixels"]), ("latents", vaes), ("one scale", [])):
            output_dir = tmp_path / name
            argv = to_argv({**FEW, **flags, "output_dir": output_dir, "max_samples": 4})
            search = ["--search_scale", *encoder] if name != "one scale" else []
            evaluate.main([*argv, "--methods", "diff-scm", *search])
            changes[name] = pd.read_csv(output_dir / "samples.csv")["l1"].tolist()
            settings = json.loads((output_dir / "summary.json").read_text())["methods"]["diff-scm"]["settings"]
            if name == "one scale":
                assert settings["guidance_scale"] == 1.5
            else:
                assert settings["guidance_scale"]["encoder"] == (["pixels"] if name == "pixels" else vaes)
                assert settings["guidance_scale"]["num_candidates"] == 5
        assert changes["pixels"] != changes["one scale"] != changes["latents"]

    def test_refuses_a_scale_beside_it(self, flags, tmp_path):
        argv = to_argv({**flags, "output_dir": tmp_path / "out", "search_scale": "pixels", "guidance_scale": 2})
        with pytest.raises(ValueError, match="exclude each other"):
            evaluate.main([*argv, "--methods", "diff-scm"])


class TestPosteriorMean:
    """`--posterior_mean`: the mean of what the counterfactuals could be."""

    def test_is_the_pipelines_and_does_not_depend_on_chunks(self, flags, tmp_path):
        images = {}
        for name, averaging, batch_size in (("one", [], 4), ("mean", [10, 2], 4), ("chunks", [10, 2], 3)):
            output_dir = tmp_path / name
            argv = to_argv({**FEW, **flags, "output_dir": output_dir, "max_samples": 6, "batch_size": batch_size})
            averaging = ["--posterior_mean", *map(str, averaging)] if averaging else []
            evaluate.main([*argv, "--methods", "diff-scm", *averaging])
            images[name], _ = read_chunks(output_dir / "counterfactuals" / "diff-scm")
            settings = json.loads((output_dir / "summary.json").read_text())["methods"]["diff-scm"]["settings"]
            if averaging:
                assert settings["posterior_mean"] == {"timestep": 10, "num_draws": 2, "guidance_scale": 1.5}
            else:
                assert "posterior_mean" not in settings
        torch.testing.assert_close(images["chunks"], images["mean"])

        pipe = DiffSCMCounterfactualPipeline.from_pretrained(flags["pretrained_model_name_or_path"])
        interventions = pd.read_csv(tmp_path / "mean" / "samples.csv")["intervention"].tolist()
        generator = torch.Generator().manual_seed(0)
        mean = posterior_mean(pipe, images["one"], interventions, 10, 2, generator=generator, output_type="pt")
        torch.testing.assert_close(images["mean"], mean)

    def test_a_timestep_that_the_scheduler_lacks(self, flags, tmp_path):
        argv = to_argv({**flags, "output_dir": tmp_path / "out"})
        with pytest.raises(ValueError, match="`timestep` expects a whole number from 0 to 19, got 20"):
            evaluate.main([*argv, "--methods", "diff-scm", "--posterior_mean", "20", "2"])


def test_bf16_is_autocast_around_the_call(flags, finished, fresh_accelerator, tmp_path):
    samples = run(flags, tmp_path, ["diff-scm"], mixed_precision="bf16")
    folder = tmp_path / "counterfactuals" / "diff-scm"
    counterfactual, _ = read_chunks(folder)

    pipe = DiffSCMCounterfactualPipeline.from_pretrained(flags["pretrained_model_name_or_path"])
    factual, _ = read_chunks(finished[0] / "counterfactuals" / "factual")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = pipe(
            factual,
            samples["intervention"].tolist(),
            factual_class=samples["factual_class"].tolist(),
            output_type="pt",
        ).images
    torch.testing.assert_close(counterfactual, expected)
    float32, _ = read_chunks(finished[0] / "counterfactuals" / "diff-scm")
    assert 0 < (counterfactual - float32).abs().max() < 0.1

    # Whatever they were made in, images are judged in float32.
    seen = MetricModels.from_pretrained(flags["metric_models"]).oracle(counterfactual).argmax(1)
    assert samples["effectiveness"].astype(bool).tolist() == (seen.numpy() == samples["intervention"]).tolist()
    assert json.loads((folder / "settings.json").read_text())["mixed_precision"] == "bf16"


def test_precisions_are_not_mixed_in_one_folder(flags, fresh_accelerator, tmp_path):
    run(flags, tmp_path, ["diff-scm"], max_samples=2)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ValueError, match="`mixed_precision` 'no' there and 'bf16' here"):
        run(flags, tmp_path, ["diff-scm"], max_samples=2, mixed_precision="bf16")


class TestTruth:
    """Data that know the true counterfactuals."""

    methods = ["diff-scm", "factual", "nearest-real-in-pixels", "truth"]

    @pytest.fixture(scope="class")
    def world(self, tmp_path_factory):
        return write_world(tmp_path_factory.mktemp("world") / "small")

    @pytest.fixture
    def world_flags(self, flags, world):
        flags = {**flags, "dataset_name": world, "metric_models": "none", "measuring_steps": 5}
        return {name: value for name, value in flags.items() if name != "train_data_dir"}

    @pytest.mark.parametrize("kind", ["guided", "marginal", "semantic"])
    def test_leads_the_table_for_both_pipelines(self, world_flags, world, tmp_path, kind):
        if kind == "semantic":
            world_flags["num_inference_steps"] = 2
            pipe = get_semantic_pipe()
            pipe.classifier.register_to_config(id2label=dict(enumerate(CLASSES)))
        else:
            pipe = DiffSCMCounterfactualPipeline.from_pretrained(world_flags["pretrained_model_name_or_path"])
            pipe.register_to_config(default_marginal_abduction=kind == "marginal")
        pipe.save_pretrained(tmp_path / "checkpoint")
        world_flags["pretrained_model_name_or_path"] = tmp_path / "checkpoint"
        samples = run(world_flags, tmp_path / "out", self.methods)

        # The data's own interventions, and their truth.
        assert ((samples["factual_class"] + 1) % 3 == samples["intervention"]).all()
        images = {name: read_chunks(tmp_path / "out" / "counterfactuals" / name)[0] for name in self.methods}
        for name, rows in samples.groupby("method"):
            error = (images[name] - images["truth"]).flatten(1)
            assert rows["error_l1"].tolist() == pytest.approx(error.abs().mean(1).tolist(), abs=1e-5)
            assert rows["error_rms"].tolist() == pytest.approx(error.square().mean(1).sqrt().tolist(), abs=1e-5)
        assert samples[samples["method"] == "factual"]["l1"].max() == 0
        assert {"error_grey", "error_pattern", "error_shift"} <= set(samples) and "im1" not in samples

        # Counterfactuals are those of the pipeline, under the data's class.
        rows = samples[samples["method"] == "diff-scm"]
        classes = None if kind == "marginal" else rows["factual_class"].tolist()
        settings = {"factual_class": classes, "output_type": "pt"}
        settings |= {"num_inference_steps": 2} if kind == "semantic" else {}
        expected = pipe(images["factual"], rows["intervention"].tolist(), **settings).images
        torch.testing.assert_close(images["diff-scm"], expected, atol=1e-5, rtol=0)
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        method = summary["methods"]["diff-scm"]
        null = pipe(images["factual"][:4], rows["factual_class"].tolist()[:4], **{**settings, **cut(classes)}).images
        null = (null - images["factual"][:4]).abs().mean().item()
        assert method["scores"]["null_intervention"]["mean"] == pytest.approx(null, abs=1e-5)
        assert {"coverage", "coverage_of_ink", "crps", "error_of_one_draw", "error_of_mean"} <= set(method["scores"])
        assert set(method["noise"]) == ({"noise", "code"} if kind == "semantic" else {"noise"})
        assert summary["criteria"] == {"criteria_samples": 4, "repeated_samples": 2, "num_draws": 19}

        table = (tmp_path / "out" / "table.md").read_text().splitlines()
        assert table[2].startswith("| error to the true counterfactual, L1 ↓ | ")
        assert table[2].endswith("| 0.0000 [0.0000, 0.0000] |")  # the truth itself
        assert any(line.startswith("| error of shift (grey levels) ↓") for line in table)

    def test_a_restart_trains_and_draws_nothing_anew(self, world_flags, tmp_path):
        samples = run(world_flags, tmp_path, self.methods)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
        with mock.patch.object(MeasuringNetwork, "train", side_effect=AssertionError):
            again = run(world_flags, tmp_path, self.methods)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
        pd.testing.assert_frame_equal(again, samples)
        with pytest.raises(ValueError, match="`num_draws` 19 there and 20 here"):
            run(world_flags, tmp_path, self.methods, num_draws=20)

    def test_all_that_can_be_done_is_the_default(self, world_flags, flags, tmp_path):
        """Without metric models there are no latents, and without truth there is no truth."""
        created = {}
        for name, some_flags in (("world", world_flags), ("images", flags)):
            with mock.patch.dict(REGISTRY), mock.patch.object(evaluate, "list_criteria", side_effect=StopIteration):
                for method in ("schut", "van-looveren-klaise"):
                    REGISTRY[method] = REGISTRY["factual"]
                for method, entry in REGISTRY.items():
                    create = mock.Mock(side_effect=entry.create)
                    REGISTRY[method] = dataclasses.replace(entry, create=create)
                    created.setdefault(name, {})[method] = create
                with pytest.raises(StopIteration):
                    evaluate.main(to_argv({**some_flags, "output_dir": tmp_path / name}))
        called = {name: {m for m, create in methods.items() if create.called} for name, methods in created.items()}
        assert set(REGISTRY) - called["world"] == {"conditional-vae", "nearest-real-in-latents"}
        assert set(REGISTRY) - called["images"] == {"conditional-vae", "truth"}

    @pytest.mark.parametrize(
        ("change", "methods", "message"),
        [
            ({}, ["nearest-real-in-latents"], "`--metric_models` is needed for the method 'nearest-real-in-latents'"),
            ({"split": "train"}, ["truth"], "The method 'truth' expects a data set with true counterfactuals"),
            ({"oracle": "someone/oracle"}, ["factual"], "`--oracle` is expected with `--metric_models`"),
        ],
    )
    def test_bad_input(self, world_flags, tmp_path, change, methods, message):
        with pytest.raises(ValueError, match=message):
            run(world_flags, tmp_path, methods, **change)

    @pytest.mark.parametrize("change", [{"guidance_scale": 2}, {"preset": "fast"}, {"search_scale": "pixels"}])
    def test_a_pipeline_without_guidance_refuses_its_settings(self, world_flags, tmp_path, change):
        get_semantic_pipe().save_pretrained(tmp_path / "checkpoint")
        world_flags["pretrained_model_name_or_path"] = tmp_path / "checkpoint"
        with pytest.raises(ValueError, match=f"`--{next(iter(change))}` .*DiffSCMSemanticCounterfactualPipeline"):
            run(world_flags, tmp_path / "out", ["diff-scm"], **change)

    def test_too_few_draws(self, world_flags, tmp_path):
        with pytest.raises(ValueError, match="`--num_draws` expects at least 19, .* got 18"):
            run(world_flags, tmp_path, ["factual"], num_draws=18)


def cut(classes):
    return {"factual_class": None if classes is None else classes[:4]}
