# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pandas as pd
import pytest

from diffscm_diffusers import CausalGraph, StructuralCausalModel
from diffscm_diffusers.files import locked
from tests.helpers import load_script


train_scm = load_script("train_scm")


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    grade = generator.integers(1, 4, 60)
    frame = pd.DataFrame({"file_name": "x.png", "grade": grade, "length": grade + generator.random(60)})
    frame.to_csv(tmp_path / "table.csv", index=False)
    graph = CausalGraph(
        {
            "grade": {"kind": "ordinal", "labels": ["1", "2", "3"]},
            "length": {"kind": "continuous", "range": [0, 10]},
        },
        [("grade", "length"), ("length", "image")],
    )
    graph.save_json(tmp_path / "graph.json")
    return tmp_path


def flags(folder, *more):
    return ["--graph", f"{folder}/graph.json", "--output_dir", f"{folder}/scm", "--max_train_steps", "20", *more]


def test_model_of_a_text_file_is_saved_with_a_card(files):
    train_scm.main(flags(files, "--table", f"{files}/table.csv"))
    scm = StructuralCausalModel.from_pretrained(files / "scm")
    assert scm.graph == CausalGraph.from_json(files / "graph.json")
    counterfactual = scm.counterfactual({"grade": "1", "length": 1.5}, do={"grade": "3"})
    assert counterfactual["length"].item() == pytest.approx(3.5, abs=0.7)
    card = (files / "scm" / "README.md").read_text()
    assert scm.graph.mermaid() in card and "train_scm.py" in card


def test_bad_flags_are_refused(files):
    with pytest.raises(ValueError, match="one of the two, got neither"):
        train_scm.main(flags(files))
    with pytest.raises(ValueError, match="`--table` expects a `.csv` or a `.parquet` file"):
        train_scm.main(flags(files, "--table", "table.txt"))
    with pytest.raises(ValueError, match="`hub_model_id` expects `--push_to_hub`"):
        train_scm.main(flags(files, "--table", f"{files}/table.csv", "--hub_model_id", "a/b"))


def test_second_run_in_the_same_folder_is_refused(files):
    with (
        locked(files / "scm"),
        pytest.raises(OSError, match="is being written by another run. Wait until it has ended"),
    ):
        train_scm.main(flags(files, "--table", f"{files}/table.csv"))
    assert [path.name for path in (files / "scm").iterdir()] == [".lock"]
