# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import threading
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from diffscm_diffusers import AntiCausalClassifier2DModel
from diffscm_diffusers.models.anticausal_classifier_2d import AntiCausalClassifier2DOutput, AttentionPool2D


POOLINGS = ("average", "attention", "spatial", "spatial_v2")
CONFIGS = Path(__file__).resolve().parents[2] / "train_scripts" / "configs"
# Those that a UNet2DModel runs with; the two with a skip connection from the image take RGB only.
BLOCK_TYPES = (
    "DownBlock2D",
    "ResnetDownsampleBlock2D",
    "AttnDownBlock2D",
    "SkipDownBlock2D",
    "AttnSkipDownBlock2D",
)


def get_dummy_classifier(model_class=AntiCausalClassifier2DModel, **config) -> AntiCausalClassifier2DModel:
    torch.manual_seed(0)
    dummy = {
        "sample_size": 8,
        "in_channels": 1,
        "num_classes": 3,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    return model_class(**{**dummy, **config}).eval()


def get_dummy_unet(**config) -> UNet2DModel:
    torch.manual_seed(1)
    dummy = {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    return UNet2DModel(**{**dummy, **config}).eval()


def get_dummy_inputs(batch=2, size=8, channels=1):
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(batch, channels, size, size, generator=generator)
    return sample, torch.arange(batch) * 100 + 7, torch.arange(batch) % 3


class TestTemperatures:
    pairs = [(100, 2.0), (300, 4.0), (301, 0.5)]

    def test_logits_are_divided_and_temperatures_interpolated(self):
        plain, model = get_dummy_classifier(), get_dummy_classifier(temperatures=self.pairs)
        times = torch.tensor([0, 100, 150, 300, 301, 999])
        sample = get_dummy_inputs(batch=6)[0]
        expected = plain(sample, times).logits / torch.tensor([2, 2, 2.5, 4, 0.5, 0.5])[:, None]
        torch.testing.assert_close(model(sample, times).logits, expected)
        for time in (150, 150.0, torch.tensor(150), torch.tensor([150.0])):
            torch.testing.assert_close(model(sample, time).logits, plain(sample, 150).logits / 2.5)

    @pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
    def test_weights_of_half_precision_leave_times_apart(self, dtype):
        plain = get_dummy_classifier().to(dtype)
        model = get_dummy_classifier(temperatures=self.pairs).to(dtype)
        sample, logits = get_dummy_inputs()[0].to(dtype), None
        for time, temperature in ((300, 4.0), (301, 0.5)):
            logits = model(sample, time).logits
            assert logits.dtype == dtype
            torch.testing.assert_close(logits, plain(sample, time).logits / temperature)

    def test_they_are_saved_in_the_configuration(self, tmp_path):
        model = get_dummy_classifier(temperatures=self.pairs)
        model.save_pretrained(tmp_path)
        loaded = AntiCausalClassifier2DModel.from_pretrained(tmp_path)
        sample, timestep, _ = get_dummy_inputs()
        assert torch.equal(loaded(sample, timestep).logits, model(sample, timestep).logits)
        assert loaded.state_dict().keys() == get_dummy_classifier().state_dict().keys()

    def test_multiples_of_the_posterior_guide_as_the_posterior_does(self):
        # Two Gaussians of variance 0.2^2: log p(y | x_t) is known, and so is its gradient.
        means, std, alpha_prod = torch.tensor([-0.3, 0.3]), 0.2, {10: 0.9, 400: 0.4, 990: 0.01}

        class Overconfident(AntiCausalClassifier2DModel):
            multiples = {10: 3.0, 400: 0.4, 990: 1.7}

            def _compute_logits(self, sample, timestep):
                t = int(timestep[0])
                deviations = sample[:, None] - alpha_prod[t] ** 0.5 * means[:, None, None, None]
                variance = alpha_prod[t] * std**2 + 1 - alpha_prod[t]
                return -self.multiples[t] * deviations.pow(2).sum(dim=(2, 3, 4)) / (2 * variance)

        model = get_dummy_classifier(Overconfident, num_classes=2, temperatures=list(Overconfident.multiples.items()))
        sample, label = get_dummy_inputs()[0], torch.tensor([1, 0])
        for t, share in alpha_prod.items():
            # Bayes: the class's own score minus that of the mixture.
            alpha, variance = share**0.5, share * std**2 + 1 - share
            x = sample.double()
            distances = torch.stack([(x - alpha * mean).pow(2).sum(dim=(1, 2, 3)) for mean in means.double()])
            weights = (-distances / (2 * variance)).softmax(dim=0)[:, :, None, None, None]
            scores = torch.stack([-(x - alpha * mean) / variance for mean in means.double()])
            expected = scores[label, torch.arange(2)] - (weights * scores).sum(dim=0)
            gradient, _ = model.log_prob_gradient(sample, t, label)
            torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        "temperatures",
        (
            *(2.0, [], [1.0, 2.0], [(0, 1.0)], [(0, 1.0), (5,)], [(0, 1.0), (0, 2.0)], [(5, 1.0), (0, 2.0)], "hot"),
            *([(0, 0.0), (5, 1.0)], [(0, -1.0), (5, 1.0)], [(0, float("nan")), (5, 1.0)], [(-1, 1.0), (5, 1.0)]),
            *([(0, 1.0), (float("nan"), 1.0)], [(0, 1.0), (5, "1")], [(0, 1.0), (float("inf"), 2.0)]),
        ),
    )
    def test_others_are_refused(self, temperatures):
        with pytest.raises(ValueError, match="`temperatures` expects"):
            get_dummy_classifier(temperatures=temperatures)


class TestForward:
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_one_logit_per_class(self, pooling):
        model = get_dummy_classifier(pooling=pooling)
        sample, timestep, _ = get_dummy_inputs()
        logits = model(sample, timestep).logits
        assert logits.shape == (2, 3) and logits.isfinite().all()
        assert torch.equal(model(sample, timestep, return_dict=False)[0], logits)

    def test_timestep_for_all_or_one_per_image(self):
        model = get_dummy_classifier()
        sample, _, _ = get_dummy_inputs()
        for timestep in (5, 5.0, torch.tensor(5), torch.tensor([5])):
            torch.testing.assert_close(model(sample, timestep).logits, model(sample, torch.tensor([5, 5])).logits)
        assert not torch.allclose(model(sample, 5).logits, model(sample, 500).logits)

    @pytest.mark.parametrize("downsample_type", ("conv", "resnet"))
    @pytest.mark.parametrize("block_type", BLOCK_TYPES)
    @pytest.mark.parametrize("size", (7, 10, 12))
    def test_attention_pooling_of_any_size(self, size, block_type, downsample_type):
        model = get_dummy_classifier(
            sample_size=size,
            in_channels=3,
            down_block_types=(block_type,) * 3,
            block_out_channels=(32, 32, 32),
            downsample_type=downsample_type,
            pooling="attention",
        )
        sample, timestep, _ = get_dummy_inputs(size=size, channels=3)
        assert model(sample, timestep).logits.shape == (2, 3)

    @pytest.mark.parametrize("block_type", BLOCK_TYPES)
    @pytest.mark.parametrize("layers_per_block", (1, 2))
    def test_spatial_pooling_reads_the_mean_of_every_layer(self, block_type, layers_per_block):
        model = get_dummy_classifier(
            in_channels=3,
            down_block_types=(block_type,) * 2,
            block_out_channels=(32, 64),
            layers_per_block=layers_per_block,
            pooling="spatial",
        )
        sample, timestep, _ = get_dummy_inputs(channels=3)
        maps, features = [], []
        for layer in (model.conv_in, model.mid_block):
            layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
        for block in model.down_blocks:
            block.register_forward_hook(lambda module, inputs, output: maps.extend(output[1]))
        model.pool.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
        model(sample, timestep)
        # The image's convolution, the layers of two levels, the way down between them, the middle block.
        assert [x.shape[1] for x in maps] == [32] + [32] * (layers_per_block + 1) + [64] * (layers_per_block + 1)
        torch.testing.assert_close(features[0], torch.cat([x.flatten(2).mean(dim=2) for x in maps], dim=1))

    def test_other_settings(self):
        sample, timestep, _ = get_dummy_inputs()
        for config in (
            {"resnet_time_scale_shift": "default"},
            {"add_attention": False},
            {"attention_head_dim": None},
            {"attn_norm_num_groups": 4},
            {"layers_per_block": 2, "dropout": 0.1},
            {"time_proj_dim": 20},
        ):
            assert get_dummy_classifier(**config)(sample, timestep).logits.shape == (2, 3)

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_gradient_checkpointing_changes_no_gradient(self, pooling):
        sample, timestep, labels = get_dummy_inputs()
        gradients = []
        for checkpointing in (False, True):
            model = get_dummy_classifier(pooling=pooling).train()
            if checkpointing:
                model.enable_gradient_checkpointing()
            assert model.is_gradient_checkpointing == checkpointing
            nn.functional.cross_entropy(model(sample, timestep).logits, labels).backward()
            gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        torch.testing.assert_close(gradients[1], gradients[0])


class TestAttentionPool2D:
    def test_agrees_with_torch(self):
        torch.manual_seed(0)
        pool = AttentionPool2D(spatial_size=3, channels=12, head_dim=4, out_features=5)
        attention = nn.MultiheadAttention(12, num_heads=3, batch_first=True)
        with torch.no_grad():
            attention.in_proj_weight.copy_(torch.cat([pool.to_q.weight, pool.to_k.weight, pool.to_v.weight]))
            attention.in_proj_bias.copy_(torch.cat([pool.to_q.bias, pool.to_k.bias, pool.to_v.bias]))
            attention.out_proj.weight.copy_(torch.eye(12))
            attention.out_proj.bias.zero_()

        hidden_states = torch.randn(2, 12, 3, 3)
        tokens = [hidden_states.mean(dim=(2, 3))]
        tokens += [hidden_states[:, :, row, column] for row in range(3) for column in range(3)]
        tokens = torch.stack(tokens, dim=1) + pool.position_embedding
        expected = nn.functional.linear(
            attention(tokens, tokens, tokens)[0][:, 0], pool.to_out.weight, pool.to_out.bias
        )
        torch.testing.assert_close(pool(hidden_states), expected)


class TestConfigs:
    """The shipped configurations have the sizes of the paper's Table 2."""

    @pytest.mark.parametrize(
        "name, model_class, low, high",
        (
            ("classifier_mnist", AntiCausalClassifier2DModel, 1.5e6, 2.1e6),
            ("classifier_imagenet256", AntiCausalClassifier2DModel, 0.99 * 54e6, 1.01 * 54e6),
            ("unet_mnist", UNet2DModel, 2.5e6, 2.8e6),
            ("unet_imagenet256", UNet2DModel, 0.99 * 554e6, 1.01 * 554e6),
        ),
    )
    def test_number_of_parameters(self, name, model_class, low, high):
        with torch.device("meta"):
            model = model_class.from_config(json.loads((CONFIGS / f"{name}.json").read_text()))
        assert low <= model.num_parameters() <= high

    def test_mnist_pair_fits(self):
        unet = UNet2DModel.from_config(json.loads((CONFIGS / "unet_mnist.json").read_text()))
        classifier = AntiCausalClassifier2DModel.from_config(
            json.loads((CONFIGS / "classifier_mnist.json").read_text())
        )
        sample, timestep, _ = get_dummy_inputs(size=28)
        assert unet(sample, timestep).sample.shape == sample.shape
        assert classifier(sample, timestep).logits.shape == (2, 10)


class TestFromUnet:
    @pytest.mark.parametrize(
        "config",
        (
            *({"down_block_types": (block_type,) * 2, "block_out_channels": (32, 64)} for block_type in BLOCK_TYPES),
            {"resnet_time_scale_shift": "scale_shift", "downsample_type": "resnet", "attn_norm_num_groups": 4},
            {"flip_sin_to_cos": False, "freq_shift": 1, "attention_head_dim": None, "norm_eps": 1e-3},
            {"layers_per_block": 2, "in_channels": 1, "out_channels": 2, "add_attention": False},
        ),
    )
    def test_encoder_is_the_denoisers(self, config):
        if "SkipDownBlock2D" in str(config):
            config = {**config, "up_block_types": ("SkipUpBlock2D",) * 2}
        unet = get_dummy_unet(**{"in_channels": 3, "out_channels": 3, **config})
        classifier = AntiCausalClassifier2DModel.from_unet(unet, num_classes=3).eval()
        sample, timestep, _ = get_dummy_inputs(channels=unet.config.in_channels)

        encoded = []
        hooks = [
            model.mid_block.register_forward_hook(lambda module, inputs, output: encoded.append(output))
            for model in (unet, classifier)
        ]
        with torch.no_grad():
            unet(sample, timestep)
            classifier(sample, timestep)
        for hook in hooks:
            hook.remove()
        assert len(encoded) == 2 and torch.equal(*encoded)

    def test_is_a_copy(self):
        unet = get_dummy_unet().half()
        classifier = AntiCausalClassifier2DModel.from_unet(
            unet, num_classes=2, id2label={0: "no", 1: "yes"}, pooling="attention"
        )
        assert classifier.dtype == torch.float32
        assert (classifier.config.pooling, classifier.id2label) == ("attention", {0: "no", 1: "yes"})
        before = unet.conv_in.weight.clone()
        with torch.no_grad():
            classifier.conv_in.weight.zero_()
        assert torch.equal(unet.conv_in.weight, before)

    @pytest.mark.parametrize(
        "config",
        (
            {"num_class_embeds": 10},
            {"class_embed_type": "timestep"},
            {"time_embedding_type": "fourier"},
            {"time_embedding_dim": 64},
            {"mid_block_type": None},
            {"mid_block_scale_factor": 2},
            {"center_input_sample": True},
            {"downsample_padding": 0},
            {"act_fn": "gelu"},
        ),
    )
    def test_refuses_parts_that_the_classifier_has_not(self, config):
        (name,) = config
        with pytest.raises(ValueError, match=f"`unet` expects `{name}`"):
            AntiCausalClassifier2DModel.from_unet(get_dummy_unet(**config), num_classes=3)


class TestSaving:
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_round_trip(self, tmp_path, pooling):
        model = get_dummy_classifier(pooling=pooling, id2label={2: "two", 0: "zero", 1: "one"})
        model.save_pretrained(tmp_path)
        loaded = AntiCausalClassifier2DModel.from_pretrained(tmp_path)

        assert model.id2label == loaded.id2label == {0: "zero", 1: "one", 2: "two"}
        assert list(loaded.id2label) == [0, 1, 2]
        assert not loaded.training
        sample, timestep, _ = get_dummy_inputs()
        assert torch.equal(model(sample, timestep).logits, loaded(sample, timestep).logits)

    def test_classes_without_names_are_called_by_number(self):
        assert get_dummy_classifier().id2label == {0: "0", 1: "1", 2: "2"}


class LinearClassifier(AntiCausalClassifier2DModel):
    """Logits that are linear in the pixels, through three layers of one weight each, so the gradient is known."""

    def build(self, weight: float):
        self.layers = nn.Sequential(*(nn.Conv2d(1, 1, 1, bias=False) for _ in range(3)))
        for layer in self.layers:
            nn.init.constant_(layer.weight, weight)
        return self

    def forward(self, sample, timestep, return_dict=True):
        logit = self.layers(sample).sum(dim=(1, 2, 3))
        return AntiCausalClassifier2DOutput(logits=torch.stack([logit, torch.zeros_like(logit)], dim=1))


class TestLogProbGradient:
    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_is_the_finite_difference(self, pooling):
        model = get_dummy_classifier(pooling=pooling)
        sample, timestep, labels = get_dummy_inputs()
        gradient, log_prob = model.log_prob_gradient(sample, timestep, labels)
        assert gradient.shape == sample.shape and log_prob.shape == (2,)
        assert not gradient.requires_grad and not log_prob.requires_grad

        def log_probs(x):
            return model(x, timestep).logits.double().log_softmax(dim=1)[[0, 1], labels]

        with torch.no_grad():
            torch.testing.assert_close(log_prob, log_probs(sample).float())
            direction = torch.randn(sample.shape, generator=torch.Generator().manual_seed(3))
            step = 3e-3
            difference = (log_probs(sample + step * direction) - log_probs(sample - step * direction)) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(dim=(1, 2, 3)), difference.float(), rtol=5e-3, atol=1e-4)

    @pytest.mark.parametrize("context", (torch.no_grad, torch.inference_mode))
    def test_works_without_grad(self, context):
        model = get_dummy_classifier()
        inputs = get_dummy_inputs()
        expected = model.log_prob_gradient(*inputs)
        with context():
            # Tensors made in inference mode are what a pipeline in it passes.
            results = model.log_prob_gradient(*(x.clone() for x in inputs))
            integer = model.log_prob_gradient(inputs[0].clone(), 7, inputs[2].clone())
        for result, reference in zip(results, expected, strict=True):
            assert torch.equal(result, reference)
        assert integer[0].isfinite().all()

    def test_looks_at_no_value(self):
        """Where it did, each step of a diffusion would wait for the GPU. Meta tensors have no values."""
        model = get_dummy_classifier().to("meta")
        gradient, log_prob = model.log_prob_gradient(*(x.to("meta") for x in get_dummy_inputs()))
        assert gradient.shape == (2, 1, 8, 8) and log_prob.shape == (2,)

    def test_leaves_the_model_alone(self):
        model = get_dummy_classifier()
        model.conv_in.requires_grad_(False)
        sample, timestep, labels = get_dummy_inputs()
        model.log_prob_gradient(sample, timestep, labels)
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not model.conv_in.weight.requires_grad and model.time_embedding.linear_1.weight.requires_grad
        assert not sample.requires_grad

    @pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16))
    def test_half_weights_give_a_float32_gradient(self, dtype):
        model = get_dummy_classifier()
        inputs = get_dummy_inputs()
        expected = model.log_prob_gradient(*inputs)[0]
        gradient, log_prob = model.to(dtype).log_prob_gradient(*inputs)
        assert gradient.dtype == log_prob.dtype == torch.float32
        assert (gradient - expected).norm() < 0.05 * expected.norm()

    @pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
    @pytest.mark.parametrize("autocast", (False, True))
    def test_keeps_a_gradient_that_half_precision_would_lose(self, dtype, autocast):
        # d log p(0) / dx = weight^3 p(1), about 1e-8, which float16 rounds to zero.
        model = get_dummy_classifier(LinearClassifier).build(2.0**-9 * 1.375)
        if not autocast:
            model.to(dtype)
        sample, timestep, _ = get_dummy_inputs()
        with torch.autocast("cpu", dtype=dtype, enabled=autocast and dtype != torch.float32):
            gradient, log_prob = model.log_prob_gradient(sample, timestep, torch.tensor([0, 1]))
        expected = 0.5 * (2.0**-9 * 1.375) ** 3 * torch.tensor([1.0, -1.0])
        assert expected.to(torch.float16).abs().max() == 0
        torch.testing.assert_close(gradient, expected[:, None, None, None].expand_as(sample), rtol=0.02, atol=0)
        torch.testing.assert_close(log_prob, torch.full((2,), 0.5).log(), rtol=1e-3, atol=0)


