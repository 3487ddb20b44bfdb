# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import shutil
from unittest import mock

import pandas as pd
import pytest
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import read_chunks
from diffscm_diffusers.evaluation.pairs import load_pairs_and_images
from diffscm_diffusers.files import locked
from tests.helpers import load_script, to_argv


search_scale = load_script("search_scale")


def run(flags: dict, output_dir, scales, **more):
    flags = {
        "split": "test",
        "train_split": "train",
        "min_effectiveness": 0,
        **flags,
        "output_dir": output_dir,
        **more,
    }
    search_scale.main([*to_argv(flags), "--guidance_scales", *map(str, scales)])
    return json.loads((output_dir / "search.json").read_text())


def load_factuals(flags: dict) -> torch.Tensor:
    """The images that `run` starts from, in its order."""
    splits = load_image_dataset(
        train_data_dir=flags["train_data_dir"], label_column="label", cache_dir=flags["cache_dir"]
    )
    collate = ImageCollator(8, 1, "image", "label")
    _, factuals, _ = load_pairs_and_images(splits, "test", "train", collate, ["dark", "grey", "light"], seed=0)
    return factuals.images(slice(None))


def summarize(cld: float, effectiveness: float, half_width: float = 0.0) -> dict:
    interval = {"mean": cld, "low": cld - half_width, "high": cld + half_width}
    return {"cld": interval, "effectiveness": {"mean": effectiveness}}


def test_chosen_is_the_lowest_cld_that_is_effective_enough():
    summaries = {1: summarize(0.9, 0.5), 3: summarize(1.1, 0.99), 5: summarize(1.0, 0.995), 8: summarize(1.2, 1.0)}
    choose_scale = search_scale.choose_scale
    assert choose_scale(summaries, 0.99) == 5
    assert choose_scale(summaries, 0.4) == 1
    assert choose_scale(summaries, 0.999) == 8
    assert choose_scale({1: summaries[1]}, 0.99) is None


def test_chosen_is_the_smallest_scale_within_a_standard_error_of_the_lowest_cld():
    choose_scale = search_scale.choose_scale
    others = {1: summarize(0.9, 0.5), 3: summarize(1.03, 1.0, 9.0), 5: summarize(1.01, 1.0, 9.0)}
    # A 95 % interval of 1.96 standard errors on either side of the lowest, 1.0.
    assert choose_scale({**others, 8: summarize(1.0, 1.0, 1.96 * 0.005)}, 0.99) == 8
    assert choose_scale({**others, 8: summarize(1.0, 1.0, 1.96 * 0.02)}, 0.99) == 5
    assert choose_scale({**others, 8: summarize(1.0, 1.0, 1.96 * 0.04)}, 0.99) == 3


