# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diffscm_diffusers import StructuralCausalModel
from diffscm_diffusers.baselines import ConditionalVAE2DModel, HierarchicalVAE2DModel, VAECounterfactualPipeline
from diffscm_diffusers.baselines.discretised_logistic import discretised_logistic_log_prob
from diffscm_diffusers.causal_graphs import CausalGraph


NODES = {
    "shade": {"kind": "categorical", "labels": ["dark", "light"]},
    "level": {"kind": "continuous", "range": [0.0, 10.0], "unit": "steps"},
    "gain": {"kind": "continuous", "range": [0.0, 1.0], "unit": ""},
}
EDGES = [["level", "gain"], ["shade", "image"], ["level", "image"], ["gain", "image"]]
ATTRIBUTES = {"shade": ["dark", "light"], "level": [2.0, 7.0], "gain": [0.3, 0.6]}


def get_vae(model_class, **config):
    torch.manual_seed(0)
    sizes = {"block_out_channels": (4, 6, 8), "condition_features": 5}
    vae = model_class(**{"sample_size": 8, "condition_dim": 4, **sizes, **config})
    for weights in vae.parameters():  # also those that start at zero
        weights.data += 0.1 * torch.randn(weights.shape)
    return vae.eval()


def get_pipe(model_class, **config):
    scm = StructuralCausalModel(CausalGraph(NODES, EDGES), hidden_features=4, num_bins=3)
    torch.nn.init.normal_(scm._mechanism("gain").parameters_from_parents.linear.weight)
    pipe = VAECounterfactualPipeline(get_vae(model_class, **config), scm)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_image(channels=1):
    return torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[ConditionalVAE2DModel, HierarchicalVAE2DModel])
def model_class(request):
    return request.param


def test_pixels_have_the_mass_of_a_logistic_distribution():
    values = torch.linspace(-1, 1, 256)
    for mean, scale in ((0.0, 0.1), (-1.0, 1e-3), (0.3, 1.0), (1.5, 0.01)):
        log_prob = discretised_logistic_log_prob(values, torch.full((256,), mean), torch.full((256,), scale))
        edges = torch.cat([torch.tensor([-torch.inf]), (values[1:] + values[:-1]) / 2, torch.tensor([torch.inf])])
        mass = ((edges.double() - mean) / scale).sigmoid().diff()
        torch.testing.assert_close(log_prob.exp().double(), mass, rtol=1e-3, atol=1e-6)
    far = discretised_logistic_log_prob(torch.tensor([0.5]), torch.tensor([-1.0]), torch.tensor([1e-3]))
    assert far.isfinite()


