# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

import diffscm_diffusers
from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.commands import convert_adm, join_checkpoint
from diffscm_diffusers.models.adm_unet_2d import ADMUNet2DModel
from tests.conversion.adm_reference import ADM, random_weights, run
from tests.helpers import run_in_fresh_process, to_argv


DENOISER = ADM()
CLASSIFIER = ADM(pool="attention", num_classes=1000)
FLAGS = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": 8,
    "num_head_channels": 16,
    "learn_sigma": "True",
    "resblock_updown": "True",
    "classifier_width": 32,
    "classifier_depth": 1,
    "classifier_channel_mult": "1,2",
    "classifier_attention_resolutions": 8,
    "classifier_num_head_channels": 16,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with the two files to convert."""
    folder = tmp_path_factory.mktemp("models")
    torch.save(random_weights(DENOISER), folder / "diffusion.pt")
    torch.save(random_weights(CLASSIFIER, seed=1), folder / "classifier.pt")
    return folder


@pytest.fixture
def flags(models, tmp_path) -> dict:
    return {
        **FLAGS,
        "model_path": models / "diffusion.pt",
        "classifier_path": models / "classifier.pt",
        "output_dir": tmp_path / "deep" / "converted",
    }


def convert(flags, **others):
    """Converts; a flag that is `None` is left out."""
    flags = {name: value for name, value in {**flags, **others}.items() if value is not None}
    convert_adm.main(to_argv(flags))
    assert os.listdir(flags["output_dir"].parent) == [flags["output_dir"].name]
    return flags["output_dir"]


def assert_refused(flags, match, error=ValueError, **others):
    """Converting fails with a message and leaves nothing behind."""
    with pytest.raises(error, match=match):
        convert(flags, **others)
    parent = flags["output_dir"].parent
    assert not parent.exists() or os.listdir(parent) == []


def get_dummy_inputs():
    sample = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return sample, torch.tensor([7, 640])


def assert_is_the_denoiser(unet, adm=DENOISER, class_labels=None):
    sample, timesteps = get_dummy_inputs()
    expected = run(adm, random_weights(adm), sample, timesteps, class_labels)
    with torch.no_grad():
        torch.testing.assert_close(unet(sample, timesteps, class_labels).sample, expected, rtol=1e-5, atol=1e-5)


def assert_is_the_classifier(classifier):
    sample, timesteps = get_dummy_inputs()
    expected = run(CLASSIFIER, random_weights(CLASSIFIER, seed=1), sample, timesteps)
    with torch.no_grad():
        torch.testing.assert_close(classifier(sample, timesteps).logits, expected, rtol=1e-5, atol=1e-5)


class TestConversion:
    def test_both_networks(self, flags):
        folder = convert(flags, classifier_scale=5, num_inference_steps=25, noise_schedule="cosine")
        pipe = DiffSCMCounterfactualPipeline.from_pretrained(folder)
        assert type(pipe.unet) is UNet2DModel
        assert_is_the_denoiser(pipe.unet)
        assert_is_the_classifier(pipe.classifier)
        assert not pipe.unet.training and not pipe.classifier.training
        assert pipe.classifier.id2label[281] == "tabby, tabby cat"
        assert pipe.config.default_guidance_scale == 5 and pipe.config.default_num_inference_steps == 25
        assert pipe.scheduler.config.beta_schedule == "squaredcos_cap_v2"
        assert DDPMScheduler.from_config(pipe.scheduler.config).config.variance_type == "learned_range"

    def test_denoiser_and_classifier_alone_can_be_joined(self, flags, tmp_path):
        denoiser = convert(flags, classifier_path=None)
        classifier = convert(flags, model_path=None, output_dir=tmp_path / "other" / "classifier")
        assert_is_the_denoiser(DDPMPipeline.from_pretrained(denoiser).unet)
        assert_is_the_classifier(AntiCausalClassifier2DModel.from_pretrained(classifier))
        joined = {"denoiser": denoiser, "classifier": classifier, "output_dir": tmp_path / "joined"}
        join_checkpoint.main(to_argv(joined))
        assert_is_the_denoiser(DiffSCMCounterfactualPipeline.from_pretrained(tmp_path / "joined").unet)

    def test_class_conditional_denoiser_is_saved_alone(self, flags, tmp_path, capsys):
        adm = ADM(num_classes=6)
        torch.save(random_weights(adm), tmp_path / "conditional.pt")
        flags = {**flags, "model_path": tmp_path / "conditional.pt", "class_cond": "True"}
        assert_refused(flags, "`--class_cond True`: .* Convert the class-conditional one alone")

        folder = convert(flags, classifier_path=None)
        assert "`UNet2DModel.from_pretrained(" in capsys.readouterr().out
        assert sorted(os.listdir(folder)) == ["scheduler", "unet"]
        unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
        assert_is_the_denoiser(unet, adm, torch.tensor([5, 2]))
        assert DDPMScheduler.from_pretrained(folder, subfolder="scheduler").config.variance_type == "learned_range"

    def test_denoiser_beyond_diffusers_class(self, flags, tmp_path, capsys):
        adm = ADM(num_heads=2, num_head_channels=-1, attention_resolutions=(16, 8), num_classes=6)
        torch.save(random_weights(adm), tmp_path / "heads.pt")
        heads = {"num_heads": 2, "num_head_channels": None, "attention_resolutions": "16,8", "class_cond": "True"}
        folder = convert(flags, model_path=tmp_path / "heads.pt", classifier_path=None, **heads)
        assert "`ADMUNet2DModel.from_pretrained(" in capsys.readouterr().out
        unet = ADMUNet2DModel.from_pretrained(folder, subfolder="unet")
        assert_is_the_denoiser(unet, adm, torch.tensor([5, 2]))

    def test_pipeline_with_such_a_denoiser(self, flags, tmp_path, monkeypatch):
        monkeypatch.setattr(diffscm_diffusers, "ADMUNet2DModel", ADMUNet2DModel, raising=False)
        adm = ADM(num_channels=64, channel_mult=(0.5, 1))
        torch.save(random_weights(adm), tmp_path / "wide.pt")
        folder = convert(flags, model_path=tmp_path / "wide.pt", num_channels=64, channel_mult="0.5,1")
        assert_is_the_denoiser(DiffSCMCounterfactualPipeline.from_pretrained(folder).unet, adm)

    def test_diffscms_own_checkpoints(self, tmp_path):
        denoiser = ADM(
            image_size=28,
            in_channels=1,
            channel_mult=(1, 2, 2),
            attention_resolutions=(),
            num_heads=1,
            num_head_channels=-1,
            resblock_updown=False,
            learn_sigma=False,
        )
        classifier = ADM(
            pool="attention",
            num_classes=10,
            image_size=28,
            in_channels=1,
            channel_mult=(1, 2, 4, 4),
            attention_resolutions=(),
            num_head_channels=64,
        )
        torch.save(random_weights(denoiser), tmp_path / "score.pt")
        torch.save(random_weights(classifier), tmp_path / "classifier.pt")
        flags = {
            "image_size": 28,
            "num_channels": 32,
            "num_res_blocks": 1,
            "channel_mult": "1,2,2",
            "attention_resolutions": "",
            "num_heads": 1,
            "diffusion_steps": 100,
            "classifier_width": 32,
            "classifier_depth": 1,
            "classifier_channel_mult": "1,2,4,4",
            "classifier_attention_resolutions": "",
            "model_path": tmp_path / "score.pt",
            "classifier_path": tmp_path / "classifier.pt",
            "output_dir": tmp_path / "new" / "converted",
        }
        pipe = DiffSCMCounterfactualPipeline.from_pretrained(convert(flags))
        assert pipe.classifier.id2label == {i: str(i) for i in range(10)}
        assert pipe.scheduler.betas[-1] == pytest.approx(10 * 0.02)
        pipe.set_progress_bar_config(disable=True)
        output = pipe(torch.rand(1, 28, 28), ["3", "7"], num_inference_steps=2, output_type="pt")
        assert output.images.shape == (2, 1, 28, 28) and output.images.isfinite().all()

    @pytest.mark.parametrize("file", ("old.pt", "weights.safetensors", "double.pt"))
    def test_other_file_formats(self, flags, tmp_path, file):
        weights = random_weights(DENOISER)
        if file == "old.pt":
            torch.save(weights, tmp_path / file, _use_new_zipfile_serialization=False)
        elif file == "double.pt":
            torch.save({name: weight.double() for name, weight in weights.items()}, tmp_path / file)
        else:
            save_file(weights, tmp_path / file)
        folder = convert(flags, model_path=tmp_path / file, classifier_path=None)
        saved = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
        assert {weight.dtype for weight in saved.values()} == {torch.float32}
        assert_is_the_denoiser(DDPMPipeline.from_pretrained(folder).unet)

    def test_names_of_the_classes(self, flags, tmp_path):
        names = [f"class number {i}" for i in range(1000)]
        (tmp_path / "names.json").write_text(json.dumps(names))
        folder = convert(flags, model_path=None, id2label=tmp_path / "names.json")
        assert list(AntiCausalClassifier2DModel.from_pretrained(folder).id2label.values()) == names

        adm = ADM(pool="adaptive", num_classes=10)
        torch.save(random_weights(adm), tmp_path / "ten.pt")
        other = {"classifier_path": tmp_path / "ten.pt", "classifier_pool": "adaptive", "model_path": None}
        folder = convert({**flags, **other, "output_dir": tmp_path / "ten" / "classifier"})
        assert AntiCausalClassifier2DModel.from_pretrained(folder).id2label == {i: str(i) for i in range(10)}

    def test_half_precision_is_a_variant_beside_the_full_one(self, flags):
        folder = convert(flags, use_fp16="True", max_shard_size="500KB")
        for component in ("unet", "classifier"):
            files = os.listdir(folder / component)
            assert "diffusion_pytorch_model.safetensors.index.json" in files
            assert "diffusion_pytorch_model.safetensors.index.fp16.json" in files
            for file in (file for file in files if file.endswith(".safetensors")):
                assert os.path.getsize(folder / component / file) < 600e3
                dtypes = {weight.dtype for weight in load_file(folder / component / file).values()}
                assert dtypes == {torch.float16 if ".fp16-" in file else torch.float32}
        full = DiffSCMCounterfactualPipeline.from_pretrained(folder)
        assert_is_the_denoiser(full.unet)
        half = DiffSCMCounterfactualPipeline.from_pretrained(folder, variant="fp16", dtype=torch.float16)
        for name, weight in full.unet.state_dict().items():
            assert torch.equal(half.unet.state_dict()[name], weight.half())


class Payload:
    """Its pickle creates a file where it is loaded without care."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def convert_where_files_are_small(limit, argv):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(Exception, match="File too large"):
        convert_adm.main(argv)


