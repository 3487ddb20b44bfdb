# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import math
import re
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffscm_diffusers.training import loop
from diffscm_diffusers.training.loop import anticausal_loss, denoising_loss, swapped_weights
from diffscm_diffusers.training.noise import draw_noise
from tests.helpers import load_script, run_script, start_script, to_argv


@pytest.fixture
def flags(image_folder, cache_dir, model_configs, tmp_path):
    return {
        "train_data_dir": image_folder,
        "cache_dir": cache_dir,
        "model_config_name_or_path": model_configs["unet"],
        "train_batch_size": 4,
        "max_train_steps": 2,
        "lr_warmup_steps": 1,
        "validation_grid_size": 2,
        "validation_inference_steps": 2,
        "output_dir": tmp_path,
        "report_to": "none",
    }


def test_denoising_loss_of_perfect_and_of_blind_prediction():
    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images, timesteps = torch.zeros_like(noise), torch.arange(64)

    def perfect(noisy_images, timesteps):
        return SimpleNamespace(sample=noise)

    def blind(noisy_images, timesteps):
        return SimpleNamespace(sample=torch.zeros_like(noise))

    assert denoising_loss(perfect, images, timesteps, noise, None) == 0
    # The variance of the noise, at every timestep alike, within four standard errors.
    assert abs(denoising_loss(blind, images, timesteps, noise, None) - 1) < 4 * (2 / noise.numel()) ** 0.5


def test_anticausal_loss_is_the_negative_log_probability():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])

    def model(noisy_images, timesteps):
        return SimpleNamespace(logits=probabilities.log() + 3)

    loss = anticausal_loss(model, None, None, None, torch.tensor([1, 2]))
    assert loss.item() == pytest.approx(-(math.log(0.25) + math.log(0.7)) / 2)


def test_ema_warms_up_to_its_ceiling_and_swaps_in_and_out(flags):
    parse_args = load_script("train_diffusion").parse_args
    args = parse_args(to_argv({**flags, "ema_max_decay": 0.9}))
    assert args.ema_max_decay == 0.9
    assert parse_args(to_argv(flags)).ema_max_decay == 0.9999
    weight = torch.nn.Parameter(torch.zeros(1))
    ema = EMAModel(
        [weight], decay=0.9, use_ema_warmup=True, inv_gamma=args.ema_inv_gamma, power=args.ema_power, foreach=True
    )
    expected = 0.0
    for step in range(40):
        weight.data.fill_(step + 1)
        ema.step([weight])
        decay = min(1 - (1 + step) ** -0.75, 0.9) if step else 0.0
        expected = decay * expected + (1 - decay) * (step + 1)
        assert ema.shadow_params[0].item() == pytest.approx(expected, rel=1e-5)
    with swapped_weights(ema, [weight]):
        assert weight.item() == ema.shadow_params[0].item()
    assert weight.item() == 40


def test_ema_of_a_run_is_the_warmed_up_average_of_its_weights(flags):
    """The averages after each of three steps, from the weights that a checkpoint of each step holds."""
    steps = {"max_train_steps": 3, "checkpointing_steps": 1, "use_ema": True, "ema_max_decay": 0.45}
    load_script("train_diffusion").main(to_argv({**flags, **steps, "learning_rate": 1e-2}))
    output_dir = flags["output_dir"]
    expected = None
    for step, decay in ((1, 0.0), (2, 1 - 2**-0.75), (3, 0.45)):
        weights = load_file(output_dir / f"checkpoint-{step}" / "model.safetensors")
        averaged = load_file(output_dir / f"checkpoint-{step}" / "ema.safetensors")
        model = UNet2DModel.from_config(UNet2DModel.load_config(flags["model_config_name_or_path"]))
        model.load_state_dict(weights)
        parameters = list(model.parameters())
        expected = [
            p.data if expected is None else e * decay + p.data * (1 - decay)
            for p, e in zip(parameters, expected or parameters, strict=True)
        ]
        for i, value in enumerate(expected):
            torch.testing.assert_close(averaged[str(i)], value, rtol=1e-5, atol=1e-6)
    # What is saved in the end, and loads by itself, are the averages.
    saved = UNet2DModel.from_pretrained(output_dir, subfolder="unet")
    for i, value in enumerate(saved.parameters()):
        assert torch.equal(value.data, averaged[str(i)])


