# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from diffscm_diffusers import (
    AntiCausalClassifier2DModel,
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMCounterfactualPipeline,
    DiffSCMGraphCounterfactualPipeline,
    DiffSCMSemanticCounterfactualPipeline,
    SemanticEncoder2DModel,
    StructuralCausalModel,
)
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.commands import join_checkpoint
from diffscm_diffusers.training.components import record_training
from tests.helpers import to_argv
from tests.training.conftest import model_configs  # noqa: F401


@pytest.fixture
def flags(model_configs, tmp_path):  # noqa: F811
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(tmp_path / "denoiser")
    config = AntiCausalClassifier2DModel.load_config(model_configs["classifier_dropout"])
    classifier = AntiCausalClassifier2DModel.from_config(config, num_classes=2, id2label={0: "dark", 1: "light"})
    classifier.save_pretrained(tmp_path / "classifier")
    (tmp_path / "denoiser" / "README.md").write_text("# denoiser\n\n## Training\n\nby\n\n```bash\ntrain it\n```\n")
    return {
        "denoiser": tmp_path / "denoiser",
        "classifier": tmp_path / "classifier",
        "output_dir": tmp_path / "deep" / "joined",
    }


def join(flags):
    join_checkpoint.main(to_argv(flags))


def test_joined_checkpoint_loads_and_predicts(flags):
    join({**flags, "guidance_scale": 3, "num_inference_steps": 4})
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(flags["output_dir"])
    assert pipe.config.default_guidance_scale == 3
    assert pipe.config.default_num_inference_steps == 4
    assert pipe.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    denoiser = DDPMPipeline.from_pretrained(flags["denoiser"]).unet
    assert all(torch.equal(a, b) for a, b in zip(denoiser.parameters(), pipe.unet.parameters(), strict=True))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(PIL.Image.new("L", (8, 8)), ["dark", "light"], output_type="np").images
    assert images.shape == (2, 8, 8, 1) and np.isfinite(images).all()
    assert [path.name for path in flags["output_dir"].parent.iterdir()] == ["joined"]


def test_defaults_are_the_pipelines_where_no_flag_is_given(flags):
    join(flags)
    config = DiffSCMCounterfactualPipeline.from_pretrained(flags["output_dir"]).config
    assert config.default_guidance_scale == 1.0 and config.default_num_inference_steps == 100


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_saved_in_the_type_asked_for(flags, dtype):
    join({**flags, "dtype": dtype})
    for component in ("unet", "classifier"):
        weights = load_file(flags["output_dir"] / component / "diffusion_pytorch_model.safetensors")
        assert {value.dtype for value in weights.values()} == {getattr(torch, dtype)}


def test_card_tells_how_it_came_about(flags):
    join(flags)
    card = ModelCard.load(flags["output_dir"] / "README.md")
    assert f"\ndiffscm join-checkpoint --denoiser {flags['denoiser']}" in card.text
    assert "`dark`, `light`" in card.text
    assert "## Denoiser\n\nby\n\n```bash\ntrain it\n```" in card.text
    assert "## Anti-causal predictor" not in card.text


def test_components_of_different_images_are_refused(flags, tmp_path, model_configs):  # noqa: F811
    config = AntiCausalClassifier2DModel.load_config(model_configs["classifier_dropout"])
    AntiCausalClassifier2DModel.from_config(config, num_classes=2, sample_size=16).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="`classifier` expects the `sample_size` of `unet`, 8, got 16"):
        join({**flags, "classifier": tmp_path / "other"})
    assert not flags["output_dir"].parent.exists()


@pytest.mark.parametrize("weights", ["denoiser/unet", "classifier"])
def test_pickles_are_refused(flags, tmp_path, weights):
    (file,) = (tmp_path / weights).glob("*.safetensors")
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    flag = weights.split("/")[0]
    with pytest.raises(ValueError, match=f"`--{flag}` expects .* no file named .*safetensors"):
        join(flags)
    assert not flags["output_dir"].exists()


