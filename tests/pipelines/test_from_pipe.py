# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""`from_pipe` makes a pipeline of the same networks, and neither changes what the other computes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import DDIMPipeline

from diffscm_diffusers import (
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMGraphCounterfactualPipeline,
    DiffSCMSemanticCounterfactualPipeline,
)

from ..baselines.helpers import get_schut_pipe, get_van_looveren_klaise_pipe
from .dummies import GUIDED, get_dummy_image, get_dummy_pipe
from .graph_dummies import get_random_graph_pipe
from .test_semantic import get_semantic_components, get_semantic_pipe
from .test_threads import state
from .test_threads_of_all import call_baseline, call_counterfactual, call_graph, call_semantic


PIPELINES = {
    "counterfactual": (get_dummy_pipe, call_counterfactual),
    "semantic": (get_semantic_pipe, call_semantic),
    "graph": (get_random_graph_pipe, call_graph),
    "schut": (lambda: get_schut_pipe(max_iterations=3), call_baseline),
    "van_looveren_klaise": (lambda: get_van_looveren_klaise_pipe(max_iterations=3), call_baseline),
}


def from_pipe(pipeline_class, pipe, **kwargs):
    made = pipeline_class.from_pipe(pipe, **kwargs)
    made.set_progress_bar_config(disable=True)
    return made


def settings(pipe):
    return {name: value for name, value in pipe.config.items() if name not in pipe.components and name[0] != "_"}


@pytest.mark.filterwarnings("ignore:.*less probable")
@pytest.mark.parametrize("name", PIPELINES)
class TestSamePipeline:
    def test_images_are_equal(self, name):
        make, call = PIPELINES[name]
        pipe = make()
        made = from_pipe(type(pipe), pipe)
        assert settings(made) == settings(pipe)
        assert all(torch.equal(value, other) for value, other in zip(call(made, 1), call(pipe, 1), strict=True))

    def test_threads_on_both_at_once(self, name):
        make, call = PIPELINES[name]
        pipe = make()
        pipes = pipe, from_pipe(type(pipe), pipe)
        expected = [call(pipe, i // 4) for i in range(8)]
        together = threading.Barrier(8)

        def run(i):
            together.wait(timeout=60)
            return call(pipes[i % 2], i // 4)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(run, range(8)))
        for i, (result, reference) in enumerate(zip(results, expected, strict=True)):
            assert all(torch.equal(value, other) for value, other in zip(result, reference, strict=True)), i


class TestNothingButNetworksIsShared:
    def test_networks_are_shared(self, pipe):
        made = from_pipe(DiffSCMCounterfactualPipeline, pipe)
        assert made.unet is pipe.unet and made.classifier is pipe.classifier

    def test_schedulers(self, pipe):
        made = from_pipe(DiffSCMCounterfactualPipeline, pipe)
        before = state(pipe.scheduler), state(pipe.inverse_scheduler)
        made.scheduler.set_timesteps(7)
        made.inverse_scheduler.set_timesteps(7)
        made.scheduler.alphas_cumprod *= 0.5
        assert (state(pipe.scheduler), state(pipe.inverse_scheduler)) == before

    def test_presets(self):
        pipe = get_dummy_pipe()
        pipe = DiffSCMCounterfactualPipeline(**pipe.components, presets={"fast": {"num_inference_steps": 2}})
        made = from_pipe(DiffSCMCounterfactualPipeline, pipe)
        made.config.presets["fast"]["num_inference_steps"] = 9
        assert pipe.presets == {"fast": {"num_inference_steps": 2}}

    def test_number_types_stay(self, pipe):
        pipe.unet.to(torch.bfloat16)
        made = from_pipe(DiffSCMCounterfactualPipeline, pipe)
        assert (made.unet.dtype, made.classifier.dtype) == (torch.bfloat16, torch.float32)


class TestOtherPipelines:
    def test_what_is_given_is_used(self, pipe):
        scheduler = DiffSCMBELMScheduler.from_config(pipe.scheduler.config)
        made = from_pipe(
            DiffSCMCounterfactualPipeline,
            pipe,
            scheduler=scheduler,
            inverse_scheduler=None,
            default_num_inference_steps=5,
        )
        assert made.scheduler is scheduler and isinstance(made.inverse_scheduler, DiffSCMBELMScheduler)
        assert made.config.default_num_inference_steps == 5
        assert pipe.config.default_num_inference_steps == 100

    def test_there_and_back_by_another_pipeline(self, pipe):
        pipe.register_to_config(default_guidance_scale=3.0)
        between = DDIMPipeline.from_pipe(pipe)
        back = from_pipe(DiffSCMCounterfactualPipeline, between, classifier=pipe.classifier)
        assert back.config.default_guidance_scale == 3.0
        call = {"image": get_dummy_image(), "intervention": 1, **GUIDED}
        assert torch.equal(back(**call).images, pipe(**call).images)

    def test_components_of_both(self, pipe):
        components = get_semantic_components()
        made = from_pipe(
            DiffSCMSemanticCounterfactualPipeline, pipe, unet=components["unet"], encoder=components["encoder"]
        )
        expected = DiffSCMSemanticCounterfactualPipeline(**{**components, "classifier": pipe.classifier})
        expected.set_progress_bar_config(disable=True)
        call = {"image": get_dummy_image(), "intervention": 1, "num_inference_steps": 2, "output_type": "pt"}
        assert torch.equal(made(**call).images, expected(**call).images)


class TestErrors:
    @pytest.mark.parametrize(
        ("pipeline", "kwargs", "error", "message"),
        [
            (None, {}, TypeError, "`pipeline` expects a pipeline, got NoneType"),
            (get_dummy_pipe, {}, ValueError, r"`pipeline` expects one with \['scm'\], .* got a DiffSCMCounter"),
            (get_random_graph_pipe, {"dtype": torch.float16}, TypeError, r"`kwargs` expects .* got \['dtype'\]"),
            (get_dummy_pipe, {"scm": 3}, TypeError, "`scm` expects a StructuralCausalModel, got int"),
        ],
    )
    def test_call(self, pipeline, kwargs, error, message):
        with pytest.raises(error, match=message):
            DiffSCMGraphCounterfactualPipeline.from_pipe(pipeline and pipeline(), **kwargs)
