# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
The pipeline with a semantic code. Its exact denoiser is known for images that are Gaussian around what the code means
under the class. The counterfactual is then the factual, moved by the difference of what the code means under the two.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput

from diffscm_diffusers import (
    AntiCausalClassifier2DModel,
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMSemanticCounterfactualPipeline,
    SemanticEncoder2DModel,
)
from diffscm_diffusers.models import SemanticEncoder2DOutput
from diffscm_diffusers.models.semantic_encoder_2d import CodeMechanism

from .dummies import ALPHAS_CUMPROD, decode_in_one_range, get_dummy_image


STD = 0.2
MEANS = torch.tensor([-0.4, 0.0, 0.3])
SHARED = {
    "down_block_types": ("DownBlock2D",),
    "block_out_channels": (4,),
    "norm_num_groups": 4,
    "add_attention": False,
}


class GaussianUNet(UNet2DModel):
    """The exact denoiser of images N(decoded, STD^2)."""

    def forward(self, sample, timestep, return_dict=True):
        sample, decoded = sample.double().chunk(2, dim=1)
        alpha_prod = ALPHAS_CUMPROD[timestep].double()
        epsilon = (1 - alpha_prod) ** 0.5 * (sample - alpha_prod**0.5 * decoded)
        return UNet2DOutput(sample=(epsilon / (alpha_prod * STD**2 + 1 - alpha_prod)).float())


class ConstantEncoder(SemanticEncoder2DModel):
    """Every code means a constant image, that of its class."""

    def encode(self, sample, condition):
        code = torch.zeros(len(sample), 7)
        return SemanticEncoder2DOutput(mean=code, std=code)

    def decode(self, code, condition):
        return (condition @ MEANS)[:, None, None, None].expand(-1, 1, 8, 8)


def get_semantic_components(unet_class=UNet2DModel, encoder_class=SemanticEncoder2DModel, **changes):
    torch.manual_seed(0)
    return {
        "unet": unet_class(8, 2, 1, up_block_types=("UpBlock2D",), **SHARED),
        "encoder": encoder_class(8, 3, code_dim=7, block_out_channels=(4, 4, 4), hidden_features=8),
        "classifier": AntiCausalClassifier2DModel(
            sample_size=8, in_channels=1, num_classes=3, id2label={0: "zero", 1: "one", 2: "two"}, **SHARED
        ),
        "scheduler": DDIMScheduler(clip_sample=False),
        **changes,
    }


def get_semantic_pipe(**changes):
    pipe = DiffSCMSemanticCounterfactualPipeline(**get_semantic_components(**changes))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_silent_pipe(prediction_type, residual_std):
    """Its denoiser says 0, and so that images are normal around the decoded ones."""
    pipe = get_semantic_pipe(scheduler=DDIMScheduler(prediction_type=prediction_type, clip_sample=False))
    pipe.encoder.register_to_config(residual_std=residual_std)
    for parameter in pipe.unet.conv_out.parameters():
        parameter.data.zero_()
    return pipe


def get_gaussian_pipe():
    return get_semantic_pipe(unet_class=GaussianUNet, encoder_class=ConstantEncoder)