class TestBadInput:
    def test_no_network(self, flags):
        assert_refused(
            flags, "At least one of `--model_path` and `--classifier_path`", model_path=None, classifier_path=None
        )

    def test_existing_folder(self, flags):
        flags["output_dir"].mkdir(parents=True)
        with pytest.raises(ValueError, match="`--output_dir` expects a new folder"):
            convert(flags)

    def test_all_missing_surplus_and_misshapen_weights_are_listed(self, flags, tmp_path):
        weights = random_weights(DENOISER)
        weights["time_embed.9.weight"], weights["ema"] = torch.zeros(2), torch.zeros(1)
        del weights["input_blocks.1.0.in_layers.0.weight"], weights["output_blocks.0.1.qkv.bias"]
        weights["middle_block.1.qkv.weight"] = torch.zeros(192, 32, 1)
        weights["out.2.bias"] = torch.zeros(3)
        torch.save(weights, tmp_path / "wrong.pt")
        match = re.escape(
            "not those of the UNet2DModel that the flags describe:\n"
            "2 missing:\n  input_blocks.1.0.in_layers.0.weight\n  output_blocks.0.1.qkv.bias\n"
            "2 surplus:\n  time_embed.9.weight\n  ema\n"
            "2 of another shape:\n  middle_block.1.qkv.weight (192, 32, 1) for (192, 64)\n  out.2.bias (3,) for (6,)\n"
            "Use the flags that the network was trained with."
        )
        assert_refused(flags, match, model_path=tmp_path / "wrong.pt")

    @pytest.mark.parametrize(
        "flag, value, match",
        (
            (
                "learn_sigma",
                "False",
                r"2 of another shape:\n  out.2.weight \(6, 32, 3, 3\) for \(3, 32, 3, 3\)\n  out.2.bias",
            ),
            ("num_channels", 64, r"of another shape:\n(  .*\n)*  time_embed.0.weight \(128, 32\) for \(256, 64\)"),
            ("num_res_blocks", 2, r"missing:\n(  .*\n)*  output_blocks.5.0.out_layers.3.bias"),
            ("attention_resolutions", 16, r"surplus:\n(  .*\n)*  input_blocks.3.1.qkv.weight"),
            ("resblock_updown", "False", r"missing:\n(  .*\n)*  input_blocks.2.0.op.weight"),
            ("use_scale_shift_norm", "False", r"of another shape:\n(  .*\n)*  input_blocks.1.0.emb_layers.1.weight"),
            ("class_cond", "True", r"1 missing:\n  label_emb.weight\n"),
            (
                "classifier_pool",
                "spatial_v2",
                r"AntiCausalClassifier2DModel.*\n(.*\n)*4 missing:\n(  .*\n)*  out.3.weight",
            ),
            ("classifier_depth", 2, r"AntiCausalClassifier2DModel.*\n.*missing:\n(  .*\n)*  input_blocks.4.0"),
        ),
    )
    def test_another_architecture_than_the_flags_say(self, flags, flag, value, match):
        network = "classifier" if flag.startswith("classifier") else "model"
        alone = {"model_path": None, "classifier_path": None, f"{network}_path": flags[f"{network}_path"]}
        assert_refused(flags, match, **{**alone, flag: value})

    def test_classifier_in_the_place_of_the_denoiser(self, flags):
        assert_refused(
            flags, r"missing:\n(  .*\n)*  output_blocks.0.0.in_layers.0.weight", model_path=flags["classifier_path"]
        )

    @pytest.mark.parametrize("new_format", (True, False))
    def test_code_in_a_pickle_is_not_run(self, flags, tmp_path, new_format):
        trace = tmp_path / "trace"
        weights = {**random_weights(DENOISER), "payload": Payload(trace)}
        torch.save(weights, tmp_path / "evil.pt", _use_new_zipfile_serialization=new_format)
        assert_refused(flags, "no code in it was run", model_path=tmp_path / "evil.pt")
        assert not trace.exists()
        pickle.loads(pickle.dumps(Payload(trace)))
        assert trace.exists()

    @pytest.mark.parametrize("suffix", (".pt", ".safetensors"))
    def test_torn_file(self, flags, tmp_path, suffix):
        whole, torn = tmp_path / f"whole{suffix}", tmp_path / f"torn{suffix}"
        (torch.save if suffix == ".pt" else save_file)(random_weights(DENOISER), whole)
        for fraction in (0, 0.001, 0.6):
            torn.write_bytes(whole.read_bytes()[: int(fraction * whole.stat().st_size)])
            assert_refused(flags, "damaged or incomplete|is no checkpoint", model_path=torn)

    def test_no_file(self, flags):
        message = "`--classifier_path` expects a file .*downloaded, got 'nowhere.pt': there is no such file"
        assert_refused(flags, message, classifier_path="nowhere.pt")

    @pytest.mark.parametrize(
        "content", ({"step": 3}, [torch.zeros(2)], torch.zeros(2), {"model": {"a": torch.zeros(2)}})
    )
    def test_no_state_dict(self, flags, tmp_path, content):
        torch.save(content, tmp_path / "other.pt")
        assert_refused(flags, "holds no state dict", model_path=tmp_path / "other.pt")

    def test_another_number_of_names(self, flags, tmp_path):
        (tmp_path / "names.json").write_text('["one", "two"]')
        assert_refused(flags, "`id2label` expects a name for each class", id2label=tmp_path / "names.json")

    def test_no_list_of_names(self, flags, tmp_path):
        (tmp_path / "names.json").write_text('{"0": "one"}')
        assert_refused(flags, "`--id2label` expects a JSON list of names", id2label=tmp_path / "names.json")

    def test_no_channels_per_head(self, flags):
        assert_refused(flags, "`--num_head_channels` expects a positive number, or -1", num_head_channels=0)

    def test_more_inference_than_diffusion_steps(self, flags):
        assert_refused(flags, "`--num_inference_steps` expects at most .* 1000, got 1001", num_inference_steps=1001)

    def test_no_room_on_the_disk(self, flags, monkeypatch):
        usage = namedtuple("usage", "total used free")
        for free, use_fp16 in ((5_000_000, "False"), (6_000_000, "True")):
            monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: usage(10**9, 10**9 - free, free))
            assert_refused(flags, "The checkpoint needs 0.0 GB.*Make room", OSError, use_fp16=use_fp16)

    def test_disk_full_while_writing(self, flags, models):
        """The largest file that the process may write is smaller than the second network, as if the disk were full."""
        limit = 2_000_000
        assert (models / "classifier.pt").stat().st_size < limit < (models / "diffusion.pt").stat().st_size
        run_in_fresh_process(convert_where_files_are_small, limit, to_argv(flags))
        assert os.listdir(flags["output_dir"].parent) == []

    @pytest.mark.parametrize("flag, value", (("class_cond", "yes"), ("channel_mult", "1,b"), ("image_size", 0)))
    def test_flags(self, flags, flag, value, capsys):
        with pytest.raises(SystemExit):
            convert(flags, **{flag: value})
        assert f"argument --{flag}:" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_is_little_more_than_the_weights(tmp_path):
    """A denoiser of 0.5 GB; the process is a fresh one, and its memory before it converts does not count."""
    adm = ADM(num_channels=256, num_res_blocks=2, channel_mult=(1, 2), num_head_channels=64)
    weights = random_weights(adm)
    torch.save(weights, tmp_path / "large.pt")
    num_bytes = sum(weight.nbytes for weight in weights.values())
    flags = {
        **FLAGS,
        "num_channels": 256,
        "num_res_blocks": 2,
        "num_head_channels": 64,
        "use_fp16": "True",
        "max_shard_size": "100MB",
        "model_path": tmp_path / "large.pt",
        "output_dir": tmp_path / "converted",
    }
    code = (
        "import resource, sys; from diffscm_diffusers.commands import convert_adm; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; convert_adm.main(sys.argv[1:]); "
        "print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))"
    )
    command = [sys.executable, "-c", code, *to_argv(flags)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout.split()[-1]) < 1.2 * num_bytes
