# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DModel
from safetensors.torch import load_file

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.training import trainer
from diffscm_diffusers.training.arguments import TrainingArguments
from diffscm_diffusers.training.trainer import Trainer, create_accelerator
from tests.helpers import load_script, run_script, start_script, to_argv


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
    run = make_trainer(logging_steps=4, checkpointing_steps=2, max_train_steps=8)
    with pytest.raises(
        FloatingPointError,
        match=r"Training: at step 4, the loss since step 3 and its gradient since step 3 not finite \(the loss is "
        r"nan.*The last checkpoint is .*checkpoint-2'",
    ):
        for _ in run.batches():
            with run.accumulate():
                loss = sum(p.square().sum() for p in run.network.parameters())
                run.backward(loss * factor if run.global_step >= 2 else loss)
                run.step()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("part", ["weights", "average", "optimizer"])
def test_state_that_is_not_finite_is_not_saved(make_trainer, tmp_path, part):
    run = make_trainer(use_ema=True, checkpointing_steps=1)
    with pytest.raises(
        FloatingPointError, match="at step 2, .* not finite, since a step after 1, when all was finite"
    ):
        for _ in take_steps(run):
            if run.global_step == 2:
                weight = next(run.model.parameters())
                spoilt = {
                    "weights": weight.data,
                    "average": run.ema.shadow_params[0],
                    "optimizer": run.optimizer.state[weight]["exp_avg_sq"],
                }
                spoilt[part].view(-1)[0] = np.inf
    assert [path.name for path in tmp_path.glob("*checkpoint-*")] == ["checkpoint-1"]
    if part == "average":
        with pytest.raises(FloatingPointError, match="not finite"), run.averaged_model():
            pass


def test_loss_scaling_that_finds_no_scale_ends_the_run(make_trainer, monkeypatch):
    run = make_trainer(max_train_steps=100)
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", True)
    with pytest.raises(FloatingPointError, match="at step 50, the scaled gradient since step 1 not finite"):
        for _ in take_steps(run):
            pass


def test_second_run_in_the_same_folder_is_refused(make_trainer, flags, tmp_path):
    run = make_trainer()
    argv = to_argv({**flags, "output_dir": tmp_path})
    process = start_script("train_diffusion", argv)
    process.join(timeout=100)
    assert process.exitcode == 1
    assert not list(tmp_path.glob("checkpoint-*"))
    assert run.lock.is_locked
    del run
    gc.collect()
    run_script("train_diffusion", argv)


def test_disk_without_room_for_the_checkpoints_is_refused(make_trainer, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    make_trainer(max_train_steps=1)
    with pytest.raises(OSError, match=r"room for 40 checkpoint\(s\) of 0.2 MiB .* got 1.0 MiB"):
        make_trainer(max_train_steps=40, checkpointing_steps=1)
    make_trainer(max_train_steps=40, checkpointing_steps=1, checkpoints_total_limit=1)


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
