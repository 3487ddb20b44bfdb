# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import numpy as np
import pytest
import torch

from .dummies import GUIDED, get_dummy_image, get_dummy_pipe


class TestOutputs:
    def test_output_types(self, pipe):
        tensor = pipe(get_dummy_image(2), 1, **GUIDED).images
        array = pipe(get_dummy_image(2), 1, **{**GUIDED, "output_type": "np"}).images
        pictures = pipe(get_dummy_image(2), 1, **{**GUIDED, "output_type": "pil"}).images
        assert tensor.dtype == torch.float32 and tensor.shape == (2, 1, 8, 8)
        assert tensor.min() >= 0 and tensor.max() <= 1
        assert isinstance(array, np.ndarray) and array.shape == (2, 8, 8, 1)
        np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
        assert [picture.mode for picture in pictures] == ["L", "L"]
        np.testing.assert_array_equal(np.asarray(pictures[1]), (array[1, :, :, 0] * 255).round().astype("uint8"))

    def test_colour(self):
        pipe = get_dummy_pipe(channels=3)
        (picture,) = pipe(get_dummy_image(channels=3), 1, guidance_scale=1.0, num_inference_steps=2).images
        assert picture.mode == "RGB" and picture.size == (8, 8)

    def test_without_a_dictionary(self, pipe):
        """As many results whether guided or not, those of `predict`."""
        output = pipe(get_dummy_image(), 1, **GUIDED)
        images, exogenous_noise, log_probs = pipe(get_dummy_image(), 1, **GUIDED, return_dict=False)
        for value, expected in zip((images, exogenous_noise, log_probs), output.to_tuple(), strict=False):
            assert torch.equal(value, expected)
        assert torch.equal(output["abduction"].exogenous_noise, exogenous_noise)
        *_, log_probs = pipe(get_dummy_image(), **{**GUIDED, "guidance_scale": 0}, return_dict=False)
        assert log_probs is None

    def test_one_draw_has_no_standard_deviation(self, pipe):
        for draws in (None, 1):
            output = pipe(get_dummy_image(), 1, **GUIDED, num_draws=draws)
            with pytest.raises(ValueError, match="The mean and the standard deviation need `num_draws` of at least 2"):
                output.mean_and_std()


class TestCallback:
    def test_is_called_each_step_of_the_prediction(self, pipe):
        calls = []

        def callback(pipeline, step, timestep, callback_kwargs):
            calls.append((pipeline, step, timestep, callback_kwargs["sample"].shape))
            return callback_kwargs

        images = pipe(get_dummy_image(), 1, callback_on_step_end=callback, **GUIDED).images
        assert calls == [(pipe, i, 750 - 250 * i, (1, 1, 8, 8)) for i in range(4)]
        assert torch.equal(images, pipe(get_dummy_image(), 1, **GUIDED).images)

    def test_can_change_the_sample(self, pipe):
        def callback(pipeline, step, timestep, callback_kwargs):
            return {"sample": torch.zeros_like(callback_kwargs["sample"])} if step == 3 else {}

        images = pipe(get_dummy_image(), 1, callback_on_step_end=callback, **GUIDED).images
        assert torch.equal(images, torch.full((1, 1, 8, 8), 0.5))

    def test_progress_bar(self, pipe, capsys):
        pipe(get_dummy_image(), 1, **GUIDED)
        assert capsys.readouterr().err == ""
        pipe.set_progress_bar_config(disable=False)
        pipe(get_dummy_image(), 1, **GUIDED)
        progress = capsys.readouterr().err
        assert "Abduction: 100%" in progress and "Prediction: 100%" in progress and "4/4" in progress
