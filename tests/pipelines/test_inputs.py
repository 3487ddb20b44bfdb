# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import numpy as np
import PIL.Image
import pytest
import torch

from .dummies import GUIDED, get_dummy_image, get_dummy_pipe, record_evaluations


class TestImages:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)

    def assert_all_equal(self, pipe, pixels, images):
        """`pixels` is the uint8 batch, channels last, that each of `images` shows."""
        expected = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 127.5 - 1
        for image in images:
            prepared = pipe.prepare_image(image)
            assert prepared.dtype == torch.float32
            torch.testing.assert_close(prepared, expected.float(), rtol=0, atol=1e-6)

    def test_exif_turns_pictures_upright(self, pipe):
        picture = PIL.Image.fromarray(self.pixels[0, ..., 0])
        picture.getexif()[0x0112] = 6  # to be turned clockwise
        upright = np.rot90(self.pixels[:1, ..., :1], k=-1, axes=(1, 2)).copy()
        self.assert_all_equal(pipe, upright, [picture, [picture]])

    def test_greyscale(self, pipe):
        pixels = self.pixels[..., :1]
        floats, tensor = pixels / 255, torch.from_numpy(pixels).permute(0, 3, 1, 2)
        pictures = [PIL.Image.fromarray(p[..., 0]) for p in pixels]
        self.assert_all_equal(
            pipe,
            pixels,
            [
                pictures,
                pixels,
                pixels[..., 0],
                list(pixels),
                list(pixels[..., 0]),
                floats,
                floats[..., 0].astype(np.float32),
                list(floats[..., 0]),
                tensor,
                tensor.double() / 255,
                list(tensor),
                [tensor],
            ],
        )
        first = [
            pictures[0], pixels[0], pixels[0, ..., 0], floats[0], floats[0, ..., 0], tensor[0], tensor[:1], [tensor[0]]
        ]  # fmt: skip
        self.assert_all_equal(pipe, pixels[:1], first)

    def test_colour(self):
        tensor = torch.from_numpy(self.pixels).permute(0, 3, 1, 2)
        pictures = [PIL.Image.fromarray(p) for p in self.pixels]
        images = [pictures, self.pixels, list(self.pixels), self.pixels / 255, tensor, list(tensor), tensor / 255]
        pipe = get_dummy_pipe(channels=3)
        self.assert_all_equal(pipe, self.pixels, images)
        self.assert_all_equal(pipe, self.pixels[:1], [pictures[0], self.pixels[0], tensor[0]])

    def test_mirrored_array(self, pipe):
        pixels = self.pixels[:, :, ::-1, :1]
        self.assert_all_equal(pipe, pixels.copy(), [pixels])


