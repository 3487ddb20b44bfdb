# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A call works on copies of the schedulers, so that a pipeline can be shared."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from diffusers import SchedulerMixin

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMCounterfactualPipeline, DiffSCMDDIMScheduler

from .dummies import GUIDED, get_dummy_image, get_dummy_pipe
from .test_own_schedulers import CoupledScheduler


SCHEDULERS = {
    "ddim": lambda config: DiffSCMDDIMScheduler.from_config(config),
    "quadratic": lambda config: DiffSCMDDIMScheduler.from_config(config, timestep_spacing="quadratic"),
    "belm": lambda config: DiffSCMBELMScheduler.from_config(config),
    "own": lambda config: CoupledScheduler(),
}


def get_pipe(scheduler):
    pipe = get_dummy_pipe()
    pipe = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, SCHEDULERS[scheduler](pipe.scheduler.config))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def state(scheduler):
    """All that a scheduler holds, in a form that can be compared."""
    if isinstance(scheduler, SchedulerMixin):
        return {name: state(value) for name, value in vars(scheduler).items()}
    return scheduler.tolist() if torch.is_tensor(scheduler) else scheduler


class TestSchedulersStayAsTheyAre:
    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    @pytest.mark.parametrize("call", ("__call__", "abduct", "predict", "sample"))
    def test_after_a_call(self, scheduler, call):
        pipe = get_pipe(scheduler)
        pipe.scheduler.set_timesteps(6)  # somebody else's
        pipe.inverse_scheduler.set_timesteps(6)
        before = state(pipe.scheduler), state(pipe.inverse_scheduler)
        {
            "__call__": lambda: pipe(get_dummy_image(), 1, **GUIDED),
            "abduct": lambda: pipe.abduct(get_dummy_image(), num_inference_steps=4),
            "predict": lambda: pipe.predict(torch.randn(1, 1, 8, 8), 1, **GUIDED),
            "sample": lambda: pipe.sample(1, **GUIDED),
        }[call]()
        assert (state(pipe.scheduler), state(pipe.inverse_scheduler)) == before

    @pytest.mark.filterwarnings("ignore:Implicit abduction")
    @pytest.mark.parametrize("abduction", ("source", "destination", "implicit"))
    def test_after_each_kind_of_abduction(self, pipe, abduction):
        before = state(pipe.scheduler), state(pipe.inverse_scheduler)
        pipe(get_dummy_image(), 1, **{**GUIDED, "num_inference_steps": 2}, abduction=abduction)
        assert (state(pipe.scheduler), state(pipe.inverse_scheduler)) == before

    def test_after_a_call_that_was_interrupted(self, pipe):
        def interrupt(pipe, step, timestep, callback_kwargs):
            raise KeyboardInterrupt

        before, expected = state(pipe.scheduler), pipe(get_dummy_image(), 1, **GUIDED).images
        with suppress(KeyboardInterrupt):
            pipe(get_dummy_image(), 1, **GUIDED, callback_on_step_end=interrupt)
        assert state(pipe.scheduler) == before
        assert torch.equal(pipe(get_dummy_image(), 1, **GUIDED).images, expected)


class TestThreads:
    """Calls of all kinds, 8 at a time, on one pipeline: bit for bit what they give one after another."""

    @pytest.mark.filterwarnings("ignore:Implicit abduction")
    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    def test_calls_at_once_are_calls_in_turn(self, scheduler):
        pipe = get_pipe(scheduler)
        abductions = {"ddim": ("source", "implicit"), "quadratic": ("source", "destination")}.get(scheduler, (None,))
        calls = [
            {
                "image": get_dummy_image(3)[i % 3],
                "intervention": [i % 3, (i + 1) % 3],
                "num_inference_steps": (2, 4)[i // 2 % 2],
                "guidance_scale": (0, 10.0, 30.0)[i % 3],
                "abduction": abductions[i % len(abductions)],
            }
            for i in range(16)
        ]

        def run(call):
            output = pipe(**call, output_type="pt")
            return output.images, output.exogenous_noise, output.log_probs

        expected = [run(call) for call in calls]
        together = threading.Barrier(8)

        def run_at_once(i):
            if i < 8:
                together.wait(timeout=60)
            return run(calls[i])

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(run_at_once, range(len(calls))))
        for call, result, reference in zip(calls, results, expected, strict=True):
            for value, other in zip(result, reference, strict=True):
                assert value is other is None or torch.equal(value, other), call
