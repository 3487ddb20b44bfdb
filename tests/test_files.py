# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import os
import signal
from unittest import mock

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from diffscm_diffusers.files import locked, save_whole, written_whole
from tests.helpers import multiprocessing_context


def test_file_gets_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "outputs" / "summary.json"
    with written_whole(str(path)) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_older_file_is_replaced(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")
    with written_whole(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_folder_gets_its_name_when_the_block_ends(tmp_path):
    path = tmp_path / "checkpoint"
    with written_whole(path) as unfinished:
        unfinished.mkdir()
        (unfinished / "config.json").write_text("{}")
        assert not path.exists()
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")] == [
        "checkpoint",
        "checkpoint/config.json",
    ]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("is_folder", [False, True])
def test_nothing_is_left_of_what_could_not_be_finished(tmp_path, is_folder, error):
    path = tmp_path / "data"
    with pytest.raises(error), written_whole(path) as unfinished:
        if is_folder:
            unfinished.mkdir()
            unfinished /= "part"
        unfinished.write_text("half")
        raise error
    assert not any(tmp_path.iterdir())


def test_older_file_survives_an_error(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="disk"), written_whole(path) as unfinished:
        unfinished.write_text("half")
        raise ValueError("disk")
    assert path.read_text() == "old"


def test_folder_with_files_is_not_replaced(tmp_path):
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(OSError, match="checkpoint"), written_whole(path) as unfinished:
        unfinished.mkdir()
    assert sorted(tmp_path.rglob("*")) == [path, path / "old"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_leftovers_of_a_killed_process_are_removed_first(tmp_path, is_folder):
    leftover = tmp_path / "unfinished-data"
    if is_folder:
        leftover.mkdir()
        (leftover / "part").touch()
    else:
        leftover.touch()
    with written_whole(tmp_path / "data") as unfinished:
        assert unfinished == leftover
        assert not unfinished.exists()
        unfinished.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


def test_model_is_saved_beside_other_files_and_over_an_older_one(tmp_path):
    config = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8,),
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "unfinished-model" / "unet").mkdir(parents=True)
    (tmp_path / "unfinished-model" / "unet" / "leftover").touch()
    save_whole(DDPMPipeline(UNet2DModel(**config), DDPMScheduler()), tmp_path)
    unet = UNet2DModel(**config)
    save_whole(DDPMPipeline(unet, DDPMScheduler()), tmp_path)
    loaded = DDPMPipeline.from_pretrained(tmp_path).unet
    assert all((a == b).all() for a, b in zip(unet.parameters(), loaded.parameters(), strict=True))
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "checksums.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert (tmp_path / "checkpoint-1").is_dir()


class TestSaveWhole:
    def test_what_an_interrupted_save_mixed_cannot_be_loaded(self, tmp_path):
        config = {"sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
        blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
        save_whole(UNet2DModel(**config, **blocks), tmp_path)
        replace = os.replace

        def interrupt(source, target):
            replace(source, target)
            raise KeyboardInterrupt

        with mock.patch("os.replace", interrupt), pytest.raises(KeyboardInterrupt):
            save_whole(UNet2DModel(**config, **blocks, freq_shift=1), tmp_path)
        with pytest.raises(OSError, match="config.json"):
            UNet2DModel.from_pretrained(tmp_path)


def hold(folder, held):
    with locked(folder):
        held.set()
        signal.pause()


class TestLock:
    """Two runs never write into one folder at once."""

    def test_second_run_is_refused_until_the_first_is_dead(self, tmp_path):
        held = multiprocessing_context.Event()
        process = multiprocessing_context.Process(target=hold, args=(tmp_path / "out", held))
        process.start()
        assert held.wait(timeout=300)  # the first process imports the libraries
        with pytest.raises(OSError, match="out' is being written by another run. Wait"), locked(tmp_path / "out"):
            pass
        process.kill()
        process.join()
        with locked(tmp_path / "out"):
            pass

    def test_a_new_folder_is_locked_beside_it(self, tmp_path):
        with locked(tmp_path / "world", is_new=True):
            assert not (tmp_path / "world").exists()
            with pytest.raises(OSError, match="another run"), locked(tmp_path / "world", is_new=True):
                pass
            with locked(tmp_path / "another", is_new=True):
                pass
        assert not any(tmp_path.iterdir())

    def test_is_given_back_after_an_error(self, tmp_path):
        for _ in range(2):
            with pytest.raises(ValueError, match="disk"), locked(tmp_path / "new", is_new=True), locked(tmp_path):
                raise ValueError("disk")
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    unet = UNet2DModel(
        8,
        1,
        1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    save_whole(unet, tmp_path / "model")
    unet.conv_in.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="`component` expects finite weights, got NaN or infinity in conv_in.bias"):
        save_whole(unet, tmp_path / "model")
    assert UNet2DModel.from_pretrained(tmp_path / "model").conv_in.bias.isfinite().all()
