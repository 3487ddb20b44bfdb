# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""How the pipeline of several causes is called, and what it gives back."""

import inspect

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffscm_diffusers import (
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMGraphCounterfactualPipeline,
    DiffSCMSemanticCounterfactualPipeline,
    SemanticEncoder2DModel,
)
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.models import StructuralCausalModel
from diffscm_diffusers.models.semantic_encoder_2d import CodeMechanism
from diffscm_diffusers.pipelines import (
    DiffSCMGraphPipelineOutput,
    DiffSCMSemanticPipelineOutput,
    pipeline_diffscm_counterfactual,
    pipeline_diffscm_graph,
    pipeline_diffscm_semantic,
)

from .dummies import decode_in_one_range, get_dummy_image, record_evaluations
from .graph_dummies import (
    ATTRIBUTES,
    SHARED,
    WIDTHS,
    get_gaussian_factuals,
    get_gaussian_graph_pipe,
    get_random_graph_pipe,
)


EDGE = [("thickness", "tint")]
WIDTHS_TURNED = dict(reversed(WIDTHS.items()))
STEPS = {"num_inference_steps": 3, "output_type": "pt"}


def get_silent_pipe(way, residual_std):
    """Its denoiser says 0, and so that images are normal around the decoded ones."""
    pipe = get_random_graph_pipe(way, with_encoder=True, predictor=None)
    pipe.encoder.register_to_config(residual_std=residual_std)
    for parameter in pipe.unet.conv_out.parameters():
        parameter.data.zero_()
    return pipe


def record_decoded(encoder) -> list[torch.Tensor]:
    """A list that gets all images that the encoder decodes."""
    decoded, decode = [], encoder.decode
    encoder.decode = lambda *args: decoded.append(decode(*args)) or decoded[-1]
    return decoded


class TestGuidance:
    @pytest.mark.parametrize(
        ("scale", "passes"),
        [
            (1.0, {(True, True): 1.0}),
            (0.0, {(False, False): 1.0}),
            (3.0, {(False, False): -2.0, (True, True): 3.0}),
            # Kept before intervened: what is kept is told before what is set is sharpened.
            ({"intervened": 3.0}, {(False, True): -2.0, (True, True): 3.0}),
            ({"kept": 2.0, "intervened": 3.0}, {(False, False): -1.0, (False, True): -1.0, (True, True): 3.0}),
            ({"descended": 7.0}, {(True, True): 1.0}),
        ],
    )
    def test_groups_are_told_one_after_the_other(self, scale, passes):
        pipe = get_random_graph_pipe()
        guidance = pipe.prepare_guidance(scale, do=["thickness"])
        assert dict(guidance.passes) == passes
        assert get_random_graph_pipe().prepare_guidance(scale, do=[]).passes != () and sum(passes.values()) == 1

    def test_descendants_are_a_group_unless_they_are_held(self):
        pipe = get_random_graph_pipe(edges=EDGE)
        scale = {"intervened": 3.0, "descended": 2.0, "kept": 5.0}
        assert pipe.prepare_guidance(scale, ["thickness"]).scales == (3.0, 2.0)
        assert pipe.prepare_guidance(scale, ["thickness"], ["tint"]).scales == (3.0, 5.0)
        assert pipe.prepare_guidance(scale, ["tint"]).scales == (5.0, 3.0)

    @pytest.mark.parametrize("scale", [0.0, 2.0, {"intervened": 2.0}, {"intervened": 2.0, "kept": 0.5}])
    def test_both_ways_agree_where_the_networks_are_exact(self, scale):
        """`do(tint)`: the predictor's chain, thickness before tint, is then the groups' order."""
        factuals, attributes = get_gaussian_factuals()
        noises = []
        for way in ("conditional", "joint"):
            pipe = get_gaussian_graph_pipe(way)
            condition = pipe.scm.graph.condition(attributes)
            guidance = pipe.prepare_guidance(scale, do=["tint"])
            causes = pipeline_diffscm_graph.Causes(condition, None, guidance)
            noises.append(pipe.predict_noise(factuals, 300, causes))
        torch.testing.assert_close(noises[0], noises[1], atol=1e-5, rtol=0)

    def test_denoiser_is_evaluated_once_a_step(self):
        for scale, batches in ((1.0, [2] * 6), ({"intervened": 2.0}, [4] * 6), (0.0, [2] * 6)):
            pipe = get_random_graph_pipe()
            evaluations = record_evaluations(pipe.unet)
            pipe(get_dummy_image(2), ATTRIBUTES, {"thickness": 7.0}, guidance_scale=scale, **STEPS)
            assert evaluations == batches

    def test_abduction_and_tolerance_default_to_the_checkpoints(self):
        exact = get_random_graph_pipe(default_abduction="implicit", default_tolerance=1e-4)
        arguments = {"image": get_dummy_image(2), "attributes": ATTRIBUTES, "num_inference_steps": 3}
        noise = exact.abduct(**arguments).exogenous_noise
        given = get_random_graph_pipe().abduct(**arguments, abduction="implicit", tolerance=1e-4).exogenous_noise
        assert torch.equal(noise, given)
        assert not torch.equal(noise, exact.abduct(**arguments, tolerance=1e-6).exogenous_noise)
        assert not torch.equal(noise, exact.abduct(**arguments, abduction="source").exogenous_noise)

    def test_default_is_the_checkpoints(self):
        pipe = get_random_graph_pipe(default_guidance_scale={"intervened": 3.0}, default_num_inference_steps=2)
        images = pipe(get_dummy_image(), ATTRIBUTES, {"tint": 0.9}, output_type="pt").images
        given = pipe(
            get_dummy_image(), ATTRIBUTES, {"tint": 0.9}, (), {"intervened": 3.0}, num_inference_steps=2
        ).images
        assert (images.mul(255).round() - torch.tensor(list(given[0].tobytes())).view(1, 1, 8, 8)).abs().max() == 0

    def test_prediction_has_the_groups_of_its_abduction(self):
        pipe = get_random_graph_pipe()
        noise = pipe.abduct(get_dummy_image(), ATTRIBUTES, ["tint"], (), {"intervened": 2.0}, 3)
        pipe.predict(noise, {"tint": 0.3})
        with pytest.raises(ValueError, match="`do` and `hold` expect the attributes that abduction was told"):
            pipe.predict(noise, {"thickness": 3.0})
        # Where all groups have one scale there is nothing to agree on.
        pipe.predict(pipe.abduct(get_dummy_image(), ATTRIBUTES, guidance_scale=2.0, **{"num_inference_steps": 3}))


