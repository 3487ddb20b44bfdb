# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import PIL.Image
import pytest


SCORES = ("cld", "cld_floor", "im1", "im2", "effectiveness", "l1")


def write_search(path, scales, chosen, **settings):
    """A `search.json` in which every score of a scale is the scale itself, but for the floor."""
    summaries = [
        {
            "guidance_scale": scale,
            **{name: {"mean": 0.1 * scale} for name in SCORES},
            "cld_floor": {"mean": 0.9},
            "l1": {"mean": 0.5},
        }
        for scale in scales
    ]
    path.write_text(json.dumps({"chosen": chosen, "num_pairs": 7, "settings": settings, "scales": summaries}))
    return str(path)


@pytest.fixture
def reference(tmp_path):
    return write_search(tmp_path / "reference.json", [3.0], 3.0, num_inference_steps=1000, abduction="destination")


def test_each_search_counts_with_its_chosen_scale(load_benchmark, reference, tmp_path):
    source = write_search(tmp_path / "source.json", [0, 2.0, 4.0], 2.0, num_inference_steps=5, abduction="source")
    belm = write_search(
        tmp_path / "belm.json", [0, 8.0], None, num_inference_steps=10, scheduler="DiffSCMBELMScheduler"
    )
    load_benchmark("frontier").main([source, belm, "--reference", reference, "--output_dir", str(tmp_path / "out")])

    rows = [line.split(" | ")[1:5] for line in (tmp_path / "out" / "frontier.md").read_text().splitlines()[2:]]
    # steps, evaluations, scale and CLD; where no scale was chosen, of the most effective one
    assert rows == [["10", "19", "8", "0.8"], ["1000", "2000", "3", "0.3"], ["5", "10", "2", "0.2"]]
    with PIL.Image.open(tmp_path / "out" / "frontier.png") as image:
        assert image.width > image.height


def test_quadratic_timesteps_have_lines_of_their_own(load_benchmark, reference, tmp_path):
    frontier = load_benchmark("frontier")
    labels = set()
    for abduction in ("source", "destination", "implicit"):
        for scheduler in ("DDIMScheduler", "DiffSCMDDIMScheduler"):
            path = tmp_path / f"{abduction}-{scheduler}.json"
            write_search(path, [2.0], 2.0, num_inference_steps=5, abduction=abduction, scheduler=scheduler)
            row = frontier.read_search(path)
            assert row["evaluations"] == (None if abduction == "implicit" else 10)
            labels.add(frontier.LINES[row["moves"]][0])
    assert len(labels) == 6


def test_other_pairs_are_refused(load_benchmark, reference, tmp_path):
    path = tmp_path / "other.json"
    write_search(path, [2.0], 2.0, num_inference_steps=5, abduction="source")
    path.write_text(path.read_text().replace('"num_pairs": 7', '"num_pairs": 8'))
    with pytest.raises(ValueError, match="got other pairs"):
        load_benchmark("frontier").main([str(path), "--reference", reference, "--output_dir", str(tmp_path)])
