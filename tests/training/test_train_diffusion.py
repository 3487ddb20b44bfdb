# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import PIL.Image
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffscm_diffusers.training import trainer
from tests.helpers import load_script, start_script, to_argv


def test_loss_is_the_squared_error_of_the_noise_and_is_logged_with_samples(flags, monkeypatch):
    draws, calls = [], []
    draw_noise, forward = trainer.draw_noise, UNet2DModel.forward

    def record_draw(images, *args):
        noise, timesteps = draw_noise(images, *args)
        draws.append((images, noise, timesteps))
        return noise, timesteps

    def record_call(self, sample, timestep, *args, **kwargs):
        output = forward(self, sample, timestep, *args, **kwargs)
        if self.training:
            calls.append((sample, timestep, output.sample))
        return output

    monkeypatch.setattr(trainer, "draw_noise", record_draw)
    monkeypatch.setattr(UNet2DModel, "forward", record_call)
    load_script("train_diffusion").main(
        to_argv({**flags, "report_to": "tensorboard", "validation_steps": 1, "logging_steps": 1})
    )
    events = EventAccumulator(str(flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    abar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(dim=0)
    for (images, noise, timesteps), (noisy, t, predicted), loss in zip(draws, calls, losses, strict=True):
        scale = abar[timesteps].view(-1, 1, 1, 1)
        torch.testing.assert_close(noisy, scale.sqrt() * images + (1 - scale).sqrt() * noise)
        assert torch.equal(t, timesteps)
        assert loss == pytest.approx((predicted - noise).square().mean().item(), rel=1e-5)

    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert {"lr", "grad_norm"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("samples")] == [1, 2]
    grids = sorted((flags["output_dir"] / "samples").iterdir())
    assert [path.name for path in grids] == ["0000001.png", "0000002.png"]
    assert PIL.Image.open(grids[0]).size == (16, 16)


def test_bf16_keeps_float32_weights(flags, fresh_accelerate):
    load_script("train_diffusion").main(to_argv({**flags, "mixed_precision": "bf16"}))
    weights = load_file(flags["output_dir"] / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="float16 with loss scaling needs a CUDA device")
def test_fp16_with_loss_scaling(flags):
    argv = to_argv({**flags, "mixed_precision": "fp16", "max_train_steps": 20, "checkpointing_steps": 10})
    process = start_script("train_diffusion", argv, ACCELERATE_USE_CPU="false")
    process.join(timeout=100)
    assert process.exitcode == 0
    assert (flags["output_dir"] / "checkpoint-10" / "scaler.pt").is_file()
    weights = load_file(flags["output_dir"] / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in weights.values())


def test_learned_variance_is_refused(flags, tmp_path):
    config = json.loads(flags["model_config_name_or_path"].read_text())
    flags["model_config_name_or_path"] = tmp_path / "unet.json"
    flags["model_config_name_or_path"].write_text(json.dumps({**config, "out_channels": 2}))
    with pytest.raises(ValueError, match="The denoiser is expected to predict the noise alone.* 1, got .* 2 output"):
        load_script("train_diffusion").main(to_argv(flags))