class TestAttributes:
    def test_missing_ones_are_read_and_said_so(self):
        factuals, attributes = get_gaussian_factuals()
        pipe = get_gaussian_graph_pipe()
        output = pipe(factuals, {"tint": attributes["tint"]}, {"tint": 0.2}, batch_size=3, **STEPS)
        assert output.read_attributes == ("thickness",)
        read = 5 + 5 * pipe.predictor.predict(2 * factuals - 1)[:, 0]
        torch.testing.assert_close(output.attributes["thickness"], read)
        torch.testing.assert_close(output.attributes["tint"], attributes["tint"], atol=0, rtol=0)
        assert pipe(factuals, do={"tint": 0.2}, **STEPS).read_attributes == ("thickness", "tint")
        assert pipe(factuals, attributes, {"tint": 0.2}, **STEPS).read_attributes == ()

    def test_what_is_known_is_told_to_the_predictor(self):
        pipe = get_random_graph_pipe("joint")
        outputs = [pipe(get_dummy_image(), {"thickness": t}, **STEPS).attributes for t in (0.0, 10.0)]
        assert [o["thickness"].item() for o in outputs] == [0.0, 10.0]
        assert outputs[0]["tint"] != outputs[1]["tint"]

    def test_decide_the_abduction(self):
        pipe = get_random_graph_pipe(with_encoder=True)
        first, second = (
            pipe.abduct(get_dummy_image(), {**ATTRIBUTES, "tint": tint}, num_inference_steps=3) for tint in (-0.5, 0.5)
        )
        assert (first.exogenous_noise - second.exogenous_noise).abs().max() > 1e-3
        assert (first.code - second.code).abs().max() > 1e-4

    def test_outside_support(self):
        pipe = get_random_graph_pipe()
        with pytest.warns(UserWarning, match="1 of 2 counterfactuals .* less probable together"):
            output = pipe(get_dummy_image(2), ATTRIBUTES, {"thickness": [5.0, 9.9]}, **STEPS)
        assert output.outside_support.tolist() == [False, True]


