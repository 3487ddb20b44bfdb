# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.files import locked
from tests.helpers import load_script
from tests.pipelines.graph_dummies import get_random_graph_pipe


effects = load_script("effects")
pytestmark = pytest.mark.filterwarnings("ignore:.*less probable")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "images" / "test"
    folder.mkdir(parents=True)
    lines = ["file_name,thickness,tint"]
    random = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{4 + i},{0.1 * i}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")

    def run(*flags, edges=(("thickness", "tint"),)):
        pipe = get_random_graph_pipe(edges=edges)
        with mock.patch.object(DiffSCMGraphCounterfactualPipeline, "from_pretrained", return_value=pipe):
            effects.main(
                [
                    *("--pretrained_model_name_or_path", "a checkpoint", "--train_data_dir", str(tmp_path / "images")),
                    *("--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "effects")),
                    *("--num_draws", "2", "--num_inference_steps", "2", *flags),
                ]
            )
        return json.loads((tmp_path / "effects" / "effects.json").read_text())

    return run


def test_writes_effects_and_pictures(run, tmp_path):
    summary = run("--do", "thickness=6.5", "--max_samples", "2")
    assert summary["do"] == {"thickness": 6.5} and len(summary["factuals"]) == 2
    second = summary["factuals"][1]
    assert second["factual"] == {"thickness": 5.0, "tint": pytest.approx(0.1)}
    for kind, tint in (("total", 0.15), ("direct", 0.15), ("indirect", 0.0)):
        assert second[kind]["attributes"]["tint"] == pytest.approx({"mean": tint, "low": tint, "high": tint}, abs=1e-6)
        image = second[kind]["image"]
        assert 0 < image["low"] <= image["mean"] <= image["high"] < 1
    assert second["total"]["attributes"]["thickness"]["mean"] == 1.5
    assert second["indirect"]["attributes"]["thickness"]["mean"] == 0
    assert {path.name for path in (tmp_path / "effects").iterdir()} - {".lock"} == {
        "effects.json",
        "effects.png",
        "effects.pdf",
    }


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("thickness", "`--do` expects `attribute=value`, each attribute once, got 'thickness'"),
        ("thickness=thick", "`--do` expects a number as value of 'thickness', got 'thick'"),
        ("size=3", "`--do` expects attributes among .* got 'size'"),
        ("thickness=11", r"`do\['thickness'\]` expects values in \[0, 10\], got 11"),
    ],
)
def test_bad_interventions_are_refused(run, do, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run("--do", do)
    assert not (tmp_path / "effects").exists()


def test_a_second_run_in_the_same_folder_is_refused(run, tmp_path):
    with locked(tmp_path / "effects"), pytest.raises(OSError, match="is being written by another run. Wait until it"):
        run("--do", "thickness=6.5", "--max_samples", "1")
    assert [path.name for path in (tmp_path / "effects").iterdir()] == [".lock"]


def test_an_interruption_leaves_no_new_figure_beside_old_numbers(run, tmp_path):
    run("--do", "thickness=6.5", "--max_samples", "1")
    with mock.patch.object(effects, "save_figure", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        run("--do", "thickness=6.5", "--max_samples", "2")
    assert not (tmp_path / "effects" / "effects.json").exists()