@pytest.mark.parametrize(
    ("flag", "folder", "message"),
    [
        ("denoiser", "missing", "`--denoiser` expects .* got '.*missing': there is no such"),
        ("denoiser", "denoiser/unet", "`--denoiser` expects .* got '.*unet': .*scheduler_config.json"),
        ("classifier", "missing", "`--classifier` expects .* got '.*missing': there is no such"),
        ("classifier", "denoiser", "`--classifier` expects .* got '.*denoiser': .*config.json"),
        # Its weights would be loaded into the layers that both have.
        ("classifier", "denoiser/unet", "`--classifier` expects .* got '.*unet': it holds UNet2DModel"),
        ("classifier", "classifier/config.json", "`--classifier` expects .* got '.*config.json': "),
    ],
)
def test_components_that_are_none_are_refused(flags, tmp_path, flag, folder, message):
    with pytest.raises(ValueError, match=message) as error:
        join({**flags, flag: tmp_path / folder})
    assert error.value.__cause__ is not None or folder == "missing"
    assert not flags["output_dir"].parent.exists()


@pytest.mark.parametrize(("flag", "file"), [("denoiser", "unet/config.json"), ("classifier", "config.json")])
def test_components_that_lack_a_file_are_refused(flags, flag, file):
    (flags[flag] / file).unlink()
    with pytest.raises(ValueError, match=f"`--{flag}` expects .*config.json"):
        join(flags)


def test_more_steps_than_training_steps_are_refused(flags):
    with pytest.raises(ValueError, match="`--num_inference_steps` expects at most the denoiser's 1000 .* got 1001"):
        join({**flags, "num_inference_steps": 1001})


def test_folder_that_exists_is_left_alone(flags):
    flags["output_dir"].mkdir(parents=True)
    with pytest.raises(ValueError, match="`--output_dir` expects a new folder"):
        join(flags)
    assert list(flags["output_dir"].iterdir()) == []


def test_failed_write_leaves_nothing_under_the_name(flags, monkeypatch):
    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(join_checkpoint, "save_card", full_disk)
    with pytest.raises(OSError, match="No space"):
        join(flags)
    assert list(flags["output_dir"].parent.iterdir()) == []


def test_components_trained_on_other_noise_are_refused(flags):
    classifier = AntiCausalClassifier2DModel.from_pretrained(flags["classifier"])
    record_training(classifier, DDPMScheduler(beta_schedule="linear"))
    classifier.save_pretrained(flags["classifier"])
    with pytest.raises(
        ValueError, match="`classifier` expects a network trained on .* 'squaredcos_cap_v2', .* 'linear'"
    ):
        join(flags)
    assert not flags["output_dir"].exists()


def test_weights_that_float16_cannot_hold_are_refused(flags):
    denoiser = DDPMPipeline.from_pretrained(flags["denoiser"])
    denoiser.unet.conv_in.weight.data.view(-1)[0] = 1e5
    denoiser.unet.save_pretrained(flags["denoiser"] / "unet")
    with pytest.raises(ValueError, match="`unet` expects finite weights, got NaN or infinity in conv_in.weight"):
        join({**flags, "dtype": "float16"})
    assert not flags["output_dir"].exists()


@pytest.fixture
def encoder(tmp_path):
    """An encoder of images of two classes."""
    config = {"code_dim": 7, "block_out_channels": (4, 4, 4), "hidden_features": 8, "sample_size": 8}
    SemanticEncoder2DModel(condition_dim=2, **config).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.fixture
def graph_parts(tmp_path, model_configs):  # noqa: F811
    """Networks of two classes as the only parent of the image."""
    widths, folder = [["class", 2]], tmp_path / "parts"
    config = UNet2DModel.load_config(model_configs["unet"])
    for in_channels in (1, 2):
        unet = CausalUNet2DModel.from_config(config, condition_widths=widths, in_channels=in_channels, out_channels=1)
        unet.save_pretrained(folder / f"denoiser-{in_channels}" / "unet")
        DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / f"denoiser-{in_channels}/scheduler")
    config = CausalPredictor2DModel.load_config(model_configs["predictor"])
    CausalPredictor2DModel.from_config(config, condition_widths=widths).save_pretrained(folder / "predictor")
    graph = CausalGraph({"class": {"kind": "categorical", "labels": ["dark", "light"]}}, [["class", "image"]])
    scm = StructuralCausalModel(graph)
    scm.fit(pd.DataFrame({"class": ["dark", "light"] * 20}), num_steps=1, progress_bar=False)
    scm.save_pretrained(folder / "scm")
    return folder


