# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What messages advise helps: each advice is followed once (that of checksums and shards in their own tests)."""

import shutil

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import UNet2DModel

from diffscm_diffusers import DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler
from diffscm_diffusers.data.image_files import decode_image
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.generation.interventions import Interventions
from diffscm_diffusers.models.anticausal_classifier_2d import AntiCausalClassifier2DModel
from diffscm_diffusers.training.checkpoints import find_checkpoint
from diffscm_diffusers.training.trainer import check_size

from .pipelines.dummies import GUIDED, get_dummy_pipe


@pytest.fixture
def images(tmp_path):
    """A folder of two classes, `dark` and `light`, of two images each."""
    for shade, label in ((0, "dark"), (200, "light")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(2):
            PIL.Image.new("L", (8, 8), shade + i).save(tmp_path / "images" / label / f"{i}.png")
    return tmp_path / "images"


def load(tmp_path, **kwargs):
    return load_image_dataset(**kwargs, label_column="label", cache_dir=str(tmp_path / "cache"))["train"]


class TestImages:
    def test_transparency_is_put_on_a_background(self):
        pipe, image = get_dummy_pipe(), PIL.Image.new("LA", (8, 8), (200, 0))
        with pytest.raises(ValueError, match="put what is transparent on a background"):
            pipe(image, 1, **GUIDED)
        background = PIL.Image.new("RGBA", image.size, "white")
        seen = PIL.Image.alpha_composite(background, image.convert("RGBA")).convert("L")
        assert np.asarray(seen).min() == 255  # as `Image.convert` alone does not
        assert np.asarray(image.convert("L")).min() == 200
        pipe(seen, 1, **GUIDED)

    def test_more_than_8_bits_are_rescaled(self):
        pipe, image = get_dummy_pipe(), PIL.Image.fromarray(np.full((8, 8), 30000, np.uint16))
        with pytest.raises(ValueError, match=r"rescale more than 8 bits to \[0, 255\]"):
            pipe(image, 1, **GUIDED)
        with pytest.raises(ValueError, match=r"rescale it to \[0, 255\] first"):
            decode_image(image, "L")
        rescaled = PIL.Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        assert np.asarray(decode_image(rescaled, "L"))[0, 0] == 117
        pipe(rescaled, 1, **GUIDED)

    def test_frame_that_is_meant_is_saved(self, tmp_path):
        frames = [PIL.Image.new("L", (8, 8), shade) for shade in (10, 200)]
        frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
        with PIL.Image.open(tmp_path / "two.gif") as image:
            with pytest.raises(ValueError, match="save the one that is meant as an image of its own"):
                decode_image(image, "L")
            image.seek(1)
            image.save(tmp_path / "second.png")
        assert np.asarray(decode_image(PIL.Image.open(tmp_path / "second.png"), "L"))[0, 0] == 200


class TestData:
    def test_folder_of_images_is_train_data_dir(self, images, tmp_path):
        with pytest.raises(ValueError, match="a folder of images: use `train_data_dir`"):
            load(tmp_path, dataset_name=str(images))
        assert len(load(tmp_path, train_data_dir=str(images))) == 4

    def test_classes_are_moved_into_train(self, images, tmp_path):
        shutil.copytree(images / "dark", images / "test" / "dark")
        with pytest.raises(ValueError, match="Move the classes into a folder 'train' in it"):
            load(tmp_path, train_data_dir=str(images))
        for label in ("dark", "light"):
            shutil.move(images / label, images / "train" / label)
        assert len(load(tmp_path, train_data_dir=str(images))) == 4

    def test_folder_with_a_pattern_is_renamed(self, images, tmp_path):
        images.rename(tmp_path / "images [1]")
        with pytest.raises(ValueError, match="rename what is called so"):
            load(tmp_path, train_data_dir=str(tmp_path / "images [1]"))
        (tmp_path / "images [1]").rename(tmp_path / "images 1")
        assert len(load(tmp_path, train_data_dir=str(tmp_path / "images 1"))) == 4

    def test_broken_image_is_replaced_or_left_out(self, images, tmp_path):
        collate = ImageCollator(8, 1, "image", "label")
        good = (images / "dark" / "0.png").read_bytes()
        (images / "dark" / "0.png").write_bytes(b"")
        with pytest.raises(ValueError, match="Replace it, or leave out all such images with `--skip_broken`"):
            collate(list(load(tmp_path, train_data_dir=str(images))))
        rows = list(load(tmp_path, train_data_dir=str(images), skip_broken=True))
        assert len(collate(rows)["labels"]) == 3
        (images / "dark" / "0.png").write_bytes(good)
        assert len(collate(list(load(tmp_path, train_data_dir=str(images))))["labels"]) == 4

    def test_class_that_is_called_like_a_mode_has_a_prefix(self):
        with pytest.raises(ValueError, match="name their `label_column`"):
            Interventions(["other"], ["other", "b"], has_classes=False, seed=0)
        assert Interventions(["other"], ["other", "b"], has_classes=True, seed=0).targets(0, 0) == [1]
        assert Interventions(["class:other"], ["other", "b"], has_classes=False, seed=0).targets(0, None) == [0]


@pytest.mark.parametrize("change", [{"timestep_spacing": "leading"}, {"num_inference_steps": 4}])
def test_moves_that_do_not_meet(change):
    settings = {"timestep_spacing": "trailing", "num_inference_steps": 3}

    def start(timestep_spacing, num_inference_steps):
        scheduler = DiffSCMDDIMScheduler(num_train_timesteps=20, timestep_spacing=timestep_spacing)
        scheduler.set_timesteps(num_inference_steps)
        return scheduler.start(torch.zeros(1, 1, 8, 8))

    with pytest.raises(ValueError, match="Use `timestep_spacing='leading'`, or 'trailing' with a number"):
        start(**settings)
    start(**settings | change)


@pytest.mark.parametrize("change", [{"steps_offset": 1}, {"num_inference_steps": 2}])
def test_timesteps_that_the_network_does_not_know(change):
    settings = {"steps_offset": 8, "num_inference_steps": 5}

    def start(steps_offset, num_inference_steps):
        scheduler = DiffSCMDDIMInverseScheduler(20, steps_offset=steps_offset, timestep_spacing="leading")
        scheduler.set_timesteps(num_inference_steps)

    with pytest.raises(ValueError, match="Use another number of steps, or a smaller `steps_offset`"):
        start(**settings)
    start(**settings | change)


def test_damaged_checkpoints_are_removed_to_start_anew(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(ValueError, match="Remove them to start anew"):
        find_checkpoint(tmp_path, "latest")
    shutil.rmtree(tmp_path / "checkpoint-1")
    assert find_checkpoint(tmp_path, "latest") is None


def test_size_that_a_network_cannot_halve():
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    make = {**blocks, "in_channels": 1, "out_channels": 1, "block_out_channels": (4, 4), "norm_num_groups": 2}
    with pytest.raises(ValueError, match="`resolution` expects a multiple of 2"):
        check_size(UNet2DModel(sample_size=9, **make))
    check_size(UNet2DModel(sample_size=10, **make))


def test_class_with_another_ones_name_is_given_by_its_index():
    model = AntiCausalClassifier2DModel(
        sample_size=8, in_channels=1, num_classes=2, id2label={0: "a", 1: "a"}, block_out_channels=(8, 8),
        down_block_types=("DownBlock2D",) * 2, norm_num_groups=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="use the index of one"):
        model.class_indices("a", "intervention")
    assert model.class_indices(1, "intervention") == [1]
