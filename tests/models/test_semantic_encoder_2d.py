# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math

import pytest
import torch
import torch.nn.functional as F

from diffscm_diffusers.models import SemanticEncoder2DModel


TINY = {
    "sample_size": 16,
    "condition_dim": 3,
    "code_dim": 8,
    "block_out_channels": (4, 6, 8),
    "hidden_features": 16,
    "condition_features": 4,
    "style_features": 8,
}


@pytest.fixture
def model() -> SemanticEncoder2DModel:
    torch.manual_seed(0)
    return SemanticEncoder2DModel(**TINY).eval().requires_grad_(False)


@pytest.fixture
def condition() -> torch.Tensor:
    return F.one_hot(torch.tensor([0, 1, 2, 1]), 3).float()


@pytest.mark.parametrize("channels, size, fine_features", [(1, 16, 12), (3, 28, 12), (3, 64, 5)])
def test_code_and_image_have_the_stated_shapes(channels, size, fine_features):
    options = {"sample_size": size, "in_channels": channels, "fine_features": fine_features}
    model = SemanticEncoder2DModel(**{**TINY, **options})
    # The decoder's layers at the images' own size have so many channels.
    assert model.refine(torch.zeros(1, fine_features, size, size), torch.zeros(1, 8)).shape[1] == fine_features
    condition = torch.eye(3)[:2]
    posterior = model.encode(torch.rand(2, channels, size, size) * 2 - 1, condition)

    assert posterior.mean.shape == posterior.std.shape == (2, 8)
    assert (posterior.std > 0).all()
    image = model.decode(posterior.mean, condition)
    assert image.shape == (2, channels, size, size)
    assert image.min() >= -1 and image.max() <= 1


def test_code_and_image_depend_on_the_condition(model, condition):
    sample = torch.rand(1, 1, 16, 16).expand(4, -1, -1, -1) * 2 - 1
    mean, std = model.encode(sample, condition, return_dict=False)
    images = model.decode(torch.randn(1, 8).expand(4, -1), condition)

    for values in (mean, std, images):
        torch.testing.assert_close(values[1], values[3])
        assert not torch.allclose(values[0], values[1])
        assert not torch.allclose(values[0], values[2])


def test_causes_modulate_what_is_drawn(model, condition):
    """Causes change how a code is drawn, not only which map of features is picked."""
    model.content.weight.fill_(0.5)
    images = model.decode(torch.randn(1, 8).expand(4, -1), condition)
    torch.testing.assert_close(images[1], images[3])
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


def test_code_adds_further_maps_to_the_first(model, condition):
    several = SemanticEncoder2DModel(**TINY, num_content_maps=3).eval().requires_grad_(False)
    several.load_state_dict(
        {name: weight for name, weight in model.state_dict().items() if name != "content.weight"}, strict=False
    )
    first, second, third = torch.randn(3, *model.content.weight.shape)
    several.content.weight.copy_(torch.cat([first, second, third]))
    several.mixing.weight.zero_()
    several.mixing.bias.copy_(torch.tensor([0.5, -2.0]))
    code = torch.randn(4, 8)

    model.content.weight.copy_(first + 0.5 * second - 2 * third)
    torch.testing.assert_close(several.decode(code, condition), model.decode(code, condition))

    # How much of each, the code says: a step of the mixing's weights changes the image.
    several.mixing.weight.fill_(1.0)
    assert not torch.allclose(several.decode(code, condition), model.decode(code, condition))


@pytest.fixture
def model_with_gain(model) -> SemanticEncoder2DModel:
    """The same model, whose third entry of the condition acts by a gain alone, `0.75 + 0.5 * entry`."""
    other = SemanticEncoder2DModel(**TINY, gain_conditions=(2,)).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict(), strict=False)
    other.gain_out.weight[:, -1] = 0.5
    other.gain_out.bias.fill_(0.75)
    return other


def test_gain_multiplies_the_image_and_leaves_its_shape(model, model_with_gain):
    code, condition = torch.randn(4, 8), torch.tensor([[1.0, 0.0, 0.0]] * 4)
    image = (model.decode(code, condition) + 1) / 2
    condition[:, 2] = torch.tensor([-1.0, 0.0, 0.5, 20.0])
    decoded = model_with_gain.decode(code, condition)
    gain = torch.tensor([0.25, 0.75, 1.0, 10.75]).view(4, 1, 1, 1)
    assert (gain * image).max() > 1
    torch.testing.assert_close(decoded, 2 * (gain * image).clamp(max=1) - 1)
    # The other causes and the code have a part in it.
    model_with_gain.gain_out.weight[:, :-1] = 0.1
    assert not torch.allclose(model_with_gain.decode(code, condition), decoded)