def test_encoder_makes_a_semantic_pipeline(flags, encoder):
    unet = UNet2DModel.from_config(UNet2DModel.load_config(flags["denoiser"] / "unet"), in_channels=2)
    # As train_diffusion.py writes a denoiser that is told causes.
    unet.save_pretrained(flags["denoiser"] / "unet")
    (flags["denoiser"] / "model_index.json").unlink()
    settings = {"num_inference_steps": 2, "dtype": "float16", "timestep_spacing": "quadratic", "num_corrections": 1}
    settings |= {"dequantize": True, "abduction": "implicit", "tolerance": 0.01, "steps_offset": 3}
    join({**flags, "encoder": encoder, **settings})
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(flags["output_dir"])
    assert pipe.scheduler.config.timestep_spacing == pipe.inverse_scheduler.config.timestep_spacing == "quadratic"
    assert pipe.scheduler.config.steps_offset == pipe.inverse_scheduler.config.steps_offset == 3
    assert pipe.encoder.config.num_corrections == 1 and pipe.config.dequantize
    assert (pipe.config.default_abduction, pipe.config.default_tolerance) == ("implicit", 0.01)
    assert pipe.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    pipe.set_progress_bar_config(disable=True)
    images = pipe(PIL.Image.new("L", (8, 8)), ["dark", "light"], output_type="np").images
    assert images.shape == (2, 8, 8, 1)
    card = ModelCard.load(flags["output_dir"] / "README.md").text
    assert "pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained" in card
    assert "| semantic encoder | `SemanticEncoder2DModel`" in card and "guidance scale" not in card
    with pytest.raises(ValueError, match="`--guidance_scale` expects no `--encoder` beside .* got 2.0"):
        join({**flags, "encoder": encoder, "output_dir": flags["output_dir"].with_name("other"), "guidance_scale": 2})


@pytest.mark.parametrize("with_others", [False, True])
def test_scm_makes_a_pipeline_of_the_graph(graph_parts, encoder, tmp_path, with_others):
    flags = {"scm": graph_parts / "scm", "output_dir": tmp_path / "joined", "num_inference_steps": 2}
    flags |= {"denoiser": graph_parts / f"denoiser-{2 if with_others else 1}"}
    if with_others:
        flags |= {"encoder": encoder, "predictor": graph_parts / "predictor", "guidance_scale": 2}
    join(flags)
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(tmp_path / "joined")
    assert (pipe.encoder is not None, pipe.predictor is not None) == (with_others, with_others)
    assert pipe.config.default_guidance_scale == (2 if with_others else 1)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(PIL.Image.new("L", (8, 8)), {"class": "dark"}, do={"class": "light"}, output_type="np").images
    assert images.shape == (1, 8, 8, 1) and np.isfinite(images).all()
    assert "mermaid" in ModelCard.load(tmp_path / "joined" / "README.md").text


def test_networks_that_belong_to_no_pipeline_are_refused(flags, graph_parts):
    predictor, scm = graph_parts / "predictor", graph_parts / "scm"
    with pytest.raises(ValueError, match="`--classifier` expects an anti-causal predictor, unless .* got none"):
        join({name: value for name, value in flags.items() if name != "classifier"})
    for name, value in (("dequantize", True), ("abduction", "implicit"), ("tolerance", 0.1)):
        with pytest.raises(ValueError, match=f"`--{name}` expects an `--encoder` or an `--scm`, got {value} alone"):
            join({**flags, name: value})
    with pytest.raises(ValueError, match="`--num_corrections` expects an `--encoder`, got 1 alone"):
        join({**flags, "num_corrections": 1})
    with pytest.raises(ValueError, match="`--predictor` expects an `--scm`, .* got '.*predictor' alone"):
        join({**flags, "predictor": predictor})
    with pytest.raises(ValueError, match="`--classifier` expects no `--scm`, .* got '.*classifier'"):
        join({**flags, "scm": scm})
    with pytest.raises(ValueError, match="`--encoder` expects .* got '.*classifier': it holds AntiCausalClassifier2D"):
        join({**flags, "encoder": flags["classifier"]})
