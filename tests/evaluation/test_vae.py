# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from unittest import mock

import pandas as pd
import pytest
import torch

from diffscm_diffusers.baselines import ConditionalVAE2DModel, HierarchicalVAE2DModel
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.commands import evaluate
from diffscm_diffusers.evaluation.counterfactual_files import read_chunks
from diffscm_diffusers.evaluation.methods.conditional_vae import create_conditional_vae
from tests.evaluation.conftest import CLASSES
from tests.evaluation.small_vae import TINT, make_graph, save_vae
from tests.evaluation.small_world import write_world
from tests.helpers import to_argv


@pytest.mark.parametrize("model_class", [ConditionalVAE2DModel, HierarchicalVAE2DModel])
def test_it_is_compared_with_the_truth_and_held_to_the_criteria(flags, model_class, tmp_path):
    # It knows the classes in another order than the data and the checkpoint.
    order = ["light", "dark", "grey"]
    vae = save_vae(tmp_path / "vae", make_graph(order), model_class)
    flags |= {"dataset_name": write_world(tmp_path / "world"), "metric_models": "none", "measuring_steps": 0}
    del flags["train_data_dir"]
    flags |= {"conditional_vae": tmp_path / "vae", "output_dir": tmp_path / "out"}
    flags |= {"criteria_samples": 4, "repeated_samples": 2}
    evaluate.main([*to_argv(flags), "--methods", "factual", "conditional-vae", "truth"])

    samples = pd.read_csv(tmp_path / "out" / "samples.csv")
    samples = samples[samples["method"] == "conditional-vae"]
    images = {
        name: read_chunks(tmp_path / "out" / "counterfactuals" / name)[0]
        for name in ("factual", "truth", "conditional-vae")
    }
    factual_condition, condition = (
        torch.eye(3)[[order.index(CLASSES[c]) for c in samples[column]]]
        for column in ("factual_class", "intervention")
    )
    with torch.no_grad():
        latents = vae.encode(2 * images["factual"] - 1, factual_condition)
        (mean, scale), (other_mean, other_scale) = (vae.decode(latents, c) for c in (factual_condition, condition))
    expected = other_mean + other_scale * (2 * images["factual"] - 1 - mean) / scale
    torch.testing.assert_close(images["conditional-vae"], (expected.clamp(-1, 1) + 1) / 2)
    assert (images["conditional-vae"] - images["factual"]).abs().max() > 1e-3
    error = (images["conditional-vae"] - images["truth"]).abs().flatten(1).mean(1)
    assert samples["error_l1"].tolist() == pytest.approx(error.tolist(), abs=1e-5)

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]["conditional-vae"]
    # Latents and the noise of each pixel invert it.
    assert summary["scores"]["null_intervention"]["mean"] < 1e-5
    assert {"there_and_back", "ten_times_there_and_back"} < set(summary["scores"])
    assert summary["settings"]["conditional_vae"] == str(tmp_path / "vae")
    assert "conditional VAE" in (tmp_path / "out" / "table.md").read_text().splitlines()[0]


def create(folder, image_shape=(1, 8, 8)):
    pipe, accelerator = mock.Mock(image_shape=image_shape), mock.Mock(device="cpu")
    return create_conditional_vae(
        pairs=None,
        factuals=None,
        conditional_vae=None if folder is None else str(folder),
        class_names=CLASSES,
        pipe=pipe,
        accelerator=accelerator,
    )


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (make_graph(["dark", "grey", "red"]), "its cause expects the classes .*'light', got 'dark', 'grey', 'red'"),
        (make_graph([*CLASSES, "red"]), "its cause expects the classes .*'light', got .*'red'"),
        (make_graph(CLASSES[:2]), "its cause expects the classes .*'light', got 'dark', 'grey'"),
        (make_graph(tint=TINT), "it is told .*'tint'.*, not a class alone"),
        (CausalGraph({"tint": TINT}, [["tint", "image"]]), "it is told .*'tint'.*, not a class alone"),
        (None, "its configuration does not say which causes it is told"),
    ],
)
def test_another_cause_or_other_classes_are_refused(graph, message, tmp_path):
    save_vae(tmp_path, graph)
    with pytest.raises(ValueError, match=f"`--conditional_vae` expects .*, got .*{tmp_path.name}.*: {message}"):
        create(tmp_path)


def test_other_images_are_refused(tmp_path):
    save_vae(tmp_path, make_graph())
    for shape in ((1, 28, 28), (3, 8, 8)):
        message = (
            rf"`--conditional_vae` expects .*: its images have shape \(1, 8, 8\), the checkpoint's \({shape[0]}, "
        )
        with pytest.raises(ValueError, match=message):
            create(tmp_path, shape)


def test_what_is_no_such_vae_is_refused(metric_models, checkpoint, tmp_path):
    for folder, message in (
        (metric_models / "vae", "it holds LatentVAE"),
        (metric_models, "no file named config.json"),
        (checkpoint, "no file named config.json"),
        (tmp_path / "missing", ""),
    ):
        with pytest.raises(ValueError, match=f"`--conditional_vae` expects .*, got .*{folder.name}.*{message}"):
            create(folder)
    with pytest.raises(ValueError, match="`--conditional_vae` is needed for the method 'conditional-vae'"):
        create(None)


def test_damaged_weights_are_refused(tmp_path):
    save_vae(tmp_path, make_graph())
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="`--conditional_vae` expects "):
        create(tmp_path)
