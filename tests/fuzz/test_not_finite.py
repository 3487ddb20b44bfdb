# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""NaN and infinity, wherever they come from, end in an error that says where, not in a result."""

import copy

import pandas as pd
import pytest
import torch
from diffusers import UNet2DModel

from diffscm_diffusers import DiffSCMCounterfactualPipeline, StructuralCausalModel
from diffscm_diffusers.evaluation.scores import Scorer
from diffscm_diffusers.evaluation.summary import summarize
from diffscm_diffusers.finite import check_finite_numbers
from diffscm_diffusers.guidance import GuidanceScaleSearch, posterior_mean
from diffscm_diffusers.hub.cards import make_pipeline_card
from diffscm_diffusers.metrics import CRPS, DistanceCorrelation, ExogenousNoiseLaw, probe, probe_accuracy
from diffscm_diffusers.metrics.functional import distance_correlation, exogenous_noise_law

from ..pipelines.dummies import get_dummy_components, get_dummy_image, get_dummy_pipe
from ..pipelines.graph_dummies import get_graph
from ..pipelines.test_semantic import get_semantic_pipe
from .table import INF, NAN


def broken(model, value=NAN):
    """A network with one weight that is not finite in its last layer."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        list(model.parameters())[-1].fill_(value)
    return model


def get_class_pipe(**components):
    """A pipeline whose denoiser knows the classes: the predictor reads those of the factuals, and guides nothing."""
    made = get_dummy_components()
    made["unet"] = UNet2DModel.from_config(made["unet"].config, num_class_embeds=4)
    pipe = DiffSCMCounterfactualPipeline(**{**made, **components})
    pipe.set_progress_bar_config(disable=True)
    return pipe


QUICK = {"num_inference_steps": 2, "output_type": "pt"}


class TestPipelines:
    @pytest.mark.parametrize("value", [NAN, INF])
    def test_posterior_mean(self, value):
        pipe = get_dummy_pipe()
        pipe.unet = broken(pipe.unet, value)
        with pytest.raises(ValueError, match=r"posterior mean is not finite .*timestep 400: .* \['unet'\]"):
            posterior_mean(pipe, get_dummy_image(), 1, 400, 2, output_type="pt")

    def test_class_that_the_predictor_reads(self):
        pipe = get_class_pipe(classifier=broken(get_dummy_components()["classifier"]))
        with pytest.raises(ValueError, match="`classifier` expects to read .* got NaN"):
            pipe(get_dummy_image(), 1, **QUICK)

    def test_class_that_the_semantic_pipelines_predictor_reads(self):
        pipe = get_semantic_pipe()
        pipe.classifier = broken(pipe.classifier)
        with pytest.raises(ValueError, match="`classifier` expects to read .* got NaN"):
            pipe(get_dummy_image(), 1, **QUICK)

    def test_log_probabilities(self):
        pipe = get_class_pipe(classifier=broken(get_dummy_components()["classifier"]))
        with pytest.raises(ValueError, match="`classifier` expects to give finite log-prob"):
            pipe(get_dummy_image(), 1, factual_class=0, **QUICK)

    def test_scale_search(self):
        pipe = get_class_pipe(classifier=broken(get_dummy_components()["classifier"]))
        references = get_dummy_image().repeat(6, 1, 1, 1)
        search = GuidanceScaleSearch(pipe, references, torch.arange(6) % 3, num_candidates=1)
        with pytest.raises(ValueError, match="`classifier` expects to read .* got NaN"):
            search(get_dummy_image(), 1, **QUICK)

    def test_encoder_of_a_scale_search(self):
        references = get_dummy_image().repeat(6, 1, 1, 1)
        with pytest.raises(ValueError, match="`encode_mean` expects finite values, got NaN"):
            GuidanceScaleSearch(
                get_dummy_pipe(), references, torch.arange(6) % 3, lambda x: (x.flatten(1) * NAN, x.flatten(1) + 1)
            )


class TestStructuralCausalModel:
    graph = get_graph()
    values = {"thickness": [5.0], "tint": [0.1]}
    noise = dict.fromkeys(graph.attributes, torch.zeros(1))

    @pytest.mark.parametrize(
        "call",
        [
            lambda scm, values, noise: scm.abduct(values),
            lambda scm, values, noise: scm.log_prob(values),
            lambda scm, values, noise: scm.predict(noise),
            lambda scm, values, noise: scm.sample(3),
            lambda scm, values, noise: scm.counterfactual(values, {"tint": 0.2}),
        ],
        ids=["abduct", "log_prob", "predict", "sample", "counterfactual"],
    )
    def test_weights(self, call):
        scm = broken(StructuralCausalModel(self.graph, hidden_features=2, num_bins=2))
        with pytest.raises(ValueError, match="mechanism of 'tint' expects finite weights"):
            call(scm, self.values, self.noise)

    def test_fit_that_ends_in_no_number(self, monkeypatch):
        log_prob = StructuralCausalModel._log_prob
        # As if the last step had led there, after which no loss is seen.
        monkeypatch.setattr(
            StructuralCausalModel,
            "_log_prob",
            lambda self, values: log_prob(self, values) if torch.is_grad_enabled() else torch.full((8,), NAN),
        )
        table = pd.DataFrame({"thickness": torch.rand(8) * 10, "tint": torch.rand(8)})
        scm = StructuralCausalModel(self.graph, hidden_features=2, num_bins=2)
        with pytest.raises(ValueError, match="`learning_rate` of 0.005 led to log-densities that are not finite"):
            scm.fit(table, num_steps=1, progress_bar=False)


class TestScores:
    @pytest.mark.parametrize("value", [NAN, INF])
    def test_of_an_evaluation(self, value):
        samples = pd.DataFrame({"im1": [0.5, 0.5, 0.5], "im2": [0.5, 0.5, 0.5]})
        samples.loc[1, "im2"] = value
        with pytest.raises(ValueError, match=f"`im2` expects finite scores, got {value} for pair 1"):
            summarize(samples, seed=0, num_resamples=10)

    def test_latents_of_an_evaluation(self):
        class Images(list):
            def images(self, index):
                return get_dummy_image()[index]

        class Broken(Scorer):
            def __init__(self):
                self.batch_size, self.accelerator = 1, torch.ones(1)
                self.models = torch.nn.Module()
                self.models.vae = torch.nn.Module()
                self.models.vae.encode = lambda image: (image.flatten(1) * NAN, image.flatten(1))

            def progress_bar(self, batches, description):
                return batches

        with pytest.raises(ValueError, match="`vae_mean` expects finite values, got NaN"):
            Broken().encode(Images([0]), "Encoding")

    def test_written_as_json(self):
        with pytest.raises(ValueError, match=r"`search\['scales'\]\[1\]\['mean'\]` expects a finite number, got nan"):
            check_finite_numbers({"chosen": None, "scales": [{"mean": 1}, {"mean": NAN}]}, "search")
        check_finite_numbers({"chosen": None, "scales": [{"mean": 1, "name": "nan"}]}, "search")

    def test_on_a_card(self):
        method = {"settings": {}, "scores": {"l1": {"mean": INF}}, "seconds": 1.0}
        with pytest.raises(ValueError, match=r"\['l1'\]\['mean'\]` expects a finite number, got inf"):
            make_pipeline_card(get_dummy_pipe(), "pipe", summary={"num_pairs": 1, "methods": {"diff-scm": method}})


class TestMetrics:
    def test_results(self):
        metric = CRPS()
        with pytest.raises(ValueError, match="`CRPS` expects finite results, got NaN or infinity"):
            metric.update(torch.tensor([[3e38], [-3e38]]), torch.tensor([3e38]))

    @pytest.mark.parametrize("noise", [torch.ones(4, 2), torch.tensor([[1e100, -1e100]], dtype=torch.float64)])
    def test_law_of_noise(self, noise):
        with pytest.raises(ValueError, match="`noise` expects values that differ and have finite fourth powers"):
            exogenous_noise_law(noise)
        metric = ExogenousNoiseLaw()
        metric.update(noise)
        with pytest.raises(ValueError, match="`noise` expects values that differ and have finite fourth powers"):
            metric.compute()

    def test_distance_correlation(self):
        noise = torch.tensor([[3e38], [2e299], [3e299], [-1e300]], dtype=torch.float64)
        with pytest.raises(ValueError, match="`noise` and `cause` expect values whose fourth powers are finite"):
            distance_correlation(noise, torch.arange(4), 1)
        metric = DistanceCorrelation(num_permutations=1)
        metric.update(noise, torch.arange(4))
        with pytest.raises(ValueError, match="`noise` and `cause` expect values"):
            metric.compute()

    def test_probe(self, monkeypatch):
        monkeypatch.setattr(probe, "NUM_STEPS", 1)
        noise = torch.full((20, 99), 3e38)
        with pytest.raises(ValueError, match="`noise` expects values that a probe can learn from, got up to 3e\\+38"):
            probe_accuracy(noise, torch.arange(20) % 2)
