# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""50 threads on one object, with different settings: bit for bit what they give one after another."""

import copy
import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.guidance import posterior_mean

from ..baselines.helpers import get_schut_pipe, get_van_looveren_klaise_pipe
from .dummies import GUIDED, get_dummy_image, get_dummy_pipe
from .graph_dummies import get_random_graph_pipe
from .test_semantic import get_semantic_pipe
from .test_threads import state


NUM_THREADS = 50


def seeded(i):
    return torch.Generator().manual_seed(i)


def call_counterfactual(pipe, i):
    output = pipe(
        get_dummy_image(3)[i % 3],
        i % 3,
        num_inference_steps=2 + i % 3,
        guidance_scale=float(i % 4),
        eta=i % 2 / 2,
        generator=seeded(i),
        output_type="pt",
    )
    return output.images, output.exogenous_noise


def call_semantic(pipe, i):
    output = pipe(
        get_dummy_image(3)[i % 3],
        i % 3,
        num_inference_steps=2 + i % 3,
        num_draws=1 + i % 2,
        generator=seeded(i),
        output_type="pt",
    )
    return output.images, output.exogenous_noise, output.code


def call_graph(pipe, i):
    output = pipe(
        get_dummy_image(3)[i % 3],
        {"thickness": 5.0 + i % 3, "tint": 0.1},
        {"tint": i / 100},
        guidance_scale=1.0 + i % 2,
        num_inference_steps=2 + i % 3,
        output_type="pt",
    )
    return output.images, output.exogenous_noise


def call_predictor(model, i):
    images = get_dummy_image(3)[: 1 + i % 3] * 2 - 1
    return model.log_prob_gradient(images, i, torch.full((len(images),), i % 3))


def call_posterior_mean(pipe, i):
    image = get_dummy_image(3)[i % 3]
    return [posterior_mean(pipe, image, i % 3, 20 * i, 2, guidance_scale=i % 4, generator=seeded(i), output_type="pt")]


def call_baseline(pipe, i):
    output = pipe(get_dummy_image(3)[i % 3], i % 3, output_type="pt")
    return output.images, output.succeeded, output.num_iterations


OBJECTS = {
    "counterfactual": (get_dummy_pipe, call_counterfactual),
    "semantic": (get_semantic_pipe, call_semantic),
    "graph": (get_random_graph_pipe, call_graph),
    "predictor": (lambda: get_dummy_pipe().classifier, call_predictor),
    "posterior_mean": (get_dummy_pipe, call_posterior_mean),
    "schut": (functools.partial(get_schut_pipe, max_iterations=3), call_baseline),
    "van_looveren_klaise": (
        functools.partial(get_van_looveren_klaise_pipe, c_steps=1, max_iterations=2),
        call_baseline,
    ),
}


@pytest.mark.filterwarnings("ignore:.*less probable")
@pytest.mark.parametrize("name", OBJECTS)
def test_calls_of_50_threads_are_calls_in_turn(name):
    make, call = OBJECTS[name]
    shared = make()
    trainable = (
        [p.requires_grad for p in getattr(shared, "classifier", shared).parameters()] if name != "graph" else []
    )
    expected = [call(shared, i) for i in range(NUM_THREADS)]
    together = threading.Barrier(NUM_THREADS)

    def run(i):
        together.wait(timeout=60)
        return call(shared, i)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = list(pool.map(run, range(NUM_THREADS)))
    for i, (result, reference) in enumerate(zip(results, expected, strict=True)):
        assert all(torch.equal(value, other) for value, other in zip(result, reference, strict=True)), i
    if trainable:
        assert [p.requires_grad for p in getattr(shared, "classifier", shared).parameters()] == trainable


def test_schedulers_that_pipelines_share_are_not_changed():
    pipe = get_dummy_pipe()
    other = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, pipe.scheduler, pipe.inverse_scheduler)
    other.set_progress_bar_config(disable=True)
    pipe.scheduler.set_timesteps(7)
    before = copy.deepcopy((state(pipe.scheduler), state(pipe.inverse_scheduler)))
    other(get_dummy_image(), 1, **GUIDED)
    assert (state(pipe.scheduler), state(pipe.inverse_scheduler)) == before
