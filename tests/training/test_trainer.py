# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.training import trainer
from diffscm_diffusers.training.arguments import TrainingArguments
from diffscm_diffusers.training.trainer import Trainer, create_accelerator
from tests.helpers import load_script, to_argv


@pytest.fixture
def make_trainer(image_folder, cache_dir, model_configs, tmp_path):
    """Makes the trainer of a tiny denoiser with these settings."""

    def make(**changes):
        settings = {"train_batch_size": 4, "max_train_steps": 3, "lr_warmup_steps": 0, "report_to": "none"}
        training_args = TrainingArguments(output_dir=tmp_path, **settings | changes)
        accelerator = create_accelerator(training_args)
        unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
        dataset = load_image_dataset(train_data_dir=image_folder, cache_dir=cache_dir)["train"]
        return Trainer(accelerator, unet, dataset, training_args, ImageCollator(8, 1, "image"))

    return make


def take_steps(trainer: Trainer):
    """Moves every weight towards 1, and yields after each batch."""
    for _ in trainer.batches():
        with trainer.accumulate():
            trainer.backward(sum((p - 1).square().sum() for p in trainer.network.parameters()))
            trainer.step()
        yield


def test_average_warms_up_to_its_ceiling(make_trainer):
    run = make_trainer(max_train_steps=25, use_ema=True, ema_max_decay=0.9, learning_rate=1e-2)
    weight, expected = next(run.model.parameters()), 0
    for step, _ in enumerate(take_steps(run)):
        decay = min(1 - (1 + step) ** -0.75, 0.9) if step else 0.0
        expected = expected * decay + weight.detach() * (1 - decay)
        torch.testing.assert_close(run.ema.shadow_params[0], expected, rtol=1e-4, atol=1e-6)
    # The context holds the average, the weights come back after it.
    trained = weight.detach().clone()
    with run.averaged_model() as unet:
        assert not unet.training
        assert torch.equal(next(unet.parameters()), run.ema.shadow_params[0])
        assert not torch.equal(trained, weight)
    assert run.model.training
    assert torch.equal(trained, weight)


def test_steps_come_after_all_of_their_batches(make_trainer):
    run = make_trainer(gradient_accumulation_steps=3, max_train_steps=5, validation_steps=2)
    weight = next(run.model.parameters())
    seen, before = [], weight.detach().clone()
    for _ in take_steps(run):
        seen.append((run.global_step, not torch.equal(weight, before), run.should_validate))
        before = weight.detach().clone()
    # Moved at every third batch, across the end of an epoch of seven; validated every second step and after the last.
    assert seen == [((i + 1) // 3, i % 3 == 2, i in (5, 11, 14)) for i in range(15)]


def test_run_ends_with_its_averaged_weights(flags):
    load_script("train_diffusion").main(to_argv({**flags, "use_ema": True, "learning_rate": 1e-2}))
    averaged = load_file(flags["output_dir"] / "checkpoint-2" / "ema.safetensors")
    saved = UNet2DModel.from_pretrained(flags["output_dir"], subfolder="unet")
    for i, value in enumerate(saved.parameters()):
        assert torch.equal(value.data, averaged[str(i)])
    weights = load_file(flags["output_dir"] / "checkpoint-2" / "model.safetensors")
    assert not torch.equal(weights["conv_in.weight"], saved.conv_in.weight)


@pytest.mark.parametrize("streaming", [False, True], ids=["map", "streaming"])
def test_every_epoch_shows_all_images_once_in_another_order(flags, monkeypatch, streaming):
    seen = []
    draw_noise = trainer.draw_noise

    def record(images, *args):
        seen.extend(tuple(image.flatten().tolist()) for image in images)
        return draw_noise(images, *args)

    monkeypatch.setattr(trainer, "draw_noise", record)
    changes = {"train_batch_size": 10, "max_train_steps": 6, **({"streaming": True} if streaming else {})}
    load_script("train_diffusion").main(to_argv({**flags, **changes}))
    first, second = seen[:30], seen[30:]
    assert len(set(first)) == 30
    assert set(first) == set(second)
    assert first != second


def test_images_in_memory_train_the_same_weights(flags, tmp_path):
    main = load_script("train_diffusion").main
    main(to_argv({**flags, "output_dir": tmp_path / "plain"}))
    main(to_argv({**flags, "output_dir": tmp_path / "cached", "cache_images": True}))
    plain, cached = (load_file(tmp_path / n / "checkpoint-2/model.safetensors") for n in ("plain", "cached"))
    assert all(torch.equal(plain[name], cached[name]) for name in plain)


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_loss_that_is_not_finite_stops_the_run_before_a_checkpoint(make_trainer, tmp_path, factor):
    run = make_trainer(logging_steps=2, checkpointing_steps=2)
    with pytest.raises(FloatingPointError, match=r"Training: at step 2 the loss is (nan|inf)"):
        for _ in run.batches():
            with run.accumulate():
                run.backward(sum(p.square().sum() for p in run.network.parameters()) * factor)
                run.step()
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr_warmup_steps": 3}, "`lr_warmup_steps` expects at most `max_train_steps`, 2, got 3"),
        ({"train_batch_size": 31}, r"`train_batch_size` 31 on 1 process\(es\) .* at least 31 images, got one of 30"),
        ({"cache_images": True, "streaming": True}, "`cache_images` expects a data set that is not streamed"),
        ({"train_batch_size": 31, "streaming": True}, "`train_batch_size` 31 .* got one of 30"),
    ],
)
def test_run_that_cannot_be_done_is_refused(flags, changes, message):
    with pytest.raises(ValueError, match=message):
        load_script("train_diffusion").main(to_argv({**flags, **changes}))