@pytest.mark.parametrize("way", ["conditional", "unconditional"])
class TestEncoder:
    def test_code_is_decoded_under_the_counterfactual_causes(self, way):
        pipe = get_random_graph_pipe(way, with_encoder=True, predictor=None)
        decoded = []
        decode = pipe.encoder.decode
        pipe.encoder.decode = lambda *args: decoded.append(args) or decode(*args)
        output = pipe(get_dummy_image(), ATTRIBUTES, {"tint": -0.7}, **STEPS)
        (code, factual), (code_again, counterfactual) = decoded
        torch.testing.assert_close(code, code_again)
        torch.testing.assert_close(output.code, code)
        torch.testing.assert_close(factual, torch.tensor([[0.0, 0.1]]))
        torch.testing.assert_close(counterfactual, torch.tensor([[0.0, -0.7]]))
        assert (output.images - get_dummy_image()).abs().max() > 1e-3

    def test_code_goes_through_its_mechanism(self, way):
        pipe = get_random_graph_pipe(way, with_encoder=True, predictor=None)
        encoder = pipe.encoder
        encoder.mechanism = CodeMechanism(7, 2, 8).eval().requires_grad_(False)
        for parameter in encoder.mechanism.parameters():
            parameter.normal_(std=0.5)
        decoded, decode = [], encoder.decode
        encoder.decode = lambda *args: decoded.append(args) or decode(*args)
        output = pipe(get_dummy_image(), ATTRIBUTES, {"tint": -0.7}, **STEPS)
        (code, factual), (other_code, counterfactual) = decoded
        torch.testing.assert_close(output.code, encoder.abduct(code, factual))
        torch.testing.assert_close(other_code, encoder.predict(output.code, counterfactual))
        assert (other_code - code).abs().max() > 1e-2
        drawn = pipe(get_dummy_image(), ATTRIBUTES, {"tint": 0.1}, num_draws=2, **STEPS)
        torch.testing.assert_close(decoded[3][0], decoded[2][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(drawn.code[:, 0], encoder.abduct(*decoded[2]))

    def test_denoiser_that_says_nothing_moves_the_residual_to_the_other_decoded_image(self, way):
        pipe = get_silent_pipe(way, residual_std=10.0)
        decode_in_one_range(pipe.encoder)
        decoded = record_decoded(pipe.encoder)
        factual = get_dummy_image()
        for guidance_scale in (1.0, 1.5) if way == "conditional" else (1.0,):
            settings = {"abduction": "implicit", "tolerance": 1e-7, "guidance_scale": guidance_scale}
            images = pipe(factual, ATTRIBUTES, {"tint": -0.7}, **STEPS, **settings).images
            torch.testing.assert_close(
                images, (factual + (decoded[-1] - decoded[-2]) / 2).clamp(0, 1), atol=1e-5, rtol=0
            )
            assert (images - factual).abs().max() > 1e-3

    def test_residual_becomes_as_faint_as_the_other_decoded_image(self, way):
        """In units of half the range of either, up to the errors of 100 steps."""
        # Dummies decode to faint images. Few steps are exact where deviations are not small.
        pipe = get_silent_pipe(way, residual_std=40.0)
        decoded = record_decoded(pipe.encoder)
        factual = get_dummy_image()
        for guidance_scale in (1.0, 1.5) if way == "conditional" else (1.0,):
            settings = {"abduction": "implicit", "tolerance": 1e-7, "guidance_scale": guidance_scale}
            settings |= {**STEPS, "num_inference_steps": 100}
            images = pipe(factual, ATTRIBUTES, {"tint": -0.7}, **settings).images
            ratio = (decoded[-1].max() - decoded[-1].min()) / (decoded[-2].max() - decoded[-2].min())
            expected = (decoded[-1] + (2 * factual - 1 - decoded[-2]) * ratio) / 2 + 0.5
            torch.testing.assert_close(images, expected.clamp(0, 1), atol=0.01, rtol=0)
            assert (images - factual).abs().max() > 1e-3

    def test_denoiser_is_for_the_residual_that_it_was_trained_for(self, way):
        components = get_random_graph_pipe(way, with_encoder=True, predictor=None).components
        components["unet"].register_to_config(_trained_with={"value_range": [-1, 1]})
        components["encoder"].register_to_config(residual_std=0.2)
        with pytest.raises(ValueError, match="`encoder` expects the `residual_std` that `unet` was.* None, got 0.2"):
            DiffSCMGraphCounterfactualPipeline(**components)

    def test_is_not_told_to_a_predictor_twice(self, way):
        """With a code, a denoiser is the mechanism: at scale 1 the predictor adds nothing."""
        alone, beside = (
            get_random_graph_pipe(way, with_encoder=True, predictor=predictor)(
                get_dummy_image(), ATTRIBUTES, {"tint": -0.7}, **STEPS
            ).images
            for predictor in (None, CausalPredictor2DModel(WIDTHS, 8, 1, **SHARED))
        )
        torch.testing.assert_close(alone, beside, atol=0, rtol=0)


class TestOutputs:
    def test_shapes_of_draws(self):
        pipe = get_random_graph_pipe(with_encoder=True, edges=EDGE)
        output = pipe(get_dummy_image(), ATTRIBUTES, {"thickness": [4.0, 5.0, 6.0]}, num_draws=4, **STEPS)
        assert output.images.shape == (4, 3, 1, 8, 8) and output.outside_support.shape == (4, 3)
        assert output.exogenous_noise.shape == (4, 1, 1, 8, 8) and output.code.shape == (4, 1, 7)
        assert output.attributes["tint"].shape == (1,) and output.attribute_noise["tint"].shape == (4, 1)
        assert output.remainder.shape == (4, 1, 1, 8, 8)
        mean, std = output.mean_and_std()
        torch.testing.assert_close(mean, output.images.mean(dim=0))
        torch.testing.assert_close(std, output.images.std(dim=0))
        assert output.counterfactual_attributes["thickness"].tolist() == [[4.0, 5.0, 6.0]] * 4
        images = pipe(get_dummy_image(2), ATTRIBUTES, {"tint": 0.0}, num_inference_steps=2, num_draws=3).images
        assert [len(draw) for draw in images] == [2, 2, 2] and images[0][0].size == (8, 8)
        images = pipe(get_dummy_image(2), ATTRIBUTES, num_inference_steps=2, output_type="np").images
        assert images.shape == (2, 8, 8, 1)

    def test_draws_generator_and_batch_size(self):
        pipe, factuals = get_random_graph_pipe(with_encoder=True), get_dummy_image(3)
        first, again, other = (
            pipe(
                factuals,
                ATTRIBUTES,
                {"tint": [-0.5, 0.0, 0.5]},
                num_draws=2,
                generator=torch.Generator().manual_seed(seed),
                batch_size=size,
                **STEPS,
            ).images
            for seed, size in ((0, None), (0, 2), (1, None))
        )
        torch.testing.assert_close(first, again, atol=1e-5, rtol=0)
        assert (first - other).abs().max() > 1e-3
        assert (first[0] - first[1]).abs().max() > 1e-4

    def test_codes_deviate_with_the_distance_between_the_causes(self):
        pipe, factuals = get_random_graph_pipe(with_encoder=True), get_dummy_image(2)
        attributes = {"thickness": [3.0, 4.0], "tint": [0.1, 0.2]}

        def draw(transfer_scale):
            pipe.encoder.register_to_config(transfer_scale=transfer_scale)
            generator = torch.Generator().manual_seed(0)
            return pipe(factuals, attributes, {"tint": [0.1, 0.9]}, num_draws=2, generator=generator, **STEPS)

        decoded, decode = [], pipe.encoder.decode
        pipe.encoder.decode = lambda *args: decoded.append(args[0]) or decode(*args)
        certain, uncertain = draw(0.0), draw(2.0)
        for name in ("exogenous_noise", "code", "remainder"):
            assert torch.equal(certain[name], uncertain[name])
        # Abduction and prediction decode one code of each draw and factual.
        factual, counterfactual = (codes.unflatten(0, (2, 2)) for codes in decoded[2:])
        assert torch.equal(factual[:, 0], counterfactual[:, 0])
        assert (factual[:, 1] - counterfactual[:, 1]).abs().max() > 1e-3

    def test_tuple(self):
        pipe = get_random_graph_pipe()
        output = pipe(get_dummy_image(), ATTRIBUTES, {"tint": 0.5}, return_dict=False, **STEPS)
        assert isinstance(output, tuple) and output[0].shape == (1, 1, 8, 8) and "tint" in output[2]

    def test_call_is_abduction_and_prediction(self):
        pipe, factuals = get_random_graph_pipe(with_encoder=True, edges=EDGE), get_dummy_image(2)
        do = {"thickness": [6.0, 4.0]}
        together = pipe(factuals, ATTRIBUTES, do, **STEPS)
        noise = pipe.abduct(factuals, ATTRIBUTES, num_inference_steps=3)
        torch.testing.assert_close(pipe.predict(noise, do, output_type="pt").images, together.images, atol=0, rtol=0)

    def test_schedulers_are_left_alone(self):
        pipe = get_random_graph_pipe()
        before = dict(vars(pipe.inverse_scheduler))
        pipe(get_dummy_image(), ATTRIBUTES, {"tint": 0.5}, **STEPS)
        assert dict(vars(pipe.inverse_scheduler)) == before and pipe.scheduler.num_inference_steps is None


class TestSweep:
    def test_is_every_factual_under_every_value(self):
        pipe, factuals = get_random_graph_pipe(with_encoder=True, edges=EDGE), get_dummy_image(2)
        evaluations = record_evaluations(pipe.unet)
        output = pipe.sweep(factuals, "thickness", [4.0, 5.0, 6.0], ATTRIBUTES, {"tint": [0.1, -0.1]}, **STEPS)
        assert evaluations == [2, 2, 2, 6, 6, 6]
        assert output.images.shape == (2, 3, 1, 8, 8)
        assert output.counterfactual_attributes["thickness"].tolist() == [[4.0, 5.0, 6.0]] * 2
        for i, tint in enumerate((0.1, -0.1)):
            for j, thickness in enumerate((4.0, 5.0, 6.0)):
                do = {"thickness": thickness, "tint": tint}
                image = pipe(factuals[i], ATTRIBUTES, do, **STEPS).images[0]
                torch.testing.assert_close(output.images[i, j], image, atol=1e-4, rtol=0)

    def test_as_one_call_for_one_factual(self):
        pipe = get_random_graph_pipe()
        call = pipe(get_dummy_image(), ATTRIBUTES, {"thickness": [4.0, 5.0]}, **STEPS).images
        sweep = pipe.sweep(get_dummy_image(), "thickness", [4.0, 5.0], ATTRIBUTES, **STEPS).images
        torch.testing.assert_close(sweep[0], call, atol=0, rtol=0)

    def test_axes_of_draws_and_pil_images(self):
        pipe = get_random_graph_pipe()
        images = pipe.sweep(
            get_dummy_image(2), "tint", [0.0, 0.1, 0.2], ATTRIBUTES, num_draws=4, num_inference_steps=2
        ).images
        assert len(images) == 4 and {len(rows) for rows in images} == {2}
        assert {len(row) for rows in images for row in rows} == {3}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"values": []}, "`values` expects at least one value of 'tint'"),
            ({"values": 0.3}, "`values` expects at least one value of 'tint' in a list or an array, got 0.3"),
            ({"values": [0.3, 2.0]}, "tint.* expects values in"),
            ({"node": "size"}, "expects attributes among .* got 'size'"),
            ({"do": {"tint": 0.1}}, "`do` expects other attributes than `node`, got 'tint'"),
            ({"hold": "tint"}, "`hold` expects nodes that `do` does not set, got 'tint'"),
            ({"do": {"thickness": [4.0, 5.0]}}, "`do` expects one value of each attribute for one factual, got 2"),
        ],
    )
    def test_errors(self, changes, message):
        arguments = {"image": get_dummy_image(), "node": "tint", "values": [0.1], "attributes": ATTRIBUTES, **STEPS}
        with pytest.raises(ValueError, match=message):
            get_random_graph_pipe().sweep(**{**arguments, **changes})


