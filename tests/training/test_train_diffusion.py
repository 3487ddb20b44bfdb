# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import PIL.Image
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.models.unets.unet_2d import UNet2DOutput
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffscm_diffusers import CausalUNet2DModel, SemanticEncoder2DModel
from diffscm_diffusers.training import trainer
from tests.helpers import load_script, start_script, to_argv


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_loss_is_the_squared_error_of_what_is_predicted_and_is_logged_with_samples(
    flags, monkeypatch, prediction_type
):
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
        to_argv(
            {
                **flags,
                "prediction_type": prediction_type,
                **{"report_to": "tensorboard", "validation_steps": 1, "logging_steps": 1},
            }
        )
    )
    events = EventAccumulator(str(flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    abar = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(dim=0)
    for (images, noise, timesteps), (noisy, t, predicted), loss in zip(draws, calls, losses, strict=True):
        scale = abar[timesteps].view(-1, 1, 1, 1)
        torch.testing.assert_close(noisy, scale.sqrt() * images + (1 - scale).sqrt() * noise)
        assert torch.equal(t, timesteps)
        # Salimans & Ho (2022), appendix D.
        velocity = scale.sqrt() * noise - (1 - scale).sqrt() * images
        target = {"epsilon": noise, "v_prediction": velocity, "sample": images}[prediction_type]
        assert loss == pytest.approx((predicted - target).square().mean().item(), rel=1e-5)

    assert [event.step for event in events.Scalars("loss")] == [1, 2]
    assert {"lr", "grad_norm"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("samples")] == [1, 2]
    grids = sorted((flags["output_dir"] / "samples").iterdir())
    assert [path.name for path in grids] == ["0000001.png", "0000002.png"]
    assert PIL.Image.open(grids[0]).size == (16, 16)

    # What is predicted stays with the weights and with the schedule.
    unet = UNet2DModel.from_pretrained(flags["output_dir"], subfolder="unet")
    assert unet.config["_trained_with"]["noise_schedule"]["prediction_type"] == prediction_type
    scheduler = DDPMScheduler.from_pretrained(flags["output_dir"], subfolder="scheduler")
    assert scheduler.config.prediction_type == prediction_type


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
    with pytest.raises(
        ValueError, match="The denoiser is expected to predict one value of each pixel.* 1, got .* 2 output"
    ):
        load_script("train_diffusion").main(to_argv(flags))


@pytest.fixture
def causes_flags(flags, graph_flags):
    """Flags of a run of `train_diffusion.py` on images of a shade and a level."""
    return {name: value for name, value in flags.items() if name != "train_data_dir"} | graph_flags


def save_encoder(folder, condition_dim: int, **config):
    torch.manual_seed(0)
    config = {"code_dim": 7, "block_out_channels": (4, 4, 4), "hidden_features": 8, "sample_size": 8, **config}
    SemanticEncoder2DModel(condition_dim=condition_dim, **config).save_pretrained(folder)
    return folder


def record_calls(monkeypatch, model_class) -> list[dict]:
    """What a network is called with in training, by name."""
    calls = []
    forward = model_class.forward

    def record_call(self, sample, timestep, *args, **kwargs):
        if self.training:
            calls.append({"sample": sample, **kwargs})
        return forward(self, sample, timestep, *args, **kwargs)

    monkeypatch.setattr(model_class, "forward", record_call)
    return calls


def test_graph_tells_the_causes_and_drops_each_alone(causes_flags, monkeypatch):
    calls = record_calls(monkeypatch, CausalUNet2DModel)
    flags = {**causes_flags, "parent_dropout": 0.25, "train_batch_size": 30, "max_train_steps": 30}
    load_script("train_diffusion").main(to_argv(flags))

    unet = CausalUNet2DModel.from_pretrained(flags["output_dir"], subfolder="unet")
    assert unet.condition_widths == {"level": 1, "shade": 2}
    assert [name for name, _ in unet.config["_trained_with"]["causes"]] == ["level", "shade"]
    assert (flags["output_dir"] / "scheduler" / "scheduler_config.json").is_file()
    assert not (flags["output_dir"] / "model_index.json").exists()
    # A row of factuals above each row of samples.
    assert PIL.Image.open(flags["output_dir"] / "samples" / "0000030.png").size == (16, 32)

    condition, keep = (torch.cat([call[name] for call in calls]) for name in ("condition", "keep"))
    assert condition[:, 0].min() >= -1 and condition[:, 0].max() <= 1
    assert (condition[:, 1:].sum(dim=1) == 1).all()
    # Four standard errors around both kept, one of them, and none.
    count = torch.stack([(keep.sum(dim=1) == k).float().mean() for k in (2, 1, 0)])
    expected = torch.tensor([0.75**2, 2 * 0.75 * 0.25, 0.25**2])
    assert ((count - expected).abs() < 4 * (expected * (1 - expected) / len(keep)).sqrt()).all()


@pytest.mark.parametrize("causes", ["graph", "label"])
def test_denoiser_sees_a_fresh_code_decoded_under_the_causes(causes_flags, monkeypatch, tmp_path, causes):
    condition_dim = {"graph": 3, "label": 2}[causes]
    causes_flags["encoder"] = save_encoder(tmp_path / "encoder", condition_dim)
    encoder = SemanticEncoder2DModel.from_pretrained(causes_flags["encoder"])
    if causes == "label":
        del causes_flags["graph"]
        causes_flags["label_column"] = "shade"
    images, noises = [], []
    draw_noise, draw_shared = trainer.draw_noise, trainer.draw_shared
    monkeypatch.setattr(trainer, "draw_noise", lambda *args: images.append(args[0]) or draw_noise(*args))
    monkeypatch.setattr(trainer, "draw_shared", lambda *args: noises.append(draw_shared(*args)) or noises[-1])
    conditions = []
    forward = SemanticEncoder2DModel.forward

    def record_condition(self, sample, condition, *args, **kwargs):
        conditions.append(condition)
        return forward(self, sample, condition, *args, **kwargs)

    monkeypatch.setattr(SemanticEncoder2DModel, "forward", record_condition)
    calls = record_calls(monkeypatch, CausalUNet2DModel if causes == "graph" else UNet2DModel)
    load_script("train_diffusion").main(to_argv(causes_flags))

    code_noises = [noise for noise in noises if noise.shape[1:] == (7,)]
    assert not torch.equal(*code_noises)
    # The first are the validation's.
    for call, image, noise, condition in zip(calls, images, code_noises, conditions[1:], strict=True):
        assert condition.shape == (4, condition_dim)
        mean, std = encoder.encode(image, condition, return_dict=False)
        torch.testing.assert_close(call["sample"][:, 1:], encoder.decode(mean + std * noise, condition))
    unet = UNet2DModel.load_config(causes_flags["output_dir"], subfolder="unet")
    assert (unet["in_channels"], unet["out_channels"]) == (2, 1)


def test_denoiser_learns_what_the_residual_leaves_open(causes_flags, monkeypatch, tmp_path):
    """Of images that are normal around the decoded ones nothing is open: a network that says 0 has the least loss."""
    causes_flags["encoder"] = save_encoder(tmp_path / "encoder", 3, residual_std=0.4)
    # Half of its range is 0.5, so deviations are expected to be half as large.
    decoded = torch.full((30, 1, 8, 8), 0.3)
    decoded[:, :, ::2] = -0.7
    monkeypatch.setattr(
        SemanticEncoder2DModel, "forward", lambda self, sample, *args, **kwargs: (decoded[: len(sample)],)
    )
    timesteps, losses, inputs = [], [], []
    draw_noise = trainer.draw_noise

    def draw_normal_images(images, *args):
        images.copy_(decoded[: len(images)] + 0.2 * torch.randn(images.shape))
        return draw_noise(images, *args)

    forward = CausalUNet2DModel.forward

    def say_nothing(self, sample, timestep, *args, **kwargs):
        if self.training:
            inputs.append(sample[:, :1])
            timesteps.append(timestep)
        return UNet2DOutput(sample=0 * forward(self, sample, timestep, *args, **kwargs).sample)

    monkeypatch.setattr(trainer, "draw_noise", draw_normal_images)
    monkeypatch.setattr(CausalUNet2DModel, "forward", say_nothing)
    backward = trainer.Trainer.backward
    monkeypatch.setattr(
        trainer.Trainer, "backward", lambda self, loss: losses.append(loss.item()) or backward(self, loss)
    )
    flags = {**causes_flags, "train_batch_size": 30, "max_train_steps": 10, "prediction_type": "v_prediction"}
    load_script("train_diffusion").main(to_argv(flags))
    alpha_prod = DDPMScheduler().alphas_cumprod[torch.stack(timesteps)]
    least = 0.2**2 / (0.2**2 * alpha_prod + 1 - alpha_prod)  # the velocity's variance given the noisy image
    torch.testing.assert_close(torch.tensor(losses), least.mean(dim=1), rtol=0.15, atol=0)
    assert abs(torch.cat(inputs).std().item() - 1) < 0.05
    # The cube of a uniform number: half of them are in the first eighth.
    assert abs((torch.cat(timesteps) < 125).float().mean().item() - 0.5) < 0.12
    unet = CausalUNet2DModel.load_config(flags["output_dir"], subfolder="unet")
    assert unet["_trained_with"]["residual_std"] == 0.4


def test_class_is_dropped_for_the_last_class(causes_flags, monkeypatch):
    del causes_flags["graph"]
    flags = {**causes_flags, "label_column": "shade", "class_dropout": 0.3, "max_train_steps": 20}
    calls = record_calls(monkeypatch, UNet2DModel)
    load_script("train_diffusion").main(to_argv({**flags, "train_batch_size": 30}))
    labels = torch.cat([call["class_labels"] for call in calls])
    assert set(labels.tolist()) == {0, 1, 2}
    assert abs((labels == 2).float().mean() - 0.3) < 4 * (0.3 * 0.7 / len(labels)) ** 0.5
    config = UNet2DModel.load_config(flags["output_dir"], subfolder="unet")
    assert config["num_class_embeds"] == 3
    assert config["_trained_with"]["class_names"] == ["dark", "light"]


def test_causes_that_cannot_be_told_are_refused(causes_flags, tmp_path):
    main = load_script("train_diffusion").main
    encoder = save_encoder(tmp_path / "encoder", 5)

    def run(**changes):
        flags = {name: value for name, value in (causes_flags | changes).items() if value is not None}
        main(to_argv(flags))

    with pytest.raises(ValueError, match="`--graph` expects no `--label_column`, .* got 'shade'"):
        run(label_column="shade")
    with pytest.raises(ValueError, match="`--class_dropout` expects a `--label_column` and no `--encoder`, got None"):
        run(graph=None, class_dropout=0.1)
    with pytest.raises(
        ValueError, match="`--encoder` expects `--graph` or `--label_column`, its causes, got .* alone"
    ):
        run(graph=None, encoder=encoder)
    with pytest.raises(ValueError, match="`--label_column` expects `--class_dropout` or `--encoder`.* 'shade' alone"):
        run(graph=None, label_column="shade")
    with pytest.raises(ValueError, match="`--encoder` expects one of 3 entries of causes, as the data have, got 5"):
        run(encoder=encoder)
    with pytest.raises(ValueError, match="`--encoder` expects images of 8 pixels, as the denoiser does, got 12"):
        run(encoder=save_encoder(tmp_path / "large", 3, sample_size=12))
    with pytest.raises(ValueError, match="`--validation_grid_size` expects no more samples than the 30 images"):
        run(validation_grid_size=6)