def test_bf16_is_autocast_around_abduction_and_prediction(flags, fresh_accelerator, tmp_path):
    search = run(flags, tmp_path, [3], mixed_precision="bf16")
    assert search["settings"]["mixed_precision"] == "bf16"
    samples = pd.read_csv(tmp_path / "search.csv")
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(flags["pretrained_model_name_or_path"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        settings = {"output_type": "pt", "factual_class": samples["factual_class"].tolist()}
        expected = pipe(load_factuals(flags), samples["intervention"].tolist(), 3, **settings).images
    torch.testing.assert_close(read_chunks(tmp_path / "counterfactuals" / "scale-3")[0], expected)


@pytest.mark.parametrize("is_marginal", [True, False])
def test_scales_abduct_as_the_checkpoint_does(flags, checkpoint, tmp_path, is_marginal):
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(folder)
    pipe.register_to_config(default_marginal_abduction=is_marginal)
    pipe.save_pretrained(folder)
    flags["pretrained_model_name_or_path"] = folder
    abduct = DiffSCMCounterfactualPipeline.abduct
    with mock.patch.object(DiffSCMCounterfactualPipeline, "abduct", autospec=True, side_effect=abduct) as counted:
        search = run(flags, tmp_path, [0, 3, 1.5])
    # Chunks of 4 of 12 factuals; under the factual's class each scale climbs moves of its own.
    assert counted.call_count == (3 if is_marginal else 3 * 3)
    assert [scale["guidance_scale"] for scale in search["scales"]] == [0, 1.5, 3]

    samples = pd.read_csv(tmp_path / "search.csv")
    assert {"guidance_scale", "index", "cld", "cld_floor", "effectiveness", "l1", "im1", "im2"} <= set(samples)
    assert len(samples) == 3 * 12
    assert samples[samples["guidance_scale"] == 3]["cld"].mean() == pytest.approx(
        search["scales"][2]["cld"]["mean"], rel=1e-4
    )

    factuals = load_factuals(flags)
    factual_class = None if is_marginal else samples["factual_class"][:12].tolist()
    intervention = torch.tensor(samples["intervention"][:12].to_numpy())
    for scale, folder in ((0, "scale-0"), (1.5, "scale-1.5"), (3, "scale-3")):
        settings = {"guidance_scale": scale, "output_type": "pt", "factual_class": factual_class}
        expected = pipe(factuals, intervention, **settings).images
        torch.testing.assert_close(read_chunks(tmp_path / "counterfactuals" / folder)[0], expected, rtol=0, atol=1e-5)


def test_a_further_scale_keeps_the_others(flags, tmp_path):
    run(flags, tmp_path, [0, 3])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    search = run(flags, tmp_path, [0, 1, 3])
    assert len(search["scales"]) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(before) + 3
    with pytest.raises(ValueError, match="abduction` None there and 'source' here"):
        run(flags, tmp_path, [3], abduction="source")


def test_the_winner_becomes_the_default(flags, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    flags["pretrained_model_name_or_path"] = folder
    search = run(flags, tmp_path / "search", [2, 4], update_checkpoint=True)
    assert search["chosen"] in (2, 4)
    before, after = (json.loads((f / "model_index.json").read_text()) for f in (checkpoint, folder))
    assert after == {**before, "default_guidance_scale": search["chosen"]}
    assert DiffSCMCounterfactualPipeline.from_pretrained(folder).config.default_guidance_scale == search["chosen"]
    # The new default is no other setting: what has been computed still counts.
    assert run(flags, tmp_path / "search", [2, 4]) == search


def test_no_scale_is_effective_enough(flags, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    flags["pretrained_model_name_or_path"] = folder
    with pytest.raises(ValueError, match="None of the scales reaches `--min_effectiveness` 1:"):
        # An untrained oracle sees the target now and then, never in all pairs.
        run(flags, tmp_path / "search", [0, 1], min_effectiveness=1, update_checkpoint=True)
    assert json.loads((tmp_path / "search" / "search.json").read_text())["chosen"] is None
    assert (folder / "model_index.json").read_text() == (checkpoint / "model_index.json").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pretrained_model_name_or_path": "someone/diffscm"}, "expects a local folder"),
        ({"num_inference_steps": 3}, "leave out .* `--num_inference_steps`"),
        ({"abduction": "source"}, "leave out .* `--abduction`"),
        ({"mixed_precision": "bf16"}, "leave out .* `--mixed_precision`"),
    ],
)
def test_only_a_checkpoint_that_will_use_the_scale_is_updated(flags, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run({**flags, **change}, tmp_path, [1], update_checkpoint=True)


@pytest.mark.parametrize("value", ["1.01", "-0.1", "nan"])
def test_an_effectiveness_that_none_can_have_is_refused(flags, tmp_path, capsys, value):
    with pytest.raises(SystemExit):
        run(flags, tmp_path, [1], min_effectiveness=value)
    assert f"--min_effectiveness: expects a number in [0, 1], got {value!r}" in capsys.readouterr().err


def test_scales_that_would_share_a_folder_are_refused(flags, tmp_path):
    with pytest.raises(
        ValueError, match=r"`--guidance_scales` expects .* first six digits, .* got \[1.0, 1.0000001\]"
    ):
        run(flags, tmp_path, [1, 1.0000001])
    assert not any(tmp_path.iterdir())


def test_a_second_run_in_the_same_folder_is_refused(flags, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(OSError, match="is being written by another run. Wait until it"):
        run(flags, tmp_path / "out", [1])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