@pytest.mark.parametrize("max_iterations", [0, 1.5])
def test_wrong_numbers_of_iterations_are_refused(max_iterations):
    message = f"`max_iterations` expects a whole number of at least 1, got {max_iterations}"
    with pytest.raises(ValueError, match=message):
        get_random_graph_pipe().abduct(
            get_dummy_image(), ATTRIBUTES, max_iterations=max_iterations, num_inference_steps=3
        )


@pytest.mark.parametrize(
    ("name", "copy", "original"),
    [
        *(
            (name, DiffSCMGraphCounterfactualPipeline, DiffSCMCounterfactualPipeline)
            for name in ("from_pretrained", "from_pipe", "_dict_from_json_file", "prepare_image", "check_finite")
        ),
        ("check_trained_with", pipeline_diffscm_graph, pipeline_diffscm_counterfactual),
        ("check_trained_with", pipeline_diffscm_semantic, pipeline_diffscm_counterfactual),
        ("mean_and_std", DiffSCMGraphPipelineOutput, DiffSCMSemanticPipelineOutput),
        *(
            (name, pipeline_diffscm_graph, pipeline_diffscm_semantic)
            for name in ("check_residual_std", "check_dequantize", "check_noise_decay")
        ),
        *(
            (name, DiffSCMGraphCounterfactualPipeline, DiffSCMSemanticCounterfactualPipeline)
            for name in ("draw_lowest_noise", "transfer_noise")
        ),
    ],
)
def test_copies_are_equal(name, copy, original):
    def body(owner):
        source = inspect.getsource(getattr(owner, name))
        return [line for line in source.splitlines() if "# Copied from" not in line]

    assert body(copy) == body(original)