def test_gain_is_new_at_one(model):
    condition, code = torch.eye(3), torch.randn(3, 8)
    other = SemanticEncoder2DModel(**TINY, gain_conditions=[0, 1, 2]).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(other.decode(code, condition), model.decode(code, torch.zeros(3, 3)))


def test_gain_leaves_no_doubt_about_the_code(model_with_gain):
    model_with_gain.register_to_config(transfer_scale=2.0)
    code, deviation, condition = torch.randn(4, 8), torch.randn(4, 8), torch.zeros(4, 3)
    brighter = condition + torch.tensor([0.0, 0.0, 3.0])
    assert torch.equal(model_with_gain.transfer(code, deviation, condition, brighter), code)
    both = model_with_gain.transfer(code, deviation, condition, brighter + torch.tensor([0.5, 0.0, 0.0]))
    torch.testing.assert_close(both, code + 2 * 0.5 * deviation)


def test_forward_decodes_the_mean(model, condition):
    sample = torch.rand(4, 1, 16, 16) * 2 - 1
    mean, std = model.encode(sample, condition, return_dict=False)
    output = model(sample, condition)
    torch.testing.assert_close(output.sample, model.decode(mean, condition))
    assert torch.equal(output.code, mean)

    noise = torch.randn(4, 8)
    drawn = model(sample, condition, noise)
    torch.testing.assert_close(drawn.code, mean + std * noise)
    torch.testing.assert_close(drawn.sample, model.decode(drawn.code, condition))
    assert torch.equal(drawn.mean, mean) and torch.equal(drawn.std, std)


@pytest.mark.parametrize("num_corrections, error", [(0, 0.25), (1, 0.0625), (3, 0.00390625)])
def test_each_correction_removes_most_of_the_error_of_the_code(model, condition, num_corrections, error):
    """Where a quarter of each code is lost in reading, its error falls to a quarter with each correction."""
    model.register_to_config(num_corrections=num_corrections)
    code = torch.randn(4, 8)
    model.decode = lambda code, condition: code
    model._read = lambda sample, condition: (0.75 * (code if sample.ndim == 4 else sample), torch.ones(4, 8))

    mean, std = model.encode(torch.zeros(4, 1, 16, 16), condition, return_dict=False)
    torch.testing.assert_close(mean, (1 - error) * code)
    assert torch.equal(std, torch.ones(4, 8))


