# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch

from .dummies import GUIDED, MixtureUNet, get_mixture_pipe


class TestSample:
    def test_count_and_order(self, pipe):
        output = pipe.sample(["two", "zero"], num_images=3, generator=torch.Generator().manual_seed(0), **GUIDED)
        noise = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(output.exogenous_noise, noise)
        assert torch.equal(output.images, pipe.predict(noise, [2, 2, 2, 0, 0, 0], **GUIDED).images)

    def test_drawn_noise_is_of_the_highest_level(self, pipe):
        with pytest.raises(ValueError, match="`strength` expects 1 for noise that is drawn, got 0.5"):
            pipe.sample(1, strength=0.5, **GUIDED)

    def test_shared_noise(self, pipe):
        generator = torch.Generator().manual_seed(0)
        output = pipe.sample([0, 1], num_images=2, generator=generator, shared_noise=True, **GUIDED)
        noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(output.exogenous_noise, torch.cat([noise, noise]))
        assert torch.equal(output.images, pipe.predict(torch.cat([noise, noise]), [0, 0, 1, 1], **GUIDED).images)

    def test_generator_also_draws_for_eta(self, pipe):
        draws = [
            pipe.sample(1, 2, generator=torch.Generator().manual_seed(0), eta=1.0, **GUIDED).images for _ in range(2)
        ]
        assert torch.equal(*draws)

    def test_classes_of_a_mixture(self):
        pipe = get_mixture_pipe()
        generator = torch.Generator().manual_seed(0)
        output = pipe.sample([0, 1], 500, generator, guidance_scale=1.0, num_inference_steps=100, output_type="pt")
        for images, mean in zip((output.images * 2 - 1).chunk(2), MixtureUNet.means, strict=True):
            assert abs(images.mean() - mean) < 0.03 and abs(images.std() - MixtureUNet.STD) < 0.03
