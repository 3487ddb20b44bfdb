# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from diffscm_diffusers import LatentVAE
from diffscm_diffusers.commands import evaluate
from diffscm_diffusers.evaluation import methods
from diffscm_diffusers.evaluation.methods import METHODS, Method, register_method
from diffscm_diffusers.evaluation.methods.diff_scm import create_search
from tests.helpers import to_argv


@pytest.fixture
def registry(monkeypatch):
    """The registry, put back to what it was."""
    before = dict(METHODS)
    yield METHODS
    METHODS.clear()
    METHODS.update(before)


def test_a_method_is_one_file():
    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")} - {"__init__", "registry"}
    assert {method.create.__module__.rsplit(".")[-1] for method in METHODS.values()} == files
    assert sorted(METHODS) == sorted(name.replace("_", "-") for name in files) == evaluate.list_methods()
    compared = [name for name in METHODS if not METHODS[name].is_control]
    assert compared == ["conditional-vae", "diff-scm", "schut", "van-looveren-klaise"]


def test_a_new_method_takes_part(registry, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "list_methods", lambda: sorted(METHODS))  # as if it were in a file

    @register_method("negative", "*negative*", is_control=True)
    def create_negative(factuals, **unused):
        return Method(lambda index: 1 - factuals.images(index), {"kind": "negative"})

    flags["metric_models"] = "none"
    evaluate.main([*to_argv({**flags, "output_dir": tmp_path}), "--methods", "factual", "negative"])
    factual, negative = (rows for _, rows in pd.read_csv(tmp_path / "samples.csv").groupby("method"))
    assert (factual["l1"] == 0).all() and (negative["l1"] > 0).all()
    assert json.loads((tmp_path / "summary.json").read_text())["methods"]["negative"]["settings"]["kind"] == "negative"
    assert (tmp_path / "table.md").read_text().startswith("| | *the factual itself* | *negative* |\n")
    with pytest.raises(ValueError, match="no other method has, got 'negative'"):
        register_method("negative", "another")


def test_the_scale_search_refuses_the_vae_that_scores(metric_models):
    vae = LatentVAE.from_pretrained(metric_models / "vae")
    with pytest.raises(ValueError, match="`--search_scale` expects other VAEs"):
        create_search([str(metric_models / "vae")], mock.Mock(device="cpu"), None, vae)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (["METRICS/vae", "pixels"], "got 'pixels': it stands alone"),
        (["METRICS/missing"], "got '.*missing': "),
        (["METRICS"], "got '.*': .*no file named config.json"),
        (["METRICS/autoencoder"], "got '.*autoencoder': it holds ImageAutoencoder"),
        (["METRICS/vae/config.json"], "got '.*config.json': "),
    ],
)
def test_the_scale_search_refuses_what_is_no_vae(metric_models, encoder, reason):
    vae = LatentVAE.from_pretrained(metric_models / "vae")
    encoder = [name.replace("METRICS", str(metric_models)) for name in encoder]
    with pytest.raises(ValueError, match="`--search_scale` expects the word pixels alone, or folders .*" + reason):
        create_search(encoder, mock.Mock(device="cpu"), None, vae)
