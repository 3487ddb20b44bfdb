# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler

from diffscm_diffusers import DiffSCMCounterfactualPipeline, DiffSCMDDIMInverseScheduler

from .dummies import GUIDED, get_dummy_image, get_dummy_pipe


class TestContexts:
    @pytest.fixture(autouse=True)
    def expected(self, pipe):
        return pipe(get_dummy_image(2), [0, 1], **GUIDED)

    @pytest.mark.parametrize("context", (torch.no_grad, torch.inference_mode, torch.enable_grad))
    def test_gradient_modes(self, pipe, expected, context):
        pipe.classifier.conv_in.requires_grad_(False)
        before = [(p.requires_grad, p.clone()) for p in (*pipe.unet.parameters(), *pipe.classifier.parameters())]
        with context():
            output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert torch.equal(output.images, expected.images) and torch.equal(output.log_probs, expected.log_probs)
        assert not output.images.requires_grad and not output.exogenous_noise.requires_grad
        after = (*pipe.unet.parameters(), *pipe.classifier.parameters())
        for (requires_grad, value), parameter in zip(before, after, strict=True):
            assert parameter.requires_grad == requires_grad and parameter.grad is None
            assert torch.equal(parameter, value)

    @pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
    def test_half_weights(self, pipe, expected, dtype):
        output = pipe.to(dtype)(get_dummy_image(2), [0, 1], **GUIDED)
        assert output.exogenous_noise.dtype == output.log_probs.dtype == output.images.dtype == torch.float32
        assert (output.images - expected.images).abs().mean() < 0.02
        assert (output.log_probs - expected.log_probs).abs().max() < 0.1

    def test_autocast(self, pipe, expected):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert output.exogenous_noise.dtype == output.log_probs.dtype == output.images.dtype == torch.float32
        assert not torch.equal(output.images, expected.images)
        # Processors without bfloat16 of their own round more often.
        assert (output.images - expected.images).abs().mean() < 0.03

    def test_learned_variance_is_split_off(self, pipe, expected):
        learned = get_dummy_pipe(out_channels=2)
        weights = pipe.unet.state_dict()
        for name in ("conv_out.weight", "conv_out.bias"):
            weights[name] = torch.cat([weights[name], torch.randn_like(weights[name])])
        learned.unet.load_state_dict(weights)
        learned.classifier.load_state_dict(pipe.classifier.state_dict())
        output = learned(get_dummy_image(2), [0, 1], **GUIDED)
        torch.testing.assert_close(output.images, expected.images, rtol=0, atol=1e-6)

    def test_parts_of_a_ddpm_pipeline(self, pipe, expected):
        ddpm = DDPMPipeline(pipe.unet, DDPMScheduler())
        joined = DiffSCMCounterfactualPipeline(
            **ddpm.components, classifier=pipe.classifier, default_marginal_abduction=True
        )
        joined.set_progress_bar_config(disable=True)
        assert isinstance(joined.scheduler, DDIMScheduler) and not joined.scheduler.config.clip_sample
        assert isinstance(joined.inverse_scheduler, DiffSCMDDIMInverseScheduler)
        assert torch.equal(joined(get_dummy_image(2), [0, 1], **GUIDED).images, expected.images)

    def test_networks_are_run_through_their_offload_hooks(self, pipe, expected):
        # What `enable_model_cpu_offload` does, without an accelerator: a forward pass must call the hooks, and neither
        # network may push the other out while they take turns.
        moves = {"unet": [], "classifier": []}
        for name in moves:
            _, hook = cpu_offload_with_hook(getattr(pipe, name), execution_device="cpu")
            pre_forward = hook.hook.pre_forward

            def recorded(module, *args, name=name, pre_forward=pre_forward, **kwargs):
                moves[name].append(module)
                return pre_forward(module, *args, **kwargs)

            hook.hook.pre_forward = recorded
        output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert torch.equal(output.images, expected.images)
        assert (len(moves["unet"]), len(moves["classifier"])) == (8, 5)

    @pytest.mark.skipif(
        not (torch.cuda.is_available() or torch.backends.mps.is_available()), reason="offloads from an accelerator"
    )
    def test_model_cpu_offload(self, pipe, expected):
        pipe.enable_model_cpu_offload()
        output = pipe(get_dummy_image(2), [0, 1], **GUIDED)
        assert pipe.unet.device.type == pipe.classifier.device.type == "cpu"
        torch.testing.assert_close(output.images.cpu(), expected.images, rtol=0, atol=1e-2)


def test_networks_are_compiled_once_for_all_timesteps(pipe):
    graphs = {"unet": 0, "classifier": 0}

    def count(name):
        def backend(graph, inputs):
            graphs[name] += 1
            return graph

        return backend

    torch._dynamo.reset()
    expected = pipe(get_dummy_image(), "one", **GUIDED).images
    for name in graphs:
        getattr(pipe, name).compile(backend=count(name))
    torch.testing.assert_close(pipe(get_dummy_image(), "one", **GUIDED).images, expected)
    compiled = dict(graphs)
    pipe(get_dummy_image(), "two", **{**GUIDED, "num_inference_steps": 7})
    array = get_dummy_image()[0].movedim(0, -1).numpy()
    pipe(array, "two", **GUIDED)
    assert graphs == compiled and all(graphs.values())
