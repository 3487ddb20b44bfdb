# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import math

import PIL.Image
import pytest
import torch
from datasets import Dataset, Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffscm_diffusers import SemanticEncoder2DModel
from diffscm_diffusers.training.independence import CauseAdversary
from tests.helpers import load_script, to_argv


@pytest.fixture
def encoder_flags(model_configs, tmp_path):
    return {
        "model_config_name_or_path": model_configs["encoder"],
        "train_batch_size": 6,
        "max_train_steps": 2,
        "lr_warmup_steps": 1,
        "loss_warmup_steps": 0,
        "num_validation_images": 6,
        "validation_grid_size": 2,
        "logging_steps": 1,
        "report_to": "none",
        "output_dir": tmp_path / "encoder",
    }


@pytest.mark.parametrize("storage", [{}, {"cache_images": True}, {"streaming": True}], ids=["map", "cached", "stream"])
def test_graph_gives_the_causes(graph_flags, encoder_flags, storage):
    load_script("train_semantic_encoder").main(to_argv({**graph_flags, **encoder_flags, **storage}))
    output_dir = encoder_flags["output_dir"]
    encoder = SemanticEncoder2DModel.from_pretrained(output_dir)
    assert encoder.config.condition_dim == 3
    assert "train_semantic_encoder.py" in (output_dir / "README.md").read_text()
    # Two rows: factual, reconstruction, three levels and two shades.
    assert PIL.Image.open(output_dir / "samples" / "0000002.png").size == (7 * 8, 2 * 8)


def test_class_alone_is_the_cause(image_folder, cache_dir, encoder_flags):
    flags = {"train_data_dir": image_folder, "cache_dir": cache_dir, **encoder_flags, "code_dim": 9, "use_ema": True}
    flags |= {"residual_std": 0.2, "num_corrections": 2}
    load_script("train_semantic_encoder").main(to_argv(flags))
    config = SemanticEncoder2DModel.load_config(encoder_flags["output_dir"])
    names = ("condition_dim", "code_dim", "residual_std", "num_corrections")
    assert [config[name] for name in names] == [2, 9, 0.2, 2]


def test_named_causes_act_by_a_gain(graph_flags, encoder_flags, monkeypatch):
    """The condition is a level and two shades."""
    script, flags = load_script("train_semantic_encoder"), {**graph_flags, **encoder_flags}
    script.main([*to_argv(flags), "--gain_causes", "level"])
    output_dir = flags.pop("output_dir")
    assert SemanticEncoder2DModel.load_config(output_dir)["gain_conditions"] == [0]

    # A model that has them goes on with them.
    del flags["model_config_name_or_path"]
    flags |= {"pretrained_model_name_or_path": output_dir, "output_dir": output_dir / "more"}
    script.main(to_argv(flags))
    assert SemanticEncoder2DModel.load_config(output_dir / "more")["gain_conditions"] == [0]
    with pytest.raises(ValueError, match=r"a model whose `gain_conditions` is \[1, 2\].* got \[0\]"):
        script.main([*to_argv(flags), "--gain_causes", "shade"])
    # Before the images are read.
    monkeypatch.setattr(script, "load_flagged_dataset", None)
    expected = r"`--gain_causes` expects parents of the image, \['level', 'shade'\], got \['colour'\]"
    with pytest.raises(ValueError, match=expected):
        script.main([*to_argv(flags), "--gain_causes", "level", "colour"])


@pytest.mark.parametrize(
    ("flags", "law"),
    [
        ({}, torch.distributions.Normal(0, 0.2)),
        ({"likelihood": "laplace"}, torch.distributions.Laplace(0, 0.2 / math.sqrt(2))),
    ],
    ids=["gaussian", "laplace"],
)
def test_loss_is_the_stated_one(graph_flags, encoder_flags, monkeypatch, flags, law):
    assert law.stddev.item() == pytest.approx(0.2)
    calls = []
    forward = SemanticEncoder2DModel.forward

    def record_call(self, sample, condition, *args, **kwargs):
        output = forward(self, sample, condition, *args, **kwargs)
        if self.training:
            assert torch.equal(kwargs["other_condition"], condition[[-1, *range(len(condition) - 1)]])
            calls.append((sample, *(part.detach() for part in output)))
        return output

    monkeypatch.setattr(SemanticEncoder2DModel, "forward", record_call)
    weights = {"divergence": 2, "mean_dependence": 30, "kernel_dependence": 400}
    weight_flags = {"adversary_weight": 2, "mean_weight": 30, "kernel_weight": 400, "consistency_weight": 7}
    flags = {**graph_flags, **encoder_flags, **weight_flags, "loss_warmup_steps": 4, "sigma": 0.2, **flags}
    load_script("train_semantic_encoder").main(to_argv({**flags, "report_to": "tensorboard"}))
    events = EventAccumulator(str(encoder_flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()

    for step, (sample, decoded, code, mean, std, transferred) in enumerate(calls):
        assert not torch.equal(code, mean)
        error = (law.log_prob(torch.zeros(())) - law.log_prob((sample - decoded) / 2)).sum(dim=(1, 2, 3)).mean()
        prior = torch.distributions.Normal(torch.zeros_like(mean), 1)
        kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), prior).sum(dim=1).mean()
        costs = sum(weight * events.Scalars(name)[step].value for name, weight in weights.items())
        read = torch.distributions.Normal(transferred, std)
        misread = (read.log_prob(transferred) - read.log_prob(code)).sum(dim=1).mean()
        assert events.Scalars("inconsistency")[step].value == pytest.approx(misread.item(), rel=1e-4)
        loss = error.item() + (step + 1) / 4 * (kl.item() + costs + 7 * misread.item())
        assert events.Scalars("kl")[step].value == pytest.approx(kl.item(), rel=1e-4)
        assert events.Scalars("loss")[step].value == pytest.approx(loss, rel=1e-4)
    assert len(calls) == 2
    assert {"information", "validation/l1", "validation/kl", "validation/information"} < set(events.Tags()["scalars"])