def test_training_goes_through_the_corrections(model, condition):
    """The derivative of a corrected code, `2 r c - r (d r c)`, to what reads and to what decodes."""
    model.register_to_config(num_corrections=1)
    read, decode = torch.tensor(0.75, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    code = torch.randn(4, 8)
    model.decode = lambda code, condition: decode * code
    model._read = lambda sample, condition: (read * (code if sample.ndim == 4 else sample), torch.ones(4, 8))

    output = model(torch.zeros(4, 1, 16, 16), condition)
    torch.testing.assert_close(output.mean, (2 * 0.75 - 1.5 * 0.75**2) * code)
    torch.testing.assert_close(output.sample, 1.5 * output.mean)
    output.mean.sum().backward()
    torch.testing.assert_close(read.grad, (2 - 2 * 1.5 * 0.75) * code.sum())
    torch.testing.assert_close(decode.grad, -(0.75**2) * code.sum())


def test_code_is_read_under_other_causes_in_what_it_means_under_them(model, condition):
    sample, noise, other = torch.rand(4, 1, 16, 16) * 2 - 1, torch.randn(4, 8), condition.roll(1, dims=1)
    output = model(sample, condition, noise, other_condition=other)
    read = model.encode(model.decode(output.code, other), other).mean
    torch.testing.assert_close(output.transferred_mean, read)
    assert (read - output.mean).abs().max() > 1e-4
    assert model(sample, condition, noise).transferred_mean is None


def test_code_deviates_with_the_distance_between_the_causes(model, condition):
    code, deviation = torch.randn(4, 8), torch.randn(4, 8)
    model.register_to_config(transfer_scale=2.0)
    assert torch.equal(model.transfer(code, deviation, condition, condition), code)
    # Two classes, as one-hot vectors, are the root of 2 apart.
    other = condition.roll(1, dims=1)
    torch.testing.assert_close(model.transfer(code, deviation, condition, other) - code, 2 * 2**0.5 * deviation)
    halfway = model.transfer(code, deviation, condition, (condition + other) / 2)
    torch.testing.assert_close(halfway - code, 2**0.5 * deviation)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("alpha_prod", [0.9999, 0.9, 0.001])
def test_residual_prior_is_the_posterior_of_a_normal_law(model, prediction_type, alpha_prod):
    """Against sums over a fine grid of images, weighted by Bayes' rule."""
    std, decoded, noisy = 0.15, 0.4, 0.1
    # The decoded image goes from -0.8 to 0.4.
    model.register_to_config(residual_std=std / 0.6)
    signal, noise_std = alpha_prod**0.5, (1 - alpha_prod) ** 0.5
    image = decoded + std * torch.linspace(-9, 9, 400001, dtype=torch.float64)
    noise = (noisy - signal * image) / noise_std
    weight = torch.softmax(-(((image - decoded) / std) ** 2) / 2 - noise**2 / 2, dim=0)
    target = {"epsilon": noise, "sample": image, "v_prediction": signal * noise - noise_std * image}[prediction_type]
    expected_mean = (weight * target).sum()
    expected_std = (weight * (target - expected_mean) ** 2).sum() ** 0.5

    sample, other = torch.full((1, 1, 2, 2), noisy), torch.tensor([[[[decoded, -0.8], [0.0, 0.1]]]])
    inputs, mean, std_given_sample = model.residual_prior(sample, other, alpha_prod, prediction_type)
    torch.testing.assert_close(mean[0, 0, 0, 0].double(), expected_mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(std_given_sample[0, 0, 0, 0].double(), expected_std, rtol=1e-3, atol=1e-5)
    total_std = (alpha_prod * std**2 + 1 - alpha_prod) ** 0.5
    torch.testing.assert_close(inputs, (sample - signal * other) / total_std, rtol=1e-3, atol=1e-5)


def test_residual_of_each_image_is_as_faint_as_the_image(model):
    """Where there is but noise, the image is as uncertain as the law says, in units of half its range: 2, 0.5 or 0."""
    model.register_to_config(residual_std=0.2)
    decoded = torch.tensor([[-1.0, 1.0], [-1.0, -0.5], [0.0, 0.0]]).view(3, 1, 1, 2)
    sample, alpha_prod = torch.zeros(3, 1, 1, 2), 0.001
    _, mean, std = model.residual_prior(sample, decoded, alpha_prod, "sample")
    torch.testing.assert_close(std.flatten(), torch.tensor([0.2, 0.05, 0.0]), rtol=1e-3, atol=0)
    torch.testing.assert_close(mean[2], decoded[2])


def test_without_a_residual_a_denoiser_predicts_all(model):
    sample = torch.randn(2, 1, 4, 4)
    inputs, mean, std = model.residual_prior(sample, sample, 0.5, "epsilon")
    assert inputs is sample and (mean, std) == (0, 1)


@pytest.fixture
def model_with_mechanism() -> SemanticEncoder2DModel:
    torch.manual_seed(0)
    model = SemanticEncoder2DModel(**TINY, mechanism_features=16).eval().requires_grad_(False)
    model.mechanism.mean.normal_()
    model.mechanism.whitening.add_(0.3 * torch.randn(8, 8))
    for parameter in model.mechanism.parameters():
        parameter.normal_(std=0.3)
    return model


def test_without_a_mechanism_the_code_is_the_noise(model, condition):
    code = torch.randn(4, 8)
    assert torch.equal(model.abduct(code, condition), code) and torch.equal(model.predict(code, condition), code)


def test_new_mechanism_leaves_codes_as_they_are(condition):
    code = torch.randn(4, 8)
    noise = SemanticEncoder2DModel(**TINY, mechanism_features=16).abduct(code, condition)
    torch.testing.assert_close(noise, code, atol=0.05, rtol=0)


def test_mechanism_is_inverted_under_the_same_causes_alone(model_with_mechanism, condition):
    code = torch.randn(4, 8)
    noise = model_with_mechanism.abduct(code, condition)
    assert (noise - code).abs().max() > 0.1
    torch.testing.assert_close(model_with_mechanism.predict(noise, condition), code, atol=1e-4, rtol=0)
    other = model_with_mechanism.predict(noise, condition.roll(1, dims=1))
    assert (other - code).abs().amax(dim=1).min() > 1e-2


def test_deviation_is_the_codes_own(model_with_mechanism, condition):
    model, (noise, deviation) = model_with_mechanism, torch.randn(2, 4, 8)
    model.register_to_config(transfer_scale=2.0)
    other = condition.roll(1, dims=1)
    deviant = model.predict(model.transfer(noise, deviation, condition, other), other)
    difference = deviant - model.predict(noise, other)
    torch.testing.assert_close(difference, 2 * 2**0.5 * deviation, atol=1e-3, rtol=1e-3)


def test_determinant_of_the_mechanism_is_that_of_its_jacobian(model_with_mechanism, condition):
    mechanism, code = model_with_mechanism.mechanism.double(), torch.randn(4, 8, dtype=torch.float64)
    _, log_determinant = mechanism(code, condition.double())
    for row in range(4):

        def abduct(z, row=row):
            return mechanism(z[None], condition[row : row + 1].double())[0][0]

        jacobian = torch.autograd.functional.jacobian(abduct, code[row])
        torch.testing.assert_close(log_determinant[row], torch.linalg.slogdet(jacobian).logabsdet)


def test_mechanism_is_saved_and_stays_in_float32(model_with_mechanism, condition, tmp_path):
    model_with_mechanism.save_pretrained(tmp_path)
    code = torch.randn(4, 8)
    noise = model_with_mechanism.abduct(code, condition)
    assert torch.equal(SemanticEncoder2DModel.from_pretrained(tmp_path).abduct(code, condition), noise)
    half = SemanticEncoder2DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half.abduct(code, condition), noise)


def features(model, pose: torch.Tensor, point: tuple[int, int]) -> torch.Tensor:
    """Centre of mass (x, y), of 1 at the edge of the image, of one bright feature that a pose has moved."""
    hidden = torch.zeros(1, 1, 128, 128)
    hidden[0, 0, point[1], point[0]] = 1
    hidden = F.avg_pool2d(hidden, 5, stride=1, padding=2)
    moved = model._move(hidden, pose)[0, 0]
    axis = (2 * torch.arange(128) + 1) / 128 - 1
    return torch.stack([(moved.sum(0) * axis).sum(), (moved.sum(1) * axis).sum()]) / moved.sum()


def test_pose_moves_and_turns_in_the_stated_units(model):
    start = features(model, torch.zeros(1, 6), (80, 64))
    assert abs(start[1]) < 0.02
    torch.testing.assert_close(start[0], torch.tensor(0.8 * (161 / 128 - 1)), atol=2e-3, rtol=0)

    moved = features(model, torch.tensor([[0.0, 0, 0, 0, 2, -1]]), (80, 64))
    torch.testing.assert_close(moved - start, torch.tensor([0.18, -0.09]), atol=4e-3, rtol=0)

    # An antisymmetric generator is a rotation, and the exponential keeps the radius at any angle.
    turned = features(model, torch.tensor([[0.0, 4, -4, 0, 0, 0]]), (80, 64))
    angle = torch.atan2(turned[1], turned[0]) - torch.atan2(start[1], start[0])
    torch.testing.assert_close(angle.abs(), torch.tensor(0.6), atol=0.01, rtol=0)
    torch.testing.assert_close(turned.norm(), start.norm(), atol=5e-3, rtol=0)

    # A trace scales: to exp(-0.15 * 2) of the size, as the matrix maps the image to the features.
    scaled = features(model, torch.tensor([[2.0, 0, 0, 2, 0, 0]]), (80, 64))
    torch.testing.assert_close(scaled[0] / start[0], torch.tensor(math.exp(-0.3)), atol=0.01, rtol=0)


def test_a_pose_is_the_same_for_all_conditions(model, condition):
    """Far from the edges, moving by whole pixels is moving the decoded image."""
    style = torch.randn(1, 2)
    shift = 2 / 16 / model.translation_scale
    still = model.decode(torch.cat([torch.zeros(1, 6), style], 1).expand(4, -1), condition)
    moved = model.decode(torch.cat([torch.tensor([[0.0, 0, 0, 0, shift, 0]]), style], 1).expand(4, -1), condition)
    torch.testing.assert_close(moved[..., 4:12, 5:12], still[..., 4:12, 4:11], atol=1e-4, rtol=0)


def test_save_and_load_give_the_same_model(model, condition, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = SemanticEncoder2DModel.from_pretrained(tmp_path)

    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    sample = torch.rand(4, 1, 16, 16) * 2 - 1
    assert torch.equal(loaded(sample, condition).sample, model(sample, condition).sample)


@pytest.mark.parametrize("options", [{}, {"num_content_maps": 3}, {"fine_features": 5}])
def test_gradients_reach_every_parameter(condition, options):
    model = SemanticEncoder2DModel(**TINY, **options)
    model(torch.rand(4, 1, 16, 16), condition, torch.randn(4, 8)).sample.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter.ndim > 1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_size": 30}, "`sample_size` expects a multiple of 4, got 30"),
        ({"code_dim": 6}, "`code_dim` expects at least 7, of which 6 are the pose, got 6"),
        ({"num_content_maps": 0}, "`num_content_maps` expects a whole number of at least 1, got 0"),
        ({"fine_features": 2.5}, "`fine_features` expects a whole number of at least 1, got 2.5"),
        ({"num_corrections": -1}, "`num_corrections` expects a whole number of at least 0, got -1"),
        ({"mechanism_features": 1.5}, "`mechanism_features` expects a whole number of at least 0, got 1.5"),
        ({"transfer_scale": -1}, "`transfer_scale` expects a number from 0, got -1"),
        ({"transfer_scale": float("nan")}, "`transfer_scale` expects a number from 0, got nan"),
        ({"residual_std": 0}, "`residual_std` expects a number above 0, or None, got 0"),
        ({"residual_std": float("inf")}, "`residual_std` expects a number above 0, or None, got inf"),
        ({"gain_conditions": [3]}, r"`gain_conditions` expects different numbers from 0 to 2, got \[3\]"),
        ({"gain_conditions": (0, 0)}, r"`gain_conditions` expects different numbers from 0 to 2, got \(0, 0\)"),
        ({"gain_conditions": 1}, "`gain_conditions` expects different numbers from 0 to 2, got 1"),
        ({"block_out_channels": (4, 6)}, r"`block_out_channels` expects 3 numbers, got \(4, 6\)"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SemanticEncoder2DModel(**{**TINY, **options})


def test_bad_inputs_are_refused(model, condition):
    with pytest.raises(ValueError, match=r"`sample` expects shape \(batch, 1, 16, 16\), got \(4, 3, 16, 16\)"):
        model.encode(torch.zeros(4, 3, 16, 16), condition)
    with pytest.raises(ValueError, match=r"`condition` expects shape \(2, 3\), got \(4, 3\)"):
        model.encode(torch.zeros(2, 1, 16, 16), condition)
    with pytest.raises(ValueError, match=r"`condition` expects shape \(4, 3\), got \(4,\)"):
        model.encode(torch.zeros(4, 1, 16, 16), torch.tensor([0, 1, 2, 1]))
    with pytest.raises(ValueError, match=r"`code` expects shape \(batch, 8\), got \(4, 7\)"):
        model.decode(torch.zeros(4, 7), condition)
    with pytest.raises(ValueError, match=r"`condition` expects shape \(4, 3\), got \(2, 3\)"):
        model.decode(torch.zeros(4, 8), condition[:2])
    with pytest.raises(ValueError, match=r"`decoded` expects `sample`'s shape \(4, 1, 4, 4\), got \(4, 4, 4\)"):
        model.residual_prior(torch.zeros(4, 1, 4, 4), torch.zeros(4, 4, 4), 0.5, "epsilon")
    with pytest.raises(ValueError, match="`prediction_type` expects 'epsilon', 'v_prediction' or 'sample', got 'v'"):
        model.residual_prior(torch.zeros(4, 1, 4, 4), torch.zeros(4, 1, 4, 4), 0.5, "v")
    with pytest.raises(ValueError, match=r"`noise` expects shape \(4, 8\), got \(4, 1\)"):
        model(torch.zeros(4, 1, 16, 16), condition, torch.zeros(4, 1))
    code, other = torch.zeros(4, 8), condition[:2]
    with pytest.raises(ValueError, match=r"`code` expects shape \(batch, 8\), got \(4, 7\)"):
        model.abduct(code[:, :7], condition)
    with pytest.raises(ValueError, match=r"`noise` expects shape \(batch, 8\), got \(8,\)"):
        model.predict(code[0], condition)
    with pytest.raises(ValueError, match=r"`condition` expects shape \(4, 3\), got \(2, 3\)"):
        model.predict(code, other)
    with pytest.raises(ValueError, match=r"`deviation` expects shape \(4, 8\), got \(2, 8\)"):
        model.transfer(code, code[:2], condition, condition)
    with pytest.raises(ValueError, match=r"`other_condition` expects shape \(4, 3\), got \(2, 3\)"):
        model.transfer(code, code, condition, other)
    with pytest.raises(TypeError, match="`deviation` expects a tensor, got NoneType"):
        model.transfer(code, None, condition, condition)
