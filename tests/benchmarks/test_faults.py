# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import importlib
import json
import signal
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
    kills = [{"num_files": 0, "same_result": True}, {"num_files": 1, "same_result": True}]
    monkeypatch.setattr(faults, "kill_at_random", lambda *args: {"num_files": 1, "kills": kills})
    assert faults.main(["--output_dir", str(tmp_path)]) == 1
    table = (tmp_path / "faults.md").read_text()
    assert "| nothing | **no** | yes |" in table and "| training | 2 | 1 | 1 | 2 of 2 |" in table


def test_kills_count_the_files_that_were_written(faults, tmp_path):
    """A run that takes a second, and writes the first of its two files half-way."""

    def start(folder, kill_after=None):
        folder.mkdir(exist_ok=True)
        for name, written_after in (("first", 0.5), ("second", 1)):
            if kill_after is None or kill_after >= written_after:
                (folder / name).write_text(name)
        return (0 if kill_after is None else -signal.SIGKILL), ""

    class Moments:
        moments = iter([0.1, 0.6, 0.7])

        def uniform(self, low, high):
            return next(self.moments)

    report = faults.kill_at_random(start, faults.hash_files, tmp_path, 3, Moments())
    assert report["num_files"] == 2
    assert report["kills"] == [
        {"seconds": seconds, "num_files": num_files, "same_result": True}
        for seconds, num_files in ((0.1, 0), (0.6, 1), (0.7, 1))
    ]
