# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import importlib
import json
from pathlib import Path

import pytest


@pytest.fixture
def faults(monkeypatch):
    # Imported by its name, as the processes that it starts import it, too.
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    return importlib.import_module("faults")


def test_kills_are_survived_and_damages_named(faults, tmp_path, monkeypatch):
    class ShortBench(faults.Bench):
        def __init__(self, folder):
            super().__init__(folder)
            self.training["max_train_steps"] = 6
            self.generation["max_samples"] = 4

    monkeypatch.setattr(faults, "Bench", ShortBench)
    damages = [
        "checkpoint: weights with flipped bytes",
        "model: weights truncated",
        "model: weights with flipped bytes",
        "data: shard missing",
    ]
    status = faults.main(["--num_kills", "1", "--damages", *damages, "--output_dir", str(tmp_path / "faults")])
    report = json.loads((tmp_path / "faults" / "faults.json").read_text())
    for name in ("training", "generation"):
        assert report[name]["num_files"] > 0
        assert [kill["same_result"] for kill in report[name]["kills"]] == [True]
    assert {name: (o["detected"], o["intact"]) for name, o in report["damages"].items()} == dict.fromkeys(
        damages, (True, True)
    )
    assert status == 0
    assert "| damage |" in (tmp_path / "faults" / "faults.md").read_text()


def test_what_is_not_detected_is_reported(faults, tmp_path, monkeypatch):
    monkeypatch.setattr(faults, "DAMAGES", {"nothing": lambda bench, folder: faults.Outcome(False, True, "")})
    monkeypatch.setattr(faults, "kill_at_random", lambda *args: {"num_files": 1, "kills": [{"same_result": True}]})
    assert faults.main(["--output_dir", str(tmp_path)]) == 1
    assert "| nothing | **no** | yes |" in (tmp_path / "faults.md").read_text()