class TestCauses:
    """What the networks were told in training is compared with the graph."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (lambda causes: causes[::-1], "the image's parents .* got one trained on .'tint', 'thickness'."),
            (lambda causes: causes[:1], "the image's parents .* got one trained on .'thickness'."),
            (
                lambda causes: [[causes[0][0], {**causes[0][1], "range": [0, 9]}], causes[1]],
                "'thickness' as it is in `scm.graph`.* got one trained on .*9",
            ),
        ],
    )
    @pytest.mark.parametrize("name", ["unet", "predictor", "encoder"])
    def test_other_causes_are_refused(self, name, changes, message):
        networks = {
            "unet": CausalUNet2DModel(WIDTHS, 8, 2, 1, up_block_types=("UpBlock2D",), **SHARED),
            "predictor": CausalPredictor2DModel(WIDTHS, 8, 1, **SHARED),
            "encoder": SemanticEncoder2DModel(8, 2, code_dim=7, block_out_channels=(4, 4, 4), hidden_features=8),
        }
        scm = StructuralCausalModel(get_random_graph_pipe().scm.graph, hidden_features=4, num_bins=2)
        nodes = scm.graph.to_dict()["nodes"]
        causes = [[cause, nodes[cause]] for cause in scm.graph.image_parents]
        for network in networks.values():
            network.register_to_config(_trained_with={"causes": causes})
        DiffSCMGraphCounterfactualPipeline(scheduler=DDPMScheduler(), inverse_scheduler=None, scm=scm, **networks)
        networks[name].register_to_config(_trained_with={"causes": changes(causes)})
        with pytest.raises(ValueError, match=f"`{name}` expects a network trained on {message}"):
            DiffSCMGraphCounterfactualPipeline(scheduler=DDPMScheduler(), inverse_scheduler=None, scm=scm, **networks)


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            (
                {"attributes": {"tint": 0.0}},
                ValueError,
                "`attributes` expects a value of 'thickness', .* no predictor",
            ),
            ({"attributes": None}, ValueError, "`attributes` expects a value of 'thickness', 'tint'"),
            ({"attributes": {**ATTRIBUTES, "size": 1}}, ValueError, "`attributes` expects .* got 'size'"),
            ({"attributes": {**ATTRIBUTES, "tint": 2.0}}, ValueError, "tint.* expects values in"),
            ({"attributes": {**ATTRIBUTES, "tint": float("nan")}}, ValueError, "tint.* expects values in"),
            ({"attributes": {**ATTRIBUTES, "tint": [0.1] * 3}}, ValueError, "tint.* expects one value or shape"),
            ({"attributes": [1.0]}, TypeError, "`attributes` expects a `dict`"),
            ({"do": {"size": 1}}, ValueError, "`do` expects .* got 'size'"),
            ({"do": {"image": 1}}, ValueError, "`do` expects .* got 'image', which is the image"),
            ({"do": {"tint": "dark"}}, TypeError, "tint.* expects numbers, got 'dark'"),
            ({"do": {"tint": []}}, ValueError, "tint.* expects one value or shape"),
            ({"do": ["tint"]}, TypeError, "`do` expects a `dict` of attributes to values, got list"),
            ({"hold": "thickness"}, ValueError, "`hold` expects nodes that `do` does not set, got 'thickness'"),
            ({"hold": ["size"]}, ValueError, "`hold` expects attributes among .* got 'size'"),
            ({"guidance_scale": -1.0}, ValueError, "`guidance_scale` expects a number of at least 0"),
            ({"guidance_scale": {"set": 1.0}}, ValueError, "`guidance_scale` expects .* 'intervened'.*'set'"),
            ({"guidance_scale": {"kept": "1"}}, ValueError, "`guidance_scale` expects"),
            ({"num_draws": 0}, ValueError, "`num_draws` expects a whole number of at least 1, got 0"),
            ({"batch_size": 1.5}, ValueError, "`batch_size` expects a whole number"),
            ({"abduction": "exact"}, ValueError, "`abduction` expects one of .*'implicit'.* got 'exact'"),
            ({"abduction": "implicit", "tolerance": -1}, ValueError, "`tolerance`"),
            ({"output_type": "jpg"}, ValueError, "`output_type` expects 'pil', 'np' or 'pt', got 'jpg'"),
            ({"generator": 3}, TypeError, "`generator` expects a `torch.Generator`, got int"),
            ({"num_inference_steps": 0}, ValueError, "`num_inference_steps`"),
            ({"num_inference_steps": 1, "num_draws": 2}, ValueError, "`num_inference_steps` expects at least 2 where"),
            ({"image": torch.full((1, 1, 8, 8), 2.0)}, ValueError, "`image` expects values in"),
        ],
    )
    def test_call(self, changes, error, message):
        arguments = {"image": get_dummy_image(2), "attributes": ATTRIBUTES, "do": {"thickness": 6.0}, **STEPS}
        with pytest.raises(error, match=message):
            get_random_graph_pipe()(**{**arguments, **changes})

    @pytest.mark.parametrize(
        ("way", "changes", "message"),
        [
            ("conditional", {"encoder": SemanticEncoder2DModel(8, 2, code_dim=7)}, "`unet` expects 2 input channel"),
            ("joint", {"predictor": None}, "`unet` expects a `CausalUNet2DModel`.* got a UNet2DModel alone"),
            (
                "conditional",
                {"unet": CausalUNet2DModel(WIDTHS_TURNED, 8, 1, 1, up_block_types=("UpBlock2D",), **SHARED)},
                "`unet` expects the image's parents .*'thickness': 1, 'tint': 1.*, got .*'tint': 1, 'thickness': 1",
            ),
            (
                "joint",
                {"predictor": CausalPredictor2DModel({"thickness": 1, "tint": 2}, 8, 1, **SHARED)},
                "`predictor` expects the image's parents",
            ),
            (
                "joint",
                {"predictor": CausalPredictor2DModel(WIDTHS, 16, 1, **SHARED)},
                "`predictor` expects images of 1 channel.*, 8 pixels .* got 1 channel.* and 16 pixels",
            ),
            ("conditional", {"default_guidance_scale": -1.0}, "`guidance_scale` expects a number of at least 0"),
            ("conditional", {"default_abduction": "exact"}, "`default_abduction`.* `abduction` expects one of"),
            ("conditional", {"default_tolerance": 0}, "`default_tolerance` cannot be made: `tolerance` expects"),
        ],
    )
    def test_components_that_do_not_fit(self, way, changes, message):
        with pytest.raises(ValueError, match=message):
            get_random_graph_pipe(way, **changes)

    def test_encoder_of_other_causes(self):
        encoder = SemanticEncoder2DModel(8, 3, code_dim=7)
        with pytest.raises(ValueError, match="`encoder` expects a `condition_dim` of 2, .* got 3"):
            DiffSCMGraphCounterfactualPipeline(
                CausalUNet2DModel(WIDTHS, 8, 2, 1, up_block_types=("UpBlock2D",), **SHARED),
                DDIMScheduler(),
                None,
                get_random_graph_pipe().scm,
                encoder=encoder,
            )

    def test_scale_without_a_predictor(self):
        pipe = get_random_graph_pipe("unconditional", with_encoder=True, predictor=None)
        with pytest.raises(ValueError, match="`guidance_scale` expects 1 without a predictor, got 2.0"):
            pipe(get_dummy_image(), ATTRIBUTES, guidance_scale=2.0, **STEPS)

    def test_draws_with_a_scheduler_of_two_samples(self):
        pipe = get_random_graph_pipe(scheduler=DiffSCMBELMScheduler())
        with pytest.raises(ValueError, match="`num_draws` expects None with DiffSCMBELMScheduler"):
            pipe(get_dummy_image(), ATTRIBUTES, num_draws=2, **STEPS)
        with pytest.raises(ValueError, match="`dequantize` expects False with DiffSCMBELMScheduler"):
            DiffSCMGraphCounterfactualPipeline(**pipe.components, dequantize=True)
        with pytest.raises(TypeError, match="`dequantize` expects True or False, got 1"):
            DiffSCMGraphCounterfactualPipeline(**pipe.components, dequantize=1)

    def test_scheduler_that_cannot_be_inverted(self):
        assert get_random_graph_pipe(scheduler=DDPMScheduler()).scheduler.is_invertible
        pipe = get_random_graph_pipe()
        pipe.scheduler = DDPMScheduler()
        with pytest.raises(ValueError, match="`scheduler` expects one whose moves can be inverted"):
            pipe(get_dummy_image(), ATTRIBUTES, **STEPS)


class TestSavingAndLoading:
    def test_round_trip(self, tmp_path):
        graph = CausalGraph(
            {
                "thickness": {"kind": "continuous", "range": [0, 10]},
                "intensity": {"kind": "continuous", "range": [0, 255], "unit": "grey levels"},
                "digit": {"kind": "categorical", "labels": ["one", "two", "three"]},
            },
            [["thickness", "intensity"], *([name, "image"] for name in ("thickness", "intensity", "digit"))],
        )
        generator = torch.Generator().manual_seed(0)
        thickness = 2 + 6 * torch.rand(200, generator=generator)
        table = {
            "thickness": thickness,
            "intensity": 20 * thickness + 10 * torch.rand(200, generator=generator),
            "digit": torch.randint(0, 3, (200,), generator=generator),
        }
        pipe = DiffSCMGraphCounterfactualPipeline(
            CausalUNet2DModel(graph.condition_widths, 8, 2, 1, up_block_types=("UpBlock2D",), **SHARED),
            DDIMScheduler(clip_sample=False),
            None,
            StructuralCausalModel(graph).fit(table, num_steps=20, progress_bar=False),
            CausalPredictor2DModel(graph.condition_widths, 8, 1, **SHARED),
            SemanticEncoder2DModel(8, 5, code_dim=7, block_out_channels=(4, 4, 4)),
            default_num_inference_steps=2,
            default_guidance_scale={"intervened": 2.0},
        )
        call = {"image": get_dummy_image(), "attributes": {"thickness": 4.0}, "do": {"thickness": 4.5}}
        call |= {"num_draws": 2, "output_type": "pt"}
        pipe.save_pretrained(tmp_path)
        loaded = DiffSCMGraphCounterfactualPipeline.from_pretrained(tmp_path)
        for p in (pipe, loaded):
            p.set_progress_bar_config(disable=True)
        expected, got = (p(**call, generator=torch.Generator().manual_seed(0)) for p in (pipe, loaded))
        torch.testing.assert_close(got.images, expected.images, atol=0, rtol=0)
        assert got.read_attributes == expected.read_attributes and set(got.read_attributes) == {"intensity", "digit"}
        assert loaded.config.default_guidance_scale == {"intervened": 2.0}
