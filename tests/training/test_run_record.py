# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A run can be resumed by the same run only."""

import json

import PIL.Image
import pytest

from diffscm_diffusers.training.checkpoints import list_checkpoints
from tests.helpers import load_script, to_argv


@pytest.fixture
def finished(flags):
    """Flags of a run that has ended, to go on with."""
    flags |= {"validation_grid_size": 1, "validation_inference_steps": 1, "max_train_steps": 1}
    load_script("train_diffusion").main(to_argv(flags))
    return {**flags, "resume_from_checkpoint": "latest", "max_train_steps": 2}


def test_what_does_not_change_the_weights_may_change(finished, tmp_path):
    changes = {"checkpointing_steps": 1, "validation_steps": 5, "logging_steps": 3, "cache_images": True}
    load_script("train_diffusion").main(to_argv({**finished, **changes, "validation_inference_steps": 2}))
    assert list(list_checkpoints(tmp_path)) == [1, 2]


def test_all_differing_flags_are_named_with_both_values(finished, tmp_path):
    config = json.loads(finished["model_config_name_or_path"].read_text())
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**config, "dropout": 0.5}))
    changes = {
        "seed": 1,
        "learning_rate": 0.5,
        "train_batch_size": 3,
        "use_ema": True,
        "beta_schedule": "sigmoid",
        "model_config_name_or_path": path,
    }
    with pytest.raises(ValueError, match="expects the run that wrote .*checkpoint-1'") as error:
        load_script("train_diffusion").main(to_argv({**finished, **changes}))
    for difference in (
        "`seed` 0 there and 1 here",
        "`learning_rate` 0.0001 there and 0.5 here",
        "`train_batch_size times processes` 4 there and 3 here",
        "`use_ema` False there and True here",
        "`beta_schedule` 'linear' there and 'sigmoid' here",
        "the network's `dropout` 0.0 there and 0.5 here",
    ):
        assert difference in str(error.value)
    assert "max_train_steps" not in str(error.value)
    assert list(list_checkpoints(tmp_path)) == [1]


def test_end_of_the_run_may_not_change_where_the_learning_rate_depends_on_it(flags):
    flags |= {"validation_grid_size": 1, "validation_inference_steps": 1, "lr_scheduler": "cosine"}
    main = load_script("train_diffusion").main
    main(to_argv(flags))
    with pytest.raises(ValueError, match="another one: `max_train_steps` 2 there and 3 here. Resume"):
        main(to_argv({**flags, "resume_from_checkpoint": "latest", "max_train_steps": 3}))


@pytest.mark.parametrize("change", ["other images", "fewer images"])
def test_other_images_are_refused(flags, tmp_path, change):
    def write(name, count, shade):
        folder = tmp_path / name / "train"
        folder.mkdir(parents=True)
        for i in range(count):
            PIL.Image.new("L", (8, 8), shade + i).save(folder / f"{i}.png")
        return folder.parent

    flags |= {"validation_grid_size": 1, "validation_inference_steps": 1, "output_dir": tmp_path / "run"}
    main = load_script("train_diffusion").main
    main(to_argv({**flags, "train_data_dir": write("one", 5, 0)}))
    other = write("two", 5, 1) if change == "other images" else write("two", 4, 0)
    flags |= {"resume_from_checkpoint": "latest", "max_train_steps": 3}
    with pytest.raises(ValueError, match="`train_data_dir` '.*one' there and '.*two' here, the images' fingerprint"):
        main(to_argv({**flags, "train_data_dir": other}))
    # The same images may lie elsewhere.
    main(to_argv({**flags, "train_data_dir": write("three", 5, 0)}))