class TestErrors:
    """Each names its argument, and is raised before any network runs."""

    image = get_dummy_image()

    @pytest.mark.parametrize(
        "name, kwargs",
        (
            ("image", {"image": []}),
            ("image", {"image": "digit.png"}),
            ("image", {"image": [get_dummy_image()[0], PIL.Image.new("L", (8, 8))]}),
            ("image", {"image": PIL.Image.new("L", (9, 8))}),
            ("image", {"image": PIL.Image.new("RGB", (8, 8))}),
            ("image", {"image": PIL.Image.new("RGBA", (8, 8))}),
            ("image", {"image": [PIL.Image.new("L", (8, 8)), PIL.Image.new("L", (9, 9))]}),
            ("image", {"image": [PIL.Image.new("L", (8, 8)), PIL.Image.new("RGB", (8, 8))]}),
            ("image", {"image": torch.rand(8, 8)}),
            ("image", {"image": np.zeros(8)}),
            ("image", {"image": np.array(0.5)}),
            ("image", {"image": torch.rand(0, 1, 8, 8)}),
            ("image", {"image": torch.rand(1, 3, 8, 8)}),
            ("image", {"image": torch.rand(1, 1, 8, 9)}),
            ("image", {"image": [torch.rand(1, 8, 8), torch.rand(1, 9, 9)]}),
            ("image", {"image": np.random.rand(9, 8)}),
            ("image", {"image": np.random.rand(8, 8, 3)}),
            ("image", {"image": np.ones((8, 8), dtype=bool)}),
            ("image", {"image": torch.ones(1, 8, 8, dtype=torch.int64)}),
            ("image", {"image": torch.full((1, 8, 8), 1.1)}),
            ("image", {"image": torch.full((1, 8, 8), -0.1)}),
            ("image", {"image": torch.full((1, 8, 8), float("nan"))}),
            ("image", {"image": torch.rand(1, 8, 8).index_fill(2, torch.tensor([3]), float("nan"))}),
            ("intervention", {"intervention": None}),
            ("intervention", {"intervention": []}),
            ("intervention", {"intervention": 3}),
            ("intervention", {"intervention": -1}),
            ("intervention", {"intervention": [0, 3]}),
            ("intervention", {"intervention": torch.tensor([3])}),
            ("intervention", {"intervention": "three"}),
            ("intervention", {"intervention": ["one", "three"]}),
            ("intervention", {"intervention": 1.0}),
            ("intervention", {"intervention": True}),
            ("intervention", {"intervention": torch.tensor([1.0])}),
            ("intervention", {"image": torch.rand(3, 1, 8, 8), "intervention": [0, 1]}),
            ("guidance_scale", {"guidance_scale": -1.0}),
            ("guidance_scale", {"guidance_scale": float("nan")}),
            ("guidance_scale", {"guidance_scale": float("inf")}),
            ("guidance_scale", {"guidance_scale": "1"}),
            ("guidance_scale", {"guidance_scale": [1.0, 2.0]}),
            ("guidance_scale", {"guidance_scale": [-1.0]}),
            ("guidance_scale", {"guidance_scale": torch.tensor([float("nan")])}),
            ("guidance_scale", {"guidance_scale": []}),
            ("num_inference_steps", {"num_inference_steps": 0}),
            ("num_inference_steps", {"num_inference_steps": -5}),
            ("num_inference_steps", {"num_inference_steps": 1001}),
            ("num_inference_steps", {"num_inference_steps": 2.5}),
            ("strength", {"strength": 0}),
            ("strength", {"strength": 1.01}),
            ("strength", {"strength": -0.5}),
            ("strength", {"strength": float("nan")}),
            ("strength", {"strength": 0.1}),  # of four steps
            ("eta", {"eta": -0.1}),
            ("eta", {"eta": 1.1}),
            ("generator", {"generator": 0}),
            ("generator", {"generator": [torch.Generator()]}),
            ("callback_on_step_end", {"callback_on_step_end": "print"}),
            ("batch_size", {"batch_size": 0}),
            ("batch_size", {"batch_size": 1.5}),
            ("batch_size", {"batch_size": True}),
            ("guidance_interval", {"guidance_interval": ("a", "b")}),
            ("guidance_interval", {"guidance_interval": (None, None)}),
            ("output_type", {"output_type": "latent"}),
            ("abduction", {"abduction": "exact"}),
            ("abduction", {"abduction": ["source"]}),
        ),
    )
    def test_call(self, pipe, name, kwargs):
        evaluations = record_evaluations(pipe.unet), record_evaluations(pipe.classifier)
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            pipe(**{"image": self.image, "intervention": 1, **GUIDED, **kwargs})
        assert evaluations == ([], [])

    @pytest.mark.parametrize(
        "name, kwargs",
        (
            ("exogenous_noise", {"exogenous_noise": None}),
            ("exogenous_noise", {"exogenous_noise": torch.randn(1, 8, 8)}),
            ("exogenous_noise", {"exogenous_noise": torch.randn(1, 3, 8, 8)}),
            ("exogenous_noise", {"exogenous_noise": torch.randn(0, 1, 8, 8)}),
            ("exogenous_noise", {"exogenous_noise": torch.tensor(1.0)}),
            ("exogenous_noise", {"exogenous_noise": torch.full((1, 1, 8, 8), float("nan"))}),
            ("intervention", {"intervention": 3}),
            ("strength", {"strength": 2}),
        ),
    )
    def test_predict(self, pipe, name, kwargs):
        evaluations = record_evaluations(pipe.unet)
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            pipe.predict(**{"exogenous_noise": torch.randn(1, 1, 8, 8), "intervention": 1, **GUIDED, **kwargs})
        assert evaluations == []

    @pytest.mark.parametrize("num_images", (0, -1, 1.5))
    def test_sample(self, pipe, num_images):
        with pytest.raises(ValueError, match="`num_images`"):
            pipe.sample(1, num_images)

    def test_sample_with_a_seed_for_a_generator(self, pipe):
        with pytest.raises(TypeError, match="`generator` expects a `torch.Generator`, got int"):
            pipe.sample(1, generator=0)

    @pytest.mark.parametrize("mode", ("1", "P", "RGBA", "I;16"))
    def test_pictures_whose_numbers_are_no_brightness(self, pipe, mode):
        with pytest.raises(ValueError, match=f"`image` expects PIL images of mode 'L' or 'RGB', got .*'{mode}'"):
            pipe(PIL.Image.new(mode, (8, 8)), 1, **GUIDED)

    def test_label_that_names_two_classes(self, pipe):
        pipe.classifier.register_to_config(id2label={0: "crane", 1: "crane", 2: "two"})
        with pytest.raises(ValueError, match=r"`intervention` 'crane' names the classes \[0, 1\]"):
            pipe(self.image, "crane", **GUIDED)
        assert pipe(self.image, "two", **GUIDED).images.isfinite().all()

    def test_steps_whose_levels_are_not_consecutive(self):
        pipe = get_dummy_pipe(timestep_spacing="trailing")
        with pytest.raises(ValueError, match="`num_inference_steps` 30 with `timestep_spacing` 'trailing'"):
            pipe(self.image, 1, num_inference_steps=30)

    def test_prediction_that_is_not_finite(self, pipe):
        message = "The prediction is not finite since step 1 of 4, timestep 750: lower `guidance_scale`"
        with pytest.raises(ValueError, match=message):
            pipe(self.image, 1, **{**GUIDED, "guidance_scale": 1e38})

    def test_samples_that_stop_being_finite(self, pipe):
        """The step at which they do is told, and no later one."""

        def break_one(pipe, step, timestep, callback_kwargs):
            return {"sample": callback_kwargs["sample"] * (float("nan") if step == 2 else 1)}

        with pytest.raises(ValueError, match="The prediction is not finite since step 3 of 4, timestep 250"):
            pipe(self.image, 1, **GUIDED, callback_on_step_end=break_one)

    @pytest.mark.parametrize("name", ("unet", "classifier"))
    @pytest.mark.parametrize("process", ("abduction", "prediction"))
    def test_weights_that_are_not_finite(self, pipe, name, process):
        next(iter(getattr(pipe, name).parameters())).data[0] = float("nan")
        noise = torch.randn(1, 1, 8, 8)
        message = rf"The {process} is not finite since step 1 of 4, timestep \d+: the weights of \['{name}'\] are not"
        with pytest.raises(ValueError, match=message):
            if process == "abduction":
                pipe.abduct(self.image, num_inference_steps=4, factual_class=1, guidance_scale=1.0)
            else:
                pipe.predict(noise, 1, **GUIDED)
