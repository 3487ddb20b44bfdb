# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import hashlib
import json
import logging
from contextlib import nullcontext
from unittest import mock

import pytest
import torch

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.commands import calibrate
from tests.helpers import to_argv


@pytest.fixture
def run(image_folder, cache_dir, checkpoint, tmp_path):
    def run(pictures=False, **flags):
        shared = {
            "train_data_dir": image_folder,
            "cache_dir": cache_dir,
            "pretrained_model_name_or_path": checkpoint,
            "output_dir": tmp_path / "calibrated",
        }
        argv = to_argv({**shared, **flags})
        argv += [] if "timesteps" in flags else ["--timesteps", "0", "10", "19"]
        with nullcontext() if pictures else mock.patch.object(calibrate, "save_figure"):
            calibrate.main(argv)
        return json.loads((tmp_path / "calibrated" / "calibration.json").read_text())

    return run


def hash_files(folder) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_writes_a_whole_new_checkpoint(run, checkpoint, tmp_path):
    before = hash_files(checkpoint)
    calibration = run(pictures=True, split="train")
    assert hash_files(checkpoint) == before
    after = hash_files(tmp_path / "calibrated")
    assert set(after) - set(before) == {"calibration.json", "calibration.png", "calibration.pdf"}
    assert {name for name in before if after[name] != before[name]} == {"classifier/config.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["calibrated"]

    assert (calibration["num_fitted"], calibration["num_measured"]) == (9, 9)
    temperatures = [(level["timestep"], level["temperature"]) for level in calibration["levels"]]
    old, new = (
        DiffSCMCounterfactualPipeline.from_pretrained(folder).classifier
        for folder in (checkpoint, tmp_path / "calibrated")
    )
    assert [tuple(pair) for pair in new.config.temperatures] == temperatures
    sample = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    times, values = torch.tensor(temperatures).unbind(dim=1)
    middle = values[:2].mean()  # at timestep 5
    expected = old(sample, torch.tensor([0, 5, 19])).logits / torch.stack([values[0], middle, values[2]])[:, None]
    torch.testing.assert_close(new(sample, torch.tensor([0, 5, 19])).logits, expected)


def test_known_multiples_of_the_posterior_are_found(run, checkpoint, tmp_path):
    """Images of one grey level are classified as often as the predictor says, at each level, but for its multiple."""
    # What the network says of each sample, whatever it sees: 3/4, 1/2 and 1/4 for the class of a third of the images.
    multiples = {0: 0.5, 10: 2.0, 19: 3.0}

    def logits(model, sample, timestep):
        posterior = torch.tensor([0.5, 0.25, 0.25]).log()
        return multiples[int(timestep[0])] * posterior.expand(len(sample), 3)

    # Of both halves, two of four images are of the first class, and one each of the others.
    classes = torch.tensor([0, 0, 1, 2] * 2)
    with (
        mock.patch.object(AntiCausalClassifier2DModel, "_compute_logits", logits),
        mock.patch.object(calibrate, "read_classes", return_value=classes),
        mock.patch.object(torch, "randperm", side_effect=lambda n, generator: torch.arange(8)),
    ):
        levels = run(split="train[:8]")["levels"]
    for level in levels:
        assert level["temperature"] == pytest.approx(multiples[level["timestep"]], rel=1e-5)
        assert level["after"]["ece"] == pytest.approx(0, abs=1e-6) and level["before"]["ece"] > 0.05
        assert level["after"]["nll"] == pytest.approx(1.5 * torch.tensor(2.0).log().item(), rel=1e-5)


def test_levels_without_a_maximum_are_named(run, caplog):
    def logits(model, sample, timestep):
        return sample.flatten(1)[:, :3] if timestep[0] else torch.eye(3)[:1].expand(len(sample), 3)

    with mock.patch.object(AntiCausalClassifier2DModel, "_compute_logits", logits), caplog.at_level(logging.WARNING):
        run(split="train[:6]")  # of one class: at the lowest level it is always seen
    assert "At the timesteps [0" in caplog.text and "no maximum from 0.05 to 20" in caplog.text


def test_the_card_tells_the_calibration(run, checkpoint, tmp_path):
    folder = tmp_path / "with-card"
    DiffSCMCounterfactualPipeline.from_pretrained(checkpoint).save_pretrained(folder)
    (folder / "README.md").write_text("# Card\n\n## Training\n\nTrained.\n\n## Limits\n\nSome.\n")
    run(pretrained_model_name_or_path=folder)
    card = (tmp_path / "calibrated" / "README.md").read_text()
    assert card.startswith("# Card\n\n## Training\n\nTrained.\n\n### Calibration\n") and "diffscm calibrate" in card
    assert "| 10 |" in card and card.endswith("## Limits\n\nSome.\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"timesteps": "3"}, r"`--timesteps` expects at least two timesteps, in increasing order, got \[3\]"),
        ({"max_samples": 1}, "expect at least two images, got 1"),
        ({"split": "validation"}, "'validation'"),
    ],
)
def test_bad_flags_are_refused(run, flags, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(**flags)
    assert not (tmp_path / "calibrated").exists()


@pytest.mark.parametrize(
    ("timesteps", "expected"),
    [
        (["10", "0"], "at least two timesteps, in increasing order"),
        (["0", "0"], "at least two timesteps, in increasing order"),
        (["0", "20"], "timesteps from 0 to 19"),
    ],
)
def test_timesteps_out_of_order_or_range_are_refused(checkpoint, image_folder, timesteps, expected, tmp_path):
    argv = ["--pretrained_model_name_or_path", str(checkpoint), "--train_data_dir", str(image_folder)]
    with pytest.raises(ValueError, match=f"`--timesteps` expects {expected}"):
        calibrate.main([*argv, "--output_dir", str(tmp_path / "new"), "--timesteps", *timesteps])


def test_nothing_is_overwritten_and_nothing_calibrated_twice(run, checkpoint, tmp_path):
    run()
    with pytest.raises(ValueError, match="`--output_dir` expects a new folder"):
        run()
    with pytest.raises(ValueError, match="expects a predictor without temperatures"):
        run(pretrained_model_name_or_path=tmp_path / "calibrated", output_dir=tmp_path / "again")
