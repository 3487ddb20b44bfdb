# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""How the pipeline is written: short enough to be read as the algorithm that it is, with nothing done twice."""

import ast
from pathlib import Path
from unittest import mock

import pytest
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.guidance import posterior_mean

from .dummies import GUIDED, get_dummy_image


PIPELINE_FILE = Path(__file__).resolve().parents[2] / "pipelines" / "pipeline_diffscm_counterfactual.py"
PREPARATION = ("check_inputs", "prepare_image", "prepare_exogenous_noise", "prepare_guidance", "prepare_schedulers")


class TestPreparation:
    @pytest.mark.parametrize(
        "call, counts",
        (
            # Both classes of a call guide: the intervention, and the factual's if it is given.
            (lambda pipe: pipe(get_dummy_image(), 1, **GUIDED), [1, 1, 0, 2, 1]),
            (lambda pipe: pipe(get_dummy_image(3), [0, 1, 2], batch_size=1, **GUIDED), [1, 1, 0, 2, 1]),
            (lambda pipe: pipe.abduct(get_dummy_image(3), num_inference_steps=4, batch_size=1), [1, 1, 0, 1, 1]),
            (lambda pipe: pipe.predict(torch.randn(3, 1, 8, 8), 1, batch_size=1, **GUIDED), [1, 0, 1, 1, 1]),
            (lambda pipe: pipe.sample([0, 1], 2, **GUIDED), [1, 0, 1, 1, 1]),
            (lambda pipe: posterior_mean(pipe, get_dummy_image(3), 1, 400, 2, batch_size=1), [1, 1, 0, 1, 0]),
        ),
        ids=("call", "call in batches", "abduct", "predict", "sample", "posterior_mean"),
    )
    def test_is_made_once(self, pipe, call, counts):
        mocks = []
        with mock.patch.multiple(
            DiffSCMCounterfactualPipeline,
            **{
                name: mock.create_autospec(method, side_effect=method)
                for name in PREPARATION
                for method in [getattr(DiffSCMCounterfactualPipeline, name)]
            },
        ):
            call(pipe)
            mocks = [getattr(DiffSCMCounterfactualPipeline, name) for name in PREPARATION]
        assert dict(zip(PREPARATION, [m.call_count for m in mocks], strict=True)) == dict(
            zip(PREPARATION, counts, strict=True)
        )


class TestSource:
    source = PIPELINE_FILE.read_text()
    tree = ast.parse(source)

    def test_file_is_short(self):
        assert len(self.source.splitlines()) < 940

    def test_call_is_short(self):
        (call,) = [n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef) and n.name == "__call__"]
        body = call.body[1:] if ast.get_docstring(call) else call.body
        assert body[-1].end_lineno - body[0].lineno + 1 < 80

    def test_schedulers_are_not_told_apart(self):
        """What a scheduler does differently, it does itself."""
        calls = [n for n in ast.walk(self.tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "isinstance"]
        assert calls and not [ast.unparse(n) for n in calls if "scheduler" in ast.unparse(n).lower()]
        comparisons = [ast.unparse(n) for n in ast.walk(self.tree) if isinstance(n, ast.Compare)]
        assert not [c for c in comparisons if "ndim == 5" in c and not c.startswith("images")]