@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_every_epoch_shows_all_images_once_in_another_order(flags, monkeypatch, streaming):
    seen = []

    def record(images, *args):
        seen.extend(tuple(image.flatten().tolist()) for image in images)
        return draw_noise(images, *args)

    monkeypatch.setattr(loop, "draw_noise", record)
    changes = {"train_batch_size": 10, "max_train_steps": 6, **({"streaming": True} if streaming else {})}
    load_script("train_diffusion").main(to_argv({**flags, **changes}))
    first, second = seen[:30], seen[30:]
    assert len(set(first)) == 30
    assert set(first) == set(second)
    assert first != second


def test_images_in_memory_train_the_same_weights(flags):
    main = load_script("train_diffusion").main
    main(to_argv({**flags, "output_dir": flags["output_dir"] / "plain"}))
    main(to_argv({**flags, "output_dir": flags["output_dir"] / "cached", "cache_images": True}))
    plain, cached = (
        load_file(flags["output_dir"] / n / "checkpoint-2/model.safetensors") for n in ("plain", "cached")
    )
    assert all(torch.equal(plain[name], cached[name]) for name in plain)


def test_scalars_and_sample_grids_are_logged(flags):
    load_script("train_diffusion").main(
        to_argv({**flags, "report_to": "tensorboard", "validation_steps": 1, "logging_steps": 1})
    )
    events = EventAccumulator(str(flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert {"lr", "grad_norm"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("samples")] == [1, 2]
    grids = sorted((flags["output_dir"] / "samples").iterdir())
    assert [path.name for path in grids] == ["0000001.png", "0000002.png"]
    assert PIL.Image.open(grids[0]).size == (16, 16)


def test_accuracy_by_noise_level_of_a_known_predictor():
    """A predictor that is right below timestep 500 and says class 0 above, on one image of class 0 and three of 1."""
    labels = torch.tensor([0, 1, 1, 1])
    noise_scheduler = DDPMScheduler()

    class Predictor:
        device = torch.device("cpu")

        def __call__(self, noisy_images, timesteps):
            right = torch.nn.functional.one_hot(labels, 2).float()
            blind = torch.tensor([[1.0, 0.0]]).expand(4, 2)
            return SimpleNamespace(logits=torch.where(timesteps[:, None] < 500, right, blind))

    batches = [{"pixel_values": torch.zeros(4, 1, 8, 8), "labels": labels}] * 2
    accuracy = load_script("train_classifier").accuracy_by_noise_level(Predictor(), batches, noise_scheduler, 2, 0)
    assert accuracy == {"accuracy/t=250": 1.0, "accuracy/t=750": 0.25}


def test_bf16(flags):
    run_script("train_diffusion", to_argv({**flags, "mixed_precision": "bf16"}))
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


def test_data_that_is_not_finite_stops_the_run_before_a_checkpoint(flags, monkeypatch):
    script = load_script("train_diffusion")
    monkeypatch.setattr(
        script, "denoising_loss", lambda model, x, t, noise, labels: model(x, t).sample.mean() * np.nan
    )
    with pytest.raises(FloatingPointError, match="step 2 the loss is nan"):
        script.main(to_argv(flags))
    assert not list(flags["output_dir"].glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_warmup_steps": 3}, "`--lr_warmup_steps` takes at most `--max_train_steps`, 2, got 3"),
        (
            {"train_batch_size": 31},
            r"`--train_batch_size` 31 on 1 process\(es\) takes 31 images .* the data set has 30",
        ),
        ({"cache_images": True, "streaming": True}, "`--cache_images` takes a data set that is not streamed"),
        ({"train_batch_size": 31, "streaming": True}, "`--train_batch_size` 31 .* the data set has 30"),
    ],
)
def test_run_that_cannot_be_done_is_refused(flags, changes, message):
    with pytest.raises(ValueError, match=message):
        load_script("train_diffusion").main(to_argv({**flags, **changes}))


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("train_batch_size", "0", "at least 1"),
        ("dataloader_num_workers", "-1", "at least 0"),
        ("learning_rate", "nan", "positive number"),
        ("adam_beta2", "1", r"\[0, 1\)"),
        ("ema_max_decay", "1.5", r"\[0, 1\)"),
        ("adam_weight_decay", "-0.1", "at least 0"),
        ("beta_schedule", "quadratic", "invalid choice"),
        ("mixed_precision", "int8", "invalid choice"),
    ],
)
def test_flag_out_of_range_is_refused(flags, capsys, flag, value, message):
    with pytest.raises(SystemExit):
        load_script("train_diffusion").parse_args([*to_argv(flags), f"--{flag}={value}"])
    error = capsys.readouterr().err
    assert f"argument --{flag}" in error
    assert re.search(message, error)