def get_gaussian_factual(classes):
    noise = torch.randn(len(classes), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return (MEANS[classes, None, None, None] + STD * noise).clamp(-1, 1) / 2 + 0.5


class TestClosedForm:
    @pytest.mark.parametrize("factual_class", [0, 1])
    def test_counterfactual_moves_by_what_the_code_means(self, factual_class):
        factual = get_gaussian_factual([factual_class] * 2)
        images = get_gaussian_pipe()(factual, 2, factual_class, num_inference_steps=200, output_type="pt").images
        expected = (factual + (MEANS[2] - MEANS[factual_class]) / 2).clamp(0, 1)
        torch.testing.assert_close(images, expected, atol=0.02, rtol=0)

    def test_converges_at_first_order(self):
        factual = get_gaussian_factual([1, 1])
        error_50, error_100 = (
            (get_gaussian_pipe()(factual, 1, 1, num_inference_steps=steps, output_type="pt").images - factual)
            .abs()
            .mean()
            for steps in (50, 100)
        )
        assert 1.6 < error_50 / error_100 < 2.4

    @pytest.mark.parametrize("num_draws", [None, 2])
    def test_exogenous_noise_has_the_law_of_the_model(self, num_draws):
        classes = [0, 1, 2, 1] * 4
        noise = get_gaussian_pipe()(
            get_gaussian_factual(classes), 0, classes, 200, num_draws=num_draws, output_type="pt"
        ).exogenous_noise
        assert abs(noise.mean().item()) < 0.06
        assert abs(noise.std().item() - 1) < 0.06

    def test_draws_make_up_for_pixels_that_never_vary(self):
        # The clean image leaves them at the centre of the noise; a draw does not.
        factual = (MEANS[1] / 2 + 0.5).expand(4, 1, 8, 8)
        clean, drawn = (
            get_gaussian_pipe()(factual, 0, 1, 50, num_draws=draws, output_type="pt").exogenous_noise
            for draws in (None, 1)
        )
        assert clean.abs().max() < 1e-3
        assert drawn.std() > 10 * clean.std() + 0.01

    @pytest.mark.parametrize("dequantize", [False, True])
    def test_dequantization_makes_up_for_pixels_that_never_vary(self, dequantize):
        factual = (MEANS[1] / 2 + 0.5).expand(4, 1, 8, 8)
        pipe = get_gaussian_pipe()
        pipe.register_to_config(dequantize=dequantize)
        options = {"abduction": "implicit", "output_type": "pt"}
        output = pipe(factual, 1, 1, 50, **options)
        assert (output.exogenous_noise.std() > 0.01) == dequantize
        # No chance: the same noise for the same image, and what the last move leaves out is put back.
        assert output.exogenous_noise.std(dim=0).max() < 1e-6
        assert torch.equal(pipe(factual, 1, 1, 50, **options).images, output.images)
        torch.testing.assert_close(pipe(factual[:1], 1, 1, 50, **options).images, output.images[:1])
        torch.testing.assert_close(output.images, factual, atol=2e-5, rtol=0)
        assert (output.remainder is not None) == dequantize
        other = pipe(factual[:1] - 1e-4, 1, 1, 50, **options).exogenous_noise
        assert ((other - output.exogenous_noise[:1]).abs().max() > 0.01) == dequantize

    def test_prediction_decodes_the_code_under_the_intervention(self):
        class DecodedUNet(UNet2DModel):
            def forward(self, sample, timestep, return_dict=True):
                return UNet2DOutput(sample=sample.chunk(2, dim=1)[1])

        pipe = get_semantic_pipe(unet_class=DecodedUNet, scheduler=DDIMScheduler(prediction_type="sample"))
        factual = get_dummy_image(2)
        output = pipe(factual, [1, 2], 0, num_inference_steps=2, output_type="pt")
        decoded = pipe.decode(output.code, torch.tensor([1, 2])) / 2 + 0.5
        torch.testing.assert_close(output.images, decoded.detach(), atol=1e-6, rtol=0)

    def test_code_goes_through_its_mechanism(self):
        class DecodedUNet(UNet2DModel):
            def forward(self, sample, timestep, return_dict=True):
                return UNet2DOutput(sample=sample.chunk(2, dim=1)[1])

        options = {"unet_class": DecodedUNet, "scheduler": DDIMScheduler(prediction_type="sample")}
        pipe, factual = get_semantic_pipe(**options), get_dummy_image(2)
        encoder = pipe.encoder
        encoder.mechanism = CodeMechanism(7, 3, 8).eval().requires_grad_(False)
        for parameter in encoder.mechanism.parameters():
            parameter.normal_(std=0.5)
        classes = torch.tensor([[0, 0], [0, 2]])
        output = pipe(factual, classes[1], classes[0], num_inference_steps=2, output_type="pt")
        code = encoder.encode(2 * factual - 1, pipe.condition(classes[0])).mean
        torch.testing.assert_close(output.code, encoder.abduct(code, pipe.condition(classes[0])))
        counterfactual_code = encoder.predict(output.code, pipe.condition(classes[1]))
        torch.testing.assert_close(counterfactual_code[0], code[0], atol=1e-5, rtol=0)
        assert (counterfactual_code[1] - code[1]).abs().max() > 0.1
        decoded = encoder.decode(counterfactual_code, pipe.condition(classes[1])) / 2 + 0.5
        torch.testing.assert_close(output.images, decoded.detach(), atol=1e-6, rtol=0)


class TestResidual:
    @pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
    def test_denoiser_that_says_nothing_moves_the_residual_to_the_other_decoded_image(self, prediction_type):
        pipe = get_silent_pipe(prediction_type, residual_std=10.0)
        decode_in_one_range(pipe.encoder)
        factual, classes = get_dummy_image(2), torch.tensor([[0, 1], [2, 2]])
        options = {"abduction": "implicit", "tolerance": 1e-7, "output_type": "pt"}
        output = pipe(factual, classes[1], classes[0], 4, **options)
        code = pipe.encoder.encode(2 * factual - 1, pipe.condition(classes[0])).mean
        residual = 2 * factual - 1 - pipe.decode(code, classes[0])
        expected = (pipe.decode(code, classes[1]) + residual).clamp(-1, 1) / 2 + 0.5
        torch.testing.assert_close(output.images, expected, atol=1e-5, rtol=0)
        assert (output.images - factual).abs().max() > 1e-3
        # By the law that the denoiser assumes, the noise is the residual in standard deviations.
        noise = pipe(factual, classes[1], classes[0], 200, **options).exogenous_noise
        torch.testing.assert_close(noise, residual / 0.1, atol=0.05, rtol=0.1)

    @pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
    def test_residual_becomes_as_faint_as_the_other_decoded_image(self, prediction_type):
        """In units of half the range of either, up to the errors of 200 steps."""
        # Dummies decode to faint images. Few steps are exact where deviations are not small.
        pipe = get_silent_pipe(prediction_type, residual_std=40.0)
        factual, classes = get_dummy_image(2), torch.tensor([[0, 1], [2, 2]])
        options = {"abduction": "implicit", "tolerance": 1e-7, "output_type": "pt"}
        output = pipe(factual, classes[1], classes[0], 200, **options)
        code = pipe.encoder.encode(2 * factual - 1, pipe.condition(classes[0])).mean
        decoded, other = pipe.decode(code, classes[0]), pipe.decode(code, classes[1])
        std, other_std = (
            40 * (image.amax(dim=(2, 3), keepdim=True) - image.amin(dim=(2, 3), keepdim=True)) / 2
            for image in (decoded, other)
        )
        assert (other_std / std).max() > 1.3
        residual = 2 * factual - 1 - decoded
        expected = (other + residual / std * other_std).clamp(-1, 1) / 2 + 0.5
        torch.testing.assert_close(output.images, expected, atol=0.01, rtol=0)
        # By the law that the denoiser assumes, the noise is the residual in standard deviations.
        torch.testing.assert_close(output.exogenous_noise, residual / std, atol=0.05, rtol=0.1)

    def test_denoiser_is_for_the_residual_that_it_was_trained_for(self):
        components = get_semantic_components()
        components["unet"].register_to_config(_trained_with={"residual_std": 0.1})
        components["encoder"].register_to_config(residual_std=0.2)
        with pytest.raises(ValueError, match="`encoder` expects the `residual_std` that `unet` was.* 0.1, got 0.2"):
            DiffSCMSemanticCounterfactualPipeline(**components)
        components["encoder"].register_to_config(residual_std=0.1)
        DiffSCMSemanticCounterfactualPipeline(**components)


class TestImplicitAbduction:
    def test_defaults_are_the_checkpoints(self):
        factual, steps = get_gaussian_factual([0, 2]), 4
        given = get_gaussian_pipe()(factual, 1, [0, 2], steps, abduction="implicit", tolerance=1e-3, output_type="pt")
        pipe = DiffSCMSemanticCounterfactualPipeline(
            **get_gaussian_pipe().components,
            default_num_inference_steps=steps,
            default_abduction="implicit",
            default_tolerance=1e-3,
        )
        pipe.set_progress_bar_config(disable=True)
        assert torch.equal(pipe(factual, 1, [0, 2], output_type="pt").images, given.images)
        finer = pipe(factual, 1, [0, 2], tolerance=1e-7, output_type="pt").images
        assert not torch.equal(finer, given.images)
        explicit = pipe(factual, 1, [0, 2], abduction="source", output_type="pt").images
        assert (explicit - finer).abs().mean() > 10 * (given.images - finer).abs().mean()
        with pytest.raises(ValueError, match="A call with .*`default_abduction`.* cannot be made: `abduction`"):
            DiffSCMSemanticCounterfactualPipeline(**pipe.components, default_abduction="exact")

    @pytest.mark.parametrize("num_draws", [None, 2])
    def test_null_intervention_is_exact_at_few_steps(self, num_draws):
        factual = get_gaussian_factual([0, 1, 2])
        errors = {}
        for abduction in ("destination", "implicit"):
            images = get_gaussian_pipe()(
                *(factual, [0, 1, 2], [0, 1, 2], 5, num_draws),
                generator=torch.Generator().manual_seed(0),
                batch_size=2,
                abduction=abduction,
                output_type="pt",
            ).images
            errors[abduction] = (images - factual).abs().max().item()
        assert errors["implicit"] < 1e-5 < 0.01 < errors["destination"]

    def test_moves_that_are_not_solved_are_counted(self):
        pipe, factual = get_gaussian_pipe(), get_gaussian_factual([0, 1])
        with pytest.warns(UserWarning, match="Implicit abduction of 2 of 2 image.* 'max_iterations': 1") as caught:
            pipe(factual, 1, [0, 1], 5, abduction="implicit", max_iterations=1)
        assert caught[0].filename == __file__

    def test_default_is_that_of_the_scheduler(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image()
        default, source, destination = (
            pipe(factual, 1, 0, 4, abduction=abduction, output_type="pt").images
            for abduction in (None, "source", "destination")
        )
        torch.testing.assert_close(default, destination, atol=0, rtol=0)
        assert (source - destination).abs().max() > 1e-5


class TestDraws:
    def test_shapes(self):
        pipe = get_semantic_pipe()
        output = pipe(get_dummy_image(), [0, 1, 2], "one", 2, num_draws=4, output_type="pt")
        assert output.images.shape == (4, 3, 1, 8, 8)
        assert output.exogenous_noise.shape == (4, 1, 1, 8, 8) and output.code.shape == (4, 1, 7)
        assert pipe(get_dummy_image(2), 0, 1, 2, num_draws=3, output_type="np").images.shape == (3, 2, 8, 8, 1)
        images = pipe(get_dummy_image(2), 0, 1, 2, num_draws=3).images
        assert [len(draw) for draw in images] == [2, 2, 2] and images[0][0].size == (8, 8)

    def test_generator_and_batch_size(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image(3)
        settings = {"num_inference_steps": 3, "num_draws": 2, "output_type": "pt"}
        first, again, other = (
            pipe(factual, [0, 1, 2], 1, generator=torch.Generator().manual_seed(seed), batch_size=size, **settings)
            for seed, size in ((0, None), (0, 2), (1, None))
        )
        torch.testing.assert_close(first.images, again.images, atol=1e-5, rtol=0)
        assert (first.images - other.images).abs().max() > 1e-4
        assert (first.images[0] - first.images[1]).abs().max() > 1e-4

    def test_null_intervention_keeps_what_the_lowest_level_takes_away(self):
        # With a denoiser that sees no noise the moves are exact, and the last one would leave the drawn noise.
        class BlindUNet(UNet2DModel):
            def forward(self, sample, timestep, return_dict=True):
                return UNet2DOutput(sample=torch.zeros_like(sample[:, :1]))

        pipe, factual = get_semantic_pipe(unet_class=BlindUNet), get_dummy_image(2)
        output = pipe(factual, 1, 1, 5, num_draws=2, output_type="pt")
        torch.testing.assert_close(output.images, factual.expand(2, -1, -1, -1, -1), atol=1e-5, rtol=0)
        assert output.remainder.shape == (2, 2, 1, 8, 8) and output.remainder.std() > 0.005

    def test_codes_deviate_under_other_classes_alone(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image(2)

        def draw(transfer_scale):
            pipe.encoder.register_to_config(transfer_scale=transfer_scale)
            generator = torch.Generator().manual_seed(0)
            return pipe(factual, [0, 2], [0, 1], 3, 2, generator, output_type="pt")

        certain, uncertain = draw(0.0), draw(2.0)
        for name in ("exogenous_noise", "code", "remainder"):
            assert torch.equal(certain[name], uncertain[name])
        assert torch.equal(certain.images[:, 0], uncertain.images[:, 0])
        assert (certain.images[:, 1] - uncertain.images[:, 1]).abs().max() > 1e-4
        # Without draws nothing is uncertain.
        images = pipe(factual, 2, 1, 3, output_type="pt").images
        pipe.encoder.register_to_config(transfer_scale=0.0)
        assert torch.equal(images, pipe(factual, 2, 1, 3, output_type="pt").images)

    def test_spatial_noise_decays_under_other_classes_alone(self):
        factual = get_dummy_image(2)

        def draw(noise_decay, num_draws=2):
            pipe = get_semantic_pipe()
            pipe.register_to_config(noise_decay=noise_decay)
            return pipe(factual, [0, 2], [0, 1], 3, num_draws, torch.Generator().manual_seed(0), output_type="pt")

        certain, uncertain = draw(0.0), draw(0.2)
        for name in ("exogenous_noise", "code", "remainder"):
            assert torch.equal(certain[name], uncertain[name])
        assert torch.equal(certain.images[:, 0], uncertain.images[:, 0])
        assert (certain.images[:, 1] - uncertain.images[:, 1]).abs().max() > 1e-3
        # Without draws nothing is uncertain.
        assert torch.equal(draw(0.0, None).images, draw(0.2, None).images)

    def test_noise_that_decays_keeps_its_law(self):
        pipe = get_semantic_pipe()
        noise, fresh = torch.randn(2, 500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        condition, other = pipe.condition(torch.tensor([0]).expand(500)), pipe.condition(torch.tensor([2]).expand(500))
        for decay in (0.05, 0.5):
            pipe.register_to_config(noise_decay=decay)
            transferred = pipe.transfer_noise(noise, fresh, condition, other)
            assert transferred.std() == pytest.approx(1, abs=0.02)
            correlation = torch.corrcoef(torch.stack([noise.flatten(), transferred.flatten()]))[0, 1]
            assert correlation == pytest.approx(math.exp(-decay * math.sqrt(2)), abs=0.02)
            assert torch.equal(pipe.transfer_noise(noise, fresh, condition, condition), noise)

    @pytest.mark.parametrize(
        ("noise_decay", "error", "match"),
        [("1", TypeError, "a number, got '1'"), (-0.1, ValueError, "finite number from 0, got -0.1")],
    )
    def test_wrong_decay_is_refused(self, noise_decay, error, match):
        with pytest.raises(error, match=match):
            DiffSCMSemanticCounterfactualPipeline(**get_semantic_pipe().components, noise_decay=noise_decay)

    def test_mean_and_standard_deviation(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image(2)
        tensors, arrays, pictures = (
            pipe(factual, 0, 1, 2, 3, torch.Generator().manual_seed(0), output_type=kind)
            for kind in ("pt", "np", "pil")
        )
        mean, std = tensors.mean_and_std()
        torch.testing.assert_close(mean, tensors.images.sum(0) / 3)
        torch.testing.assert_close(std, ((tensors.images - mean).square().sum(0) / 2).sqrt())
        for output, tolerance in ((arrays, 1e-6), (pictures, 0.004)):
            for got, expected in zip(output.mean_and_std(), (mean, std), strict=True):
                np.testing.assert_allclose(got, expected.movedim(1, -1).numpy(), atol=tolerance)
        for draws in (None, 1):
            with pytest.raises(ValueError, match="need `num_draws` of at least 2"):
                pipe(factual, 0, 1, 2, draws).mean_and_std()

    def test_without_draws_there_is_no_chance(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image(2)
        first, second = (pipe(factual, "two", "zero", 3, output_type="pt").images for _ in range(2))
        torch.testing.assert_close(first, second, atol=0, rtol=0)


class TestFactualClass:
    def test_is_read_where_it_is_not_given(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image(4)
        output = pipe(factual, 0, num_inference_steps=2, output_type="pt")
        read = pipe.classifier(2 * factual - 1, 0).logits.argmax(dim=1)
        assert output.factual_class.tolist() == read.tolist()
        given = pipe(factual, 0, read, num_inference_steps=2, output_type="pt")
        torch.testing.assert_close(output.images, given.images, atol=0, rtol=0)

    def test_decides_the_code(self):
        pipe, factual = get_semantic_pipe(), get_dummy_image()
        codes = [pipe(factual, 0, c, num_inference_steps=1, output_type="pt").code for c in (0, 1)]
        assert (codes[0] - codes[1]).abs().max() > 1e-3


class TestSavingAndLoading:
    def test_round_trip(self, tmp_path):
        pipe, factual = get_semantic_pipe(), get_dummy_image()
        expected = pipe(factual, 1, 0, 2, output_type="pt").images
        pipe.register_to_config(default_num_inference_steps=2)
        pipe.save_pretrained(tmp_path)
        loaded = DiffSCMSemanticCounterfactualPipeline.from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        torch.testing.assert_close(loaded(factual, 1, 0, output_type="pt").images, expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["from_pretrained", "from_pipe", "_dict_from_json_file", "prepare_image"])
def test_copies_are_equal(name):
    def body(pipeline_class):
        source = inspect.getsource(getattr(pipeline_class, name))
        return [line for line in source.splitlines() if "# Copied from" not in line]

    assert body(DiffSCMSemanticCounterfactualPipeline) == body(DiffSCMCounterfactualPipeline)


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"intervention": 3}, ValueError, "`intervention` expects class indices from 0 to 2, got 3"),
            ({"intervention": [0, 1, 2]}, ValueError, "`intervention` expects one class .* got 3 for 2"),
            ({"factual_class": "three"}, ValueError, "`factual_class` expects the name of a class"),
            ({"factual_class": [0, 1, 2]}, ValueError, "`factual_class` expects one class .* got 3 for 2"),
            ({"num_draws": 0}, ValueError, "`num_draws` expects a whole number of at least 1, got 0"),
            ({"num_draws": 1.5}, ValueError, "`num_draws` expects a whole number"),
            ({"batch_size": 0}, ValueError, "`batch_size` expects a whole number"),
            ({"abduction": "exact"}, ValueError, "`abduction` expects one of .*'implicit'.* got 'exact'"),
            ({"tolerance": 0}, ValueError, "`tolerance` expects a finite number above 0, got 0"),
            ({"max_iterations": 0}, ValueError, "`max_iterations` expects a whole number of at least 1, got 0"),
            ({"output_type": "jpg"}, ValueError, "`output_type` expects 'pil', 'np' or 'pt', got 'jpg'"),
            ({"generator": 3}, TypeError, "`generator` expects a `torch.Generator`, got int"),
            ({"num_inference_steps": 0}, ValueError, "`num_inference_steps`"),
            ({"num_inference_steps": 1, "num_draws": 2}, ValueError, "`num_inference_steps` expects at least 2 where"),
            ({"image": torch.full((1, 1, 8, 8), 2.0)}, ValueError, "`image` expects values in"),
            ({"image": torch.zeros(1, 3, 8, 8)}, ValueError, "`image` expects images with 1 channel"),
        ],
    )
    def test_call(self, changes, error, message):
        pipe = get_semantic_pipe()
        arguments = {"image": get_dummy_image(2), "intervention": 1, "factual_class": 0, "num_inference_steps": 2}
        with pytest.raises(error, match=message):
            pipe(**{**arguments, **changes})

    @pytest.mark.parametrize("name", ["unet", "encoder"])
    def test_weights_that_are_not_finite(self, name):
        pipe = get_semantic_pipe()
        last = list(getattr(pipe, name).parameters())[-1]
        last.data.fill_(float("nan"))
        message = rf"The .* is not finite since step 1 of 2, timestep \d+: the weights of \['{name}'\] are not"
        with pytest.raises(ValueError, match=message):
            pipe(get_dummy_image(2), 1, 0, num_inference_steps=2)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"unet": UNet2DModel(8, 1, 1, up_block_types=("UpBlock2D",), **SHARED)},
                "`unet` expects 2 input channels",
            ),
            ({"encoder": SemanticEncoder2DModel(8, 4, code_dim=7)}, "`classifier` expects .* of 4 classes"),
            ({"encoder": SemanticEncoder2DModel(16, 3, code_dim=7)}, "`unet` expects .* 16 pixels"),
        ],
    )
    def test_components_that_do_not_fit(self, change, message):
        with pytest.raises(ValueError, match=message):
            DiffSCMSemanticCounterfactualPipeline(**get_semantic_components(**change))

    def test_dequantization_that_cannot_be(self):
        with pytest.raises(TypeError, match="`dequantize` expects True or False, got 'yes'"):
            DiffSCMSemanticCounterfactualPipeline(**get_semantic_components(), dequantize="yes")
        parts = get_semantic_components(scheduler=DiffSCMBELMScheduler())
        with pytest.raises(ValueError, match="`dequantize` expects False with DiffSCMBELMScheduler"):
            DiffSCMSemanticCounterfactualPipeline(**parts, dequantize=True)

    def test_clipping_scheduler_is_converted(self):
        pipe = DiffSCMSemanticCounterfactualPipeline(**get_semantic_components(scheduler=DDPMScheduler()))
        assert pipe.scheduler.is_invertible

    def test_scheduler_that_cannot_be_inverted(self):
        pipe = get_semantic_pipe()
        pipe.scheduler = DDPMScheduler()
        with pytest.raises(
            ValueError, match="`scheduler` expects one whose moves can be inverted.* got DDPMScheduler"
        ):
            pipe(get_dummy_image(), 1, 0, 2)