def test_adversary_learns_the_same_whatever_the_encoder_pays(graph_flags, encoder_flags):
    """Its first step depends on the first codes alone; the encoder's depends on what it pays."""
    weights = {"checkpoint-1/model.safetensors": [], "checkpoint-1/model_1.safetensors": []}
    for weight in (0, 50):
        output_dir = encoder_flags["output_dir"] / str(weight)
        flags = {**graph_flags, **encoder_flags, "max_train_steps": 1, "lr_warmup_steps": 0, "max_grad_norm": 1e9}
        load_script("train_semantic_encoder").main(
            to_argv({**flags, "adversary_weight": weight, "output_dir": output_dir})
        )
        for name, found in weights.items():
            found.append(load_file(output_dir / name))
    encoders, adversaries = weights.values()
    assert all(torch.equal(adversaries[0][name], adversaries[1][name]) for name in adversaries[0])
    assert not torch.equal(encoders[0]["code_out.weight"], encoders[1]["code_out.weight"])
    # The decoder's part in the cost is none.
    assert torch.equal(encoders[0]["conv_out.weight"], encoders[1]["conv_out.weight"])


def test_adversary_takes_as_many_steps_as_asked_for(graph_flags, encoder_flags, monkeypatch):
    codes = []
    forward = CauseAdversary.forward

    def record_call(self, code, condition):
        if torch.is_grad_enabled() and not code.requires_grad:
            codes.append(code)
        return forward(self, code, condition)

    monkeypatch.setattr(CauseAdversary, "forward", record_call)
    flags = {**graph_flags, **encoder_flags, "max_train_steps": 1, "lr_warmup_steps": 0, "adversary_steps": 3}
    load_script("train_semantic_encoder").main(to_argv(flags))
    assert len(codes) == 3
    assert not torch.equal(codes[0], codes[1]) and not torch.equal(codes[1], codes[2])


def test_training_images_are_shifted_by_whole_pixels(graph_flags, encoder_flags, monkeypatch):
    seen = {0: [], 1: []}
    forward = SemanticEncoder2DModel.forward
    for max_shift, samples in seen.items():

        def record_sample(self, sample, *args, samples=samples, **kwargs):
            samples.extend(sample if self.training else ())
            return forward(self, sample, *args, **kwargs)

        monkeypatch.setattr(SemanticEncoder2DModel, "forward", record_sample)
        output_dir = encoder_flags["output_dir"] / str(max_shift)
        flags = {**graph_flags, **encoder_flags, "max_shift": max_shift, "output_dir": output_dir}
        load_script("train_semantic_encoder").main(to_argv(flags))

    shifts = set()
    for image, shifted in zip(*seen.values(), strict=True):
        padded = torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
        found = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(shifted, padded[:, 1 - down : 9 - down, 1 - right : 9 - right])
        ]
        assert found
        shifts.add(found[0])
    # Both ways, in both directions, and not all alike.
    assert all({shift[axis] for shift in shifts} == {-1, 0, 1} for axis in (0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batch_size": 3}, "`--train_batch_size` expects at least 4, from which dependence is .* got 3"),
        ({"code_dim": 6}, "`code_dim` expects at least 7"),
        ({"validation_split": "other"}, r"`--validation_split` expects one of .* \['test', 'train'\], got 'other'"),
    ],
)
def test_run_that_cannot_be_done_is_refused(graph_flags, encoder_flags, changes, message):
    with pytest.raises(ValueError, match=message):
        load_script("train_semantic_encoder").main(to_argv({**graph_flags, **encoder_flags, **changes}))


def test_table_that_does_not_fit_the_graph_is_refused(graph_flags, encoder_flags, tmp_path):
    main = load_script("train_semantic_encoder").main

    def run_on(graph=None, **columns):
        rows = {"picture": [PIL.Image.new("L", (8, 8))] * 8, "shade": ["dark", "light"] * 4, "level": [1.0] * 8}
        flags = {**graph_flags, **encoder_flags, "train_split": "train", "validation_split": "train"}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        table = Dataset.from_dict({name: values for name, values in (rows | columns).items() if values is not None})
        table.cast_column("picture", Image()).to_parquet(folder / "train.parquet")
        flags["dataset_name"] = folder
        if graph is not None:
            flags["graph"] = tmp_path / "other.json"
            flags["graph"].write_text(json.dumps(graph))
        main(to_argv(flags))

    with pytest.raises(ValueError, match=r"`graph` expects a column for each parent .* but \['level'\] are none of"):
        run_on(level=None)
    with pytest.raises(ValueError, match=r"`graph` expects numbers in the column 'level', which is Value\('string'\)"):
        run_on(level=["high"] * 8)
    with pytest.raises(ValueError, match=r"Column 'level', row 5 of the split 'train' .* \[0, 10\] steps, got nan"):
        run_on(level=[1.0] * 5 + [float("nan")] + [11.0] * 2)
    with pytest.raises(ValueError, match="Column 'level', row 2 of the split 'train' .* expects a value, got none"):
        run_on(level=[1.0, 2.0, None] + [3.0] * 5)
    with pytest.raises(ValueError, match=r"Column 'shade', row 3 of .* labels among \['dark', 'light'\], got 'grey'"):
        run_on(shade=["dark", "light", "dark", "grey"] * 2)
    run_on()