class TestErrors:
    @pytest.mark.parametrize("name", ("log_prob", "log_prob_gradient"))
    @pytest.mark.parametrize(
        "inputs, error, message",
        (
            ({"class_labels": torch.tensor([0])}, ValueError, r"`class_labels` .* the 2 images, got shape \(1,\)"),
            ({"class_labels": torch.tensor([0, 1, 2])}, ValueError, r"`class_labels` .* 2 images, got shape \(3,\)"),
            ({"class_labels": torch.tensor([[0, 1]])}, ValueError, r"`class_labels` .* 2 images, got shape \(1, 2\)"),
            ({"class_labels": torch.tensor([0.0, 1.0])}, TypeError, "`class_labels` .* integers, got torch.float32"),
            ({"class_labels": [0, 1]}, TypeError, "`class_labels` expects a tensor of integers, got list"),
            (
                {"sample": torch.rand(2, 3, 8, 8)},
                ValueError,
                r"`sample` expects shape \(batch, 1, .* got \(2, 3, 8, 8\)",
            ),
            ({"sample": torch.rand(1, 8, 8)}, ValueError, r"`sample` expects shape .* got \(1, 8, 8\)"),
        ),
    )
    def test_log_prob(self, name, inputs, error, message):
        sample, timestep, labels = get_dummy_inputs()
        inputs = {"sample": sample, "timestep": timestep, "class_labels": labels, **inputs}
        with pytest.raises(error, match=message):
            getattr(get_dummy_classifier(), name)(**inputs)

    @pytest.mark.parametrize("labels", ([0, 3], [-1, 0]))
    def test_log_prob_of_no_class(self, labels):
        sample, timestep, _ = get_dummy_inputs()
        with pytest.raises(ValueError, match=r"`class_labels` expects classes from 0 to 2, got \["):
            get_dummy_classifier().log_prob(sample, timestep, torch.tensor(labels))

    def test_log_prob_of_labels_of_another_type(self):
        model, (sample, timestep, labels) = get_dummy_classifier(), get_dummy_inputs()
        expected = model.log_prob(sample, timestep, labels)
        for dtype in (torch.uint8, torch.int32):
            assert torch.equal(model.log_prob(sample, timestep, labels.to(dtype)), expected)

    @pytest.mark.parametrize(
        "config, message",
        (
            ({"pooling": "max"}, "`pooling` expects one of .*'average'.*, got 'max'"),
            ({"id2label": {0: "zero"}}, "`id2label` expects a name for each class from 0 to 2"),
            ({"id2label": {1: "one", 2: "two", 3: "three"}}, "`id2label` expects a name for each class from 0 to 2"),
            (
                {"block_out_channels": (8,)},
                "`block_out_channels` expects one entry for each of `down_block_types`, 2, got 1",
            ),
        ),
    )
    def test_names_the_argument(self, config, message):
        with pytest.raises(ValueError, match=message):
            get_dummy_classifier(**config)


def test_threads_leave_the_parameters_trainable():
    """One thread finds the parameters frozen by another, which restores them before the first is done."""
    classifier = get_dummy_classifier()
    inside, go_on, original = threading.Event(), threading.Event(), classifier.requires_grad_

    def requires_grad_(flag=True):
        if threading.current_thread() is second and not flag:
            go_on.set()
            first.join()
        return original(flag)

    def meet(*args):
        if threading.current_thread() is first:
            inside.set()
            go_on.wait(timeout=10)
        else:
            go_on.set()

    classifier.requires_grad_ = requires_grad_
    classifier.register_forward_pre_hook(meet)
    inputs = (torch.rand(1, 1, 8, 8), 0, torch.tensor([1]))
    first, second = (threading.Thread(target=classifier.log_prob_gradient, args=inputs) for _ in range(2))
    first.start()
    assert inside.wait(timeout=10)
    second.start()
    first.join()
    second.join()
    assert all(parameter.requires_grad for parameter in classifier.parameters())
