# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What only a GPU can show. On a machine without one nothing of this runs."""

import pytest
import torch

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMCounterfactualPipeline

from .dummies import get_dummy_image, get_dummy_pipe


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def factuals():
    return get_dummy_image(batch=3)


def run(pipe, factuals, **settings) -> torch.Tensor:
    settings = {"guidance_scale": 30.0, "num_inference_steps": 5, **settings}
    return pipe(factuals, [1, 2, 0], output_type="pt", **settings).images.cpu()


@pytest.mark.filterwarnings("ignore:Implicit abduction")
@pytest.mark.parametrize("abduction", ["source", "destination", "implicit"])
def test_shows_what_the_cpu_shows(factuals, abduction):
    expected = run(get_dummy_pipe(), factuals, abduction=abduction)
    torch.testing.assert_close(
        run(get_dummy_pipe().to("cuda"), factuals, abduction=abduction), expected, rtol=0, atol=1e-3
    )


def test_belm_round_trip_is_exact(factuals):
    pipe = get_dummy_pipe()
    belm = DiffSCMBELMScheduler.from_config(pipe.scheduler.config)
    pipe = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, belm).to("cuda")
    torch.testing.assert_close(run(pipe, factuals, guidance_scale=0), factuals, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights(factuals, dtype):
    expected = run(get_dummy_pipe(), factuals)
    half = run(get_dummy_pipe().to("cuda", dtype), factuals)
    assert (half - expected).abs().mean() < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(factuals, dtype):
    expected = run(get_dummy_pipe(), factuals)
    with torch.autocast("cuda", dtype=dtype):
        assert (run(get_dummy_pipe().to("cuda"), factuals) - expected).abs().mean() < 0.05


def test_model_cpu_offload_leaves_the_gpu_empty(factuals):
    expected = run(get_dummy_pipe(), factuals)
    pipe = get_dummy_pipe()
    pipe.enable_model_cpu_offload()
    torch.testing.assert_close(run(pipe, factuals), expected, rtol=0, atol=1e-3)
    assert pipe.unet.device.type == "cpu"


def test_memory_is_flat_in_the_number_of_steps(factuals):
    pipe = get_dummy_pipe().to("cuda")
    peaks = []
    for steps in (5, 5, 50):  # the first call loads kernels
        torch.cuda.reset_peak_memory_stats()
        run(pipe, factuals, num_inference_steps=steps)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= 1.01 * peaks[1]


@pytest.mark.slow
def test_compiled_networks(factuals):
    expected = run(get_dummy_pipe(), factuals)
    pipe = get_dummy_pipe().to("cuda")
    pipe.unet.compile()
    pipe.classifier.compile()
    torch.testing.assert_close(run(pipe, factuals), expected, rtol=0, atol=1e-3)