def test_bound_is_made_of_the_posterior_and_the_pixels(model_class):
    vae, image = get_vae(model_class), 2 * get_image() - 1
    condition, noise = torch.rand(2, 4), torch.randn(2, vae.latent_dim)
    with torch.no_grad():
        log_likelihood, divergence = vae(image, condition, noise)
        latents = vae.encode(image, condition, noise)
        expected = discretised_logistic_log_prob(image, *vae.decode(latents, condition)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(log_likelihood, expected)
    assert (divergence > 0).all()


def test_divergence_of_the_conditional_one_is_that_of_gaussians():
    vae, image, condition = get_vae(ConditionalVAE2DModel), 2 * get_image() - 1, torch.rand(2, 4)
    with torch.no_grad():
        mean = vae.encode(image, condition)
        std = vae.encode(image, condition, torch.ones(2, vae.latent_dim)) - mean
        divergence = vae(image, condition, torch.zeros(2, vae.latent_dim))[1]
    torch.testing.assert_close(divergence, kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(dim=1))


def test_divergence_of_the_hierarchical_one_is_zero_where_the_posterior_is_the_prior():
    vae = HierarchicalVAE2DModel(8, 4, block_out_channels=(4, 6, 8))  # both start as standard Gaussians
    assert [shape[1] for shape in vae.latent_shapes] == [1, 2, 4, 8]
    image, noise = 2 * get_image() - 1, torch.randn(2, vae.latent_dim)
    torch.testing.assert_close(vae.encode(image, torch.rand(2, 4), noise), noise)
    assert torch.equal(vae(image, torch.rand(2, 4), noise)[1], torch.zeros(2))
    # One level whose posterior has moved by 1, another prior: half a nat for each latent.
    torch.nn.init.constant_(vae.up_blocks[1].posterior_out.bias[:4], 1.0)
    torch.testing.assert_close(vae(image, torch.rand(2, 4), noise)[1], torch.full((2,), 0.5 * 4 * 2 * 2))


def test_finer_latents_have_a_prior_that_knows_the_coarser_ones():
    vae, image, condition = get_vae(HierarchicalVAE2DModel), 2 * get_image() - 1, torch.rand(2, 4)
    noise = torch.randn(2, vae.latent_dim)
    with torch.no_grad():
        before = vae(image, condition, noise)[1]
        vae.up_blocks[0].latents_to_prior.weight += 1
        assert not torch.allclose(vae(image, condition, noise)[1], before)


@pytest.mark.parametrize("channels", [1, 3])
def test_null_intervention_gives_the_factual(model_class, channels):
    pipe, image = get_pipe(model_class, in_channels=channels), get_image(channels)
    output = pipe(image, ATTRIBUTES, output_type="pt")
    torch.testing.assert_close(output.images, image, rtol=0, atol=1e-5)
    level = {"level": ATTRIBUTES["level"]}
    torch.testing.assert_close(pipe(image, ATTRIBUTES, level, "gain", output_type="pt").images, image)


def test_counterfactual_keeps_all_exogenous_noise(model_class):
    pipe, image = get_pipe(model_class), get_image()
    output = pipe(image, ATTRIBUTES, {"level": 4.0}, output_type="pt")
    values = pipe.scm.counterfactual(ATTRIBUTES, {"level": 4.0})
    for name, value in output.counterfactual_attributes.items():
        torch.testing.assert_close(value, values[name])
    assert not torch.allclose(values["gain"], torch.tensor(ATTRIBUTES["gain"]))
    held = pipe(image, ATTRIBUTES, {"level": 4.0}, "gain").counterfactual_attributes["gain"]
    assert torch.equal(held, torch.tensor(ATTRIBUTES["gain"]))

    # The formula, written out.
    graph, pixels = pipe.scm.graph, 2 * image - 1
    factual = graph.condition(graph.check_values(ATTRIBUTES, 2, "values"))
    with torch.no_grad():
        latents = pipe.vae.encode(pixels, factual)
        mean, scale = pipe.vae.decode(latents, factual)
        other_mean, other_scale = pipe.vae.decode(latents, graph.condition(values))
    noise = (pixels - mean) / scale
    torch.testing.assert_close(output.exogenous_noise, noise)
    torch.testing.assert_close(output.images, ((other_mean + other_scale * noise).clamp(-1, 1) + 1) / 2)
    assert (output.images - image).abs().max() > 1e-4


def test_one_factual_and_several_values(model_class):
    pipe, image = get_pipe(model_class), get_image()
    factual = {name: values[0] for name, values in ATTRIBUTES.items()}
    several = pipe(image[:1], factual, {"shade": ["dark", "light", "dark"]}, batch_size=2, output_type="pt").images
    alone = [pipe(image[:1], factual, {"shade": shade}, output_type="pt").images for shade in ("dark", "light")]
    torch.testing.assert_close(several, torch.cat([*alone, alone[0]]))


def test_saved_and_loaded(model_class, tmp_path):
    pipe, image = get_pipe(model_class), get_image()
    pipe.save_pretrained(tmp_path)
    loaded = VAECounterfactualPipeline.from_pretrained(tmp_path)
    assert type(loaded.vae) is model_class
    call = {"attributes": ATTRIBUTES, "do": {"shade": "dark"}, "output_type": "pt"}
    assert torch.equal(loaded(image, **call).images, pipe(image, **call).images)


def test_bad_input_is_named(model_class):
    pipe, image = get_pipe(model_class), get_image()
    for changes, message in (
        ({"attributes": {"shade": "dark"}}, "`attributes` expects a value of 'level', 'gain'.* no predictor"),
        ({"do": {"colour": 1}}, "`do` expects.*'colour'"),
        ({"do": {"level": 3}, "hold": "level"}, "`hold` expects nodes that `do` does not set, got 'level'"),
        ({"image": image[:, :, :4]}, "`image` expects images with 1 channel"),
        ({"batch_size": 0}, "`batch_size` expects a whole number of at least 1, got 0"),
        ({"output_type": "jpg"}, "`output_type` expects 'pil', 'np' or 'pt', got 'jpg'"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe(**{"image": image, "attributes": ATTRIBUTES, **changes})
    with pytest.raises(TypeError, match="`generator` expects a `torch.Generator`, got int"):
        pipe(image, ATTRIBUTES, generator=0)

    vae, latent_dim = pipe.vae, pipe.vae.latent_dim
    for call, message in (
        (lambda: vae.encode(image, torch.rand(2, 3)), r"`condition` expects shape \(2, 4\), got \(2, 3\)"),
        (lambda: vae.encode(image[:, :, 1:], torch.rand(2, 4)), r"`sample` expects shape \(2, 1, 8, 8\), got"),
        (lambda: vae.decode(torch.rand(2, 3), torch.rand(2, 4)), rf"`latents` expects shape \(2, {latent_dim}\)"),
        (lambda: model_class(10, 4), "`block_out_channels` expects .* half .* got 3 for a `sample_size` of 10"),
        (lambda: model_class(8, 0), "`condition_dim` expects a whole number of at least 1, got 0"),
        (lambda: model_class(8, 4, block_out_channels=(4, 0)), "`block_out_channels` expects whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="`sample` expects a tensor, got list"):
        vae.encode([image], torch.rand(2, 4))
    with pytest.raises(ValueError, match="`vae` expects a `condition_dim` of 4, .* got 5"):
        VAECounterfactualPipeline(get_vae(model_class, condition_dim=5), pipe.scm)
    with pytest.raises(TypeError, match="`scm` expects a `StructuralCausalModel`, got"):
        VAECounterfactualPipeline(vae, vae)
    causes = [[name, NODES[name]] for name in ("gain", "shade", "level")]
    vae.register_to_config(_trained_with={"causes": causes})
    with pytest.raises(ValueError, match="`vae` expects a network trained on the image's parents in `scm.graph`"):
        VAECounterfactualPipeline(vae, pipe.scm)
