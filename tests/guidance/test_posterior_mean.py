# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DDIMScheduler

from diffscm_diffusers.guidance import posterior_mean
from tests.pipelines.dummies import (
    ALPHAS_CUMPROD,
    MixtureUNet,
    get_dummy_image,
    get_dummy_pipe,
    get_mixture_pipe,
    record_evaluations,
)


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pipe():
    return get_dummy_pipe()


class TestExactness:
    """A Gaussian's expectation is linear in the noisy image, so that noise of both signs cancels."""

    @pytest.mark.parametrize("prediction_type", ("epsilon", "sample", "v_prediction"))
    @pytest.mark.parametrize("target", (0, 1))
    @pytest.mark.parametrize("timestep", (100, 400))
    def test_expectation_under_the_intervention(self, prediction_type, target, timestep):
        pipe = get_mixture_pipe(prediction_type)
        image = 0.5 + 0.2 * torch.rand(3, 1, 2, 2, generator=seeded())
        mean = posterior_mean(pipe, image, target, timestep, 2, guidance_scale=1.0, output_type="pt")

        alpha_prod, of_class = ALPHAS_CUMPROD[timestep], MixtureUNet.means[target]
        share = alpha_prod * MixtureUNet.STD**2 / (alpha_prod * MixtureUNet.STD**2 + 1 - alpha_prod)
        expected = of_class + share * (image * 2 - 1 - of_class)
        torch.testing.assert_close(mean, expected / 2 + 0.5, atol=1e-4, rtol=0)

    def test_many_draws_of_a_mixture(self):
        """Unguided, the expectation is not linear: it is compared with numerical integration over the noise."""
        pipe = get_mixture_pipe()
        timestep, value = 400, 0.55
        image = torch.full((1, 1, 2, 2), value)
        mean = posterior_mean(pipe, image, 0, timestep, 2000, guidance_scale=0.0, generator=seeded(), output_type="pt")

        alpha_prod = ALPHAS_CUMPROD[timestep].double()
        alpha, sigma = alpha_prod**0.5, (1 - alpha_prod) ** 0.5
        # Of four equal pixels the classes' evidence is in their mean, whose noise is half as strong.
        points, weights = np.polynomial.hermite_e.hermegauss(101)
        average = alpha * (2 * value - 1) + sigma / 2 * torch.tensor(points)
        variance = alpha_prod * MixtureUNet.STD**2 + sigma**2
        evidence = torch.stack([-4 * (average - alpha * m) ** 2 / (2 * variance) for m in MixtureUNet.means])
        share = alpha_prod * MixtureUNet.STD**2 / variance
        originals = torch.stack([m + share * (average / alpha - m) for m in MixtureUNet.means])
        expectation = (evidence.softmax(dim=0) * originals).sum(dim=0) @ torch.tensor(weights / weights.sum())
        torch.testing.assert_close(mean.mean().double(), expectation / 2 + 0.5, atol=5e-3, rtol=0)

    def test_every_draw_stays_in_the_range_of_images(self):
        """White of an all-white class: half of the draws are above, which doesn't make up for those below."""
        pipe = get_mixture_pipe(means=(1.0, 1.0))
        mean = posterior_mean(pipe, torch.ones(1, 1, 2, 2), 1, 400, 2, guidance_scale=0.0, output_type="pt")
        assert mean.max() < 1


class TestBatches:
    def test_no_image_depends_on_the_others(self, pipe):
        image, options = get_dummy_image(3), {"num_draws": 4, "output_type": "pt"}
        together = posterior_mean(pipe, image, [0, 1, 2], 400, generator=seeded(), **options)
        apart = posterior_mean(pipe, image, [0, 1, 2], 400, generator=seeded(), batch_size=2, **options)
        alone = posterior_mean(pipe, image[1], 1, 400, generator=seeded(), **options)
        torch.testing.assert_close(apart, together)
        torch.testing.assert_close(alone, together[1:2])

    def test_a_scale_for_each_image(self, pipe):
        image, options = get_dummy_image(2), {"num_draws": 2, "output_type": "pt"}
        mean = posterior_mean(pipe, image, 1, 400, guidance_scale=[0.0, 50.0], generator=seeded(), **options)
        for index, scale in enumerate((0.0, 50.0)):
            alone = posterior_mean(pipe, image[index], 1, 400, guidance_scale=scale, generator=seeded(), **options)
            torch.testing.assert_close(mean[index : index + 1], alone)

    def test_one_image_many_interventions(self, pipe):
        assert len(posterior_mean(pipe, get_dummy_image(), ["zero", "one"], 400, num_draws=2)) == 2

    def test_evaluations(self, pipe):
        denoiser, classifier = record_evaluations(pipe.unet), record_evaluations(pipe.classifier)
        images = posterior_mean(pipe, get_dummy_image(3), 1, 400, num_draws=4, guidance_scale=2.0)
        assert denoiser == classifier == [3] * 4
        assert isinstance(images[0], PIL.Image.Image)
        posterior_mean(pipe, get_dummy_image(3), 1, 400, num_draws=4, guidance_scale=0.0)
        assert len(classifier) == 4  # it does not run without guidance

    def test_generator(self, pipe):
        first, again, other = (
            posterior_mean(
                pipe,
                get_dummy_image(),
                1,
                400,
                num_draws=2,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            )
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again) and not torch.equal(first, other)

    def test_scale_of_the_checkpoint(self, pipe):
        pipe.register_to_config(default_guidance_scale=50.0)
        image, options = get_dummy_image(), {"num_draws": 2, "output_type": "pt"}
        by_default = posterior_mean(pipe, image, 1, 400, generator=seeded(), **options)
        by_hand = posterior_mean(pipe, image, 1, 400, guidance_scale=50.0, generator=seeded(), **options)
        assert torch.equal(by_default, by_hand)


class TestBadInput:
    @pytest.mark.parametrize(
        "name, change",
        (
            ("timestep", {"timestep": 1000}),
            ("timestep", {"timestep": -1}),
            ("timestep", {"timestep": 400.0}),
            ("num_draws", {"num_draws": 3}),
            ("num_draws", {"num_draws": 0}),
            ("num_draws", {"num_draws": 2.0}),
            ("guidance_scale", {"guidance_scale": -1.0}),
            ("guidance_scale", {"guidance_scale": [1.0, 2.0]}),
            ("intervention", {"intervention": 3}),
            ("intervention", {"intervention": [0, 1]}),
            ("image", {"image": torch.rand(1, 1, 4, 4)}),
            ("generator", {"generator": 0}),
            ("batch_size", {"batch_size": 0}),
            ("output_type", {"output_type": "latent"}),
        ),
    )
    def test_arguments(self, pipe, name, change):
        arguments = {"image": get_dummy_image(3), "intervention": 1, "timestep": 400, **change}
        evaluations = record_evaluations(pipe.unet)
        with pytest.raises((ValueError, TypeError), match=f"`{name}`"):
            posterior_mean(pipe, **arguments)
        assert evaluations == []

    def test_pure_noise(self):
        pipe = get_dummy_pipe()
        pipe.scheduler = DDIMScheduler(clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        with pytest.raises(ValueError, match="`timestep` expects a level with a trace of the image"):
            posterior_mean(pipe, get_dummy_image(), 1, 999)
