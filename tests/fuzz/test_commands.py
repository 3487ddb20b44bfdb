# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Bad flags of every command and every training script: status 2, and one line on stderr that names the flag, what it
expects and what it got. No data set or checkpoint that is meant here is whole, so that nothing is computed.
"""

import importlib.util
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub
import PIL.Image
import pytest
from tqdm import tqdm

from diffscm_diffusers import SemanticEncoder2DModel
from diffscm_diffusers.commands import diffscm

from ..commands.conftest import *  # noqa: F403
from ..evaluation.small_vae import TINT, make_graph, save_vae
from ..helpers import TRAIN_SCRIPTS


ROOT = TRAIN_SCRIPTS.parent


def load_parsers():
    spec = importlib.util.spec_from_file_location("list_flags", ROOT / "docs" / "list_flags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load_parsers()


PARSERS = load_parsers()
COMMANDS = diffscm.list_commands()
# Values that a type refuses, and one that it takes.
NO_VALUE = {
    "positive_int": (["0", "-1", "2.5", "two", "nan", "1e3"], "1"),
    "non_negative_int": (["-1", "2.5", "two", "nan"], "1"),
    "positive_float": (["0", "-1", "nan", "inf", "1,5", "two"], "1"),
    "non_negative_float": (["-0.5", "nan", "inf", "two"], "1"),
    "fraction": (["-0.1", "1.1", "nan", "half"], "1"),
    "rate": (["-0.1", "1", "nan", "half"], "0.5"),
    "boolean": (["2", "maybe"], "True"),
    "integers": (["a", "0"], "1"),
    "multipliers": (["a", "0"], "1"),
    "int": (["2.5", "two"], "1"),
}


def run(name: str, argv: list[str]):
    """What `diffscm NAME` or `python train_scripts/NAME` does, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        if name in COMMANDS:
            # Reads the files of all commands, which takes longer than most of what is refused here.
            patch.setattr(diffscm, "list_commands", lambda: COMMANDS)
            diffscm.main([name, *argv])
        else:
            patch.setattr(sys, "argv", [name, *argv])
            runpy.run_path(str(TRAIN_SCRIPTS / name), run_name="__main__")


def refuse(capsys, name: str, argv: list[str]) -> str:
    """The one line on stderr with which the flags are refused."""
    tqdm._instances.clear()  # Under a bar that an earlier test left open, a new one moves the cursor as it closes.
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(name, argv)
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1 and "Traceback" not in error, error
    line = lines[0]
    assert line.startswith((f"diffscm {name}: error:", f"{name}: error:")), line
    return line


def list_bad_values() -> list:
    """For every flag all values that its type refuses, and what no flag takes."""
    rows = []
    for name, parser in PARSERS.items():
        for action in parser._actions:
            flag = action.option_strings[0] if action.option_strings else None
            if flag in (None, "--help", "-h"):
                continue
            values = []
            if action.nargs == 0:
                values = [[f"{flag}=yes"]]
            else:
                bad, good = NO_VALUE.get(getattr(action.type, "__name__", None), ([], "x"))
                if action.choices is not None:
                    bad, good = ["unknown"], next(iter(action.choices))
                fill = [good] * (action.nargs - 1 if isinstance(action.nargs, int) else 0)
                values = [[flag, *fill, value] for value in bad] if not fill else [[flag, v, *fill] for v in bad]
                # Nothing, too few, empty: an empty list is one to the lists of `convert-adm`.
                values += [[flag]]
                if getattr(action.type, "__name__", None) not in ("integers", "multipliers"):
                    values += [[flag, ""], [f"{flag}="]]
                values += [[flag, *fill]] if fill else []
            rows += [(name, flag, argv) for argv in values]
    return rows


@pytest.mark.parametrize("name", PARSERS)
def test_values_that_a_type_refuses(name, capsys):
    """In one test per program, as there are some two thousand."""
    rows = [(flag, argv) for owner, flag, argv in list_bad_values() if owner == name]
    assert len(rows) > 10
    for flag, argv in rows:
        # By its parser alone, as loading a script takes longer than reading a flag.
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            PARSERS[name].parse_args([*POSITIONAL.get(name, []), *argv])
        line = capsys.readouterr().err
        assert ended.value.code == 2 and line.count("\n") == 1, line
        assert re.search(rf"{flag}\b", line), f"{argv}: {line}"
        assert re.search("expects|expected|invalid choice|invalid int value|ignored explicit argument", line), (
            f"{argv}: {line}"
        )
        if len(argv) > 1 and "arguments" not in line:  # not if there are too few
            assert repr(argv[1]) in line, f"{argv}: {line}"


@pytest.mark.parametrize("name", PARSERS)
def test_flags_that_are_missing_unknown_or_surplus(name, capsys):
    required = [action for action in PARSERS[name]._actions if action.required]
    assert required
    line = refuse(capsys, name, [])
    for action in required:
        assert (action.option_strings or [action.dest])[0] in line
    complete = []
    for action in required:
        value = next(iter(action.choices)) if action.choices else "x"
        complete += [*action.option_strings[:1], value]
    assert "--guidance_scal_" in refuse(capsys, name, [*complete, "--guidance_scal_", "3"])
    assert "surplus" in refuse(capsys, name, [*complete, "surplus"])


# --- What is wrong with a flag of the right type.


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders and files that are not what a flag expects."""
    root = tmp_path_factory.mktemp("places")
    (root / "empty").mkdir()
    (root / "file.txt").write_text("text")
    (root / "file.json").write_text("{")
    (root / "list.json").write_text("[1, 2]")
    (root / "graph.json").write_text(json.dumps({"nodes": {"tint": {"kind": "continuous"}}, "edges": []}))
    good = {
        "nodes": {"tint": {"kind": "continuous", "range": [0, 1]}},
        "edges": [["tint", "image"]],
        "image": "image",
    }
    (root / "good_graph.json").write_text(json.dumps(good))
    (root / "table.csv").write_text("tint\n0.5\n0.2\n0.9\n")
    (root / "no_column.csv").write_text("hue\n0.5\n")
    (root / "nan.csv").write_text("tint\n0.5\nnan\n")
    (root / "no_rows.csv").write_text("tint\n")
    (root / "inf.csv").write_text("tint\n0.5\ninf\n")
    (root / "words.csv").write_text("tint\ndark\nlight\n")
    (root / "constant.csv").write_text("tint\n0.5\n0.5\n")
    (root / "table.parquet").write_bytes(b"PAR1")
    (root / "images" / "train" / "dark").mkdir(parents=True)
    PIL.Image.new("L", (8, 8)).save(root / "images" / "train" / "dark" / "0.png")
    (root / "texts" / "train" / "dark").mkdir(parents=True)
    (root / "texts" / "train" / "dark" / "0.txt").write_text("no image")
    save_vae(root / "vae_of_other_classes", make_graph(["dark", "red"]))
    save_vae(root / "vae_of_other_causes", make_graph(tint=TINT))
    save_vae(root / "vae_of_other_images", make_graph(), sample_size=16)
    SemanticEncoder2DModel(8, 3, code_dim=7, block_out_channels=(4, 4, 4)).save_pretrained(root / "encoder")
    return root


OUT = {"output_dir": "NEW"}
# The good flags of each program, as far as its bad ones are compared with them. Capitals stand for places.
GOOD = {
    "evaluate": {
        "train_data_dir": "IMAGES",
        "pretrained_model_name_or_path": "CHECKPOINT",
        "metric_models": "METRICS",
        "cache_dir": "CACHE",
        "methods": ["diff-scm"],
        **OUT,
    },
    "search-scale": {
        "train_data_dir": "IMAGES",
        "pretrained_model_name_or_path": "CHECKPOINT",
        "metric_models": "METRICS",
        "cache_dir": "CACHE",
        "split": "test",
        "train_split": "train",
        **OUT,
    },
    "figures": {
        "figures": ["targets"],
        "train_data_dir": "IMAGES",
        "pretrained_model_name_or_path": "CHECKPOINT",
        "cache_dir": "CACHE",
        **OUT,
    },
    "generate": {
        "train_data_dir": "IMAGES",
        "pretrained_model_name_or_path": "CHECKPOINT",
        "label_column": "label",
        "cache_dir": "CACHE",
        **OUT,
    },
    "effects": {
        "train_data_dir": "IMAGES",
        "pretrained_model_name_or_path": "CHECKPOINT",
        "do": ["tint=0.5"],
        "cache_dir": "CACHE",
        **OUT,
    },
    "calibrate": {
        "train_data_dir": "IMAGES",
        "pretrained_model_name_or_path": "CHECKPOINT",
        "cache_dir": "CACHE",
        **OUT,
    },
    "card": {"pretrained_model_name_or_path": "CHECKPOINT"},
    "publish": {"pretrained_model_name_or_path": "CHECKPOINT", "hub_model_id": "me/mine"},
    "join-checkpoint": {"denoiser": "CHECKPOINT", "classifier": "CHECKPOINT/classifier", **OUT},
    "convert-adm": {"model_path": "ROOT/file.safetensors", **OUT},
    "make-world": {"num_train": 1, "num_test": 1, **OUT},
    "train_scm.py": {"graph": "ROOT/good_graph.json", "table": "ROOT/table.csv", "max_train_steps": 1, **OUT},
    **{
        f"train_{name}.py": {
            "train_data_dir": "IMAGES",
            "cache_dir": "CACHE",
            "model_config_name_or_path": f"CONFIGS/{config}_mnist.json",
            "report_to": "none",
            "max_train_steps": 1,
            "lr_warmup_steps": 1,
            **OUT,
        }
        for name, config in (("diffusion", "unet"), ("classifier", "classifier"), ("semantic_encoder", "encoder"))
    },
    "train_code_mechanism.py": {
        "encoder": "ROOT/encoder",
        "train_data_dir": "IMAGES",
        "cache_dir": "CACHE",
        "max_train_steps": 1,
        **OUT,
    },
    "train_vae.py": {
        "graph": "ROOT/good_graph.json",
        "train_data_dir": "IMAGES",
        "cache_dir": "CACHE",
        "model_config_name_or_path": "CONFIGS/conditional_vae_mnist.json",
        "report_to": "none",
        "max_train_steps": 1,
        "lr_warmup_steps": 1,
        **OUT,
    },
    **{
        name: {"train_data_dir": "IMAGES", "cache_dir": "CACHE", **OUT}
        for name in ("train_baselines.py", "train_metric_models.py")
    },
}
NO_CHECKPOINT = ["ROOT/nowhere", "ROOT/empty", "ROOT/file.txt"]
DATA = [
    ("train_data_dir", {"train_data_dir": "ROOT/nowhere"}),
    ("train_data_dir", {"train_data_dir": "ROOT/empty"}),
    ("train_data_dir", {"train_data_dir": "ROOT/file.txt"}),
    ("train_data_dir", {"train_data_dir": "ROOT/texts"}),
    ("dataset_name", {"train_data_dir": None}),
    ("dataset_name", {"dataset_name": "mnist"}),
    ("dataset_name", {"train_data_dir": None, "dataset_name": "ROOT/nowhere"}),
    ("dataset_name", {"train_data_dir": None, "dataset_name": "ROOT/empty"}),
    ("dataset_name", {"train_data_dir": None, "dataset_name": "me/no-such-data"}),
    ("image_column", {"image_column": "picture"}),
    ("dataset_config_name", {"dataset_config_name": "other"}),
]
# Where the same function reads them.
SAME_DATA = [DATA[0], DATA[4], *DATA[9:]]
LABELS = [("label_column", {"label_column": "digit"})]
SPLITS = [(flag, {flag: value}) for flag in ("split", "train_split") for value in ("validation", "test[abc]", "test[")]
CHECKPOINT = [("pretrained_model_name_or_path", {"pretrained_model_name_or_path": value}) for value in NO_CHECKPOINT]
METRICS = [("metric_models", {"metric_models": value}) for value in NO_CHECKPOINT]
FILE_AS_OUTPUT = [("output_dir", {"output_dir": "ROOT/file.txt"})]
STEPS = [("num_inference_steps", {"num_inference_steps": 2000})]
SETTINGS = [
    ("preset", {"preset": "fastest"}),
    ("guidance_interval", {"guidance_interval": [5, 2]}),
    ("guidance_interval", {"guidance_interval": [0, 2000]}),
    *STEPS,
]
NO_CONFIG = {"model_config_name_or_path": None}
TRAINING = [
    *SAME_DATA,
    ("train_split", {"train_split": "validation"}),
    ("model_config_name_or_path", {"model_config_name_or_path": "ROOT/nowhere.json"}),
    ("model_config_name_or_path", {"model_config_name_or_path": "ROOT/file.json"}),
    ("model_config_name_or_path", {"model_config_name_or_path": "ROOT/list.json"}),
    ("model_config_name_or_path", {"model_config_name_or_path": None}),
    ("pretrained_model_name_or_path", {"pretrained_model_name_or_path": "ROOT/nowhere", **NO_CONFIG}),
    ("pretrained_model_name_or_path", {"pretrained_model_name_or_path": "ROOT/empty", **NO_CONFIG}),
    ("report_to", {"report_to": "nobody"}),
    ("lr_warmup_steps", {"lr_warmup_steps": 9}),
    ("hub_model_id", {"hub_model_id": "me/mine"}),
    ("hub_model_id", {"hub_model_id": "a/b/c", "push_to_hub": True}),
    ("subfolder", {"subfolder": "unet"}),
    ("shuffle_buffer_size", {"shuffle_buffer_size": 3}),
    ("logging_dir", {"logging_dir": "../logs"}),
    ("resume_from_checkpoint", {"resume_from_checkpoint": "ROOT/nowhere"}),
    *FILE_AS_OUTPUT,
]
NETWORKS = [*SAME_DATA, *LABELS, ("train_split", {"train_split": "validation"}), *FILE_AS_OUTPUT]
FEW = {"num_validation_images": 6}
GRAPHS = [("graph", {"graph": f"ROOT/{name}"}) for name in ("nowhere.json", "file.json", "list.json", "graph.json")]
BAD = {
    "evaluate": [
        *SAME_DATA,
        *LABELS,
        *SPLITS,
        *CHECKPOINT,
        *METRICS,
        *SETTINGS,
        *FILE_AS_OUTPUT,
        ("max_samples", {"max_samples": 1}),
        ("guidance_scale", {"guidance_scale": 1, "search_scale": ["pixels"]}),
        ("search_scale", {"search_scale": ["ROOT/nowhere"], "methods": ["diff-scm"]}),
        ("posterior_mean", {"posterior_mean": [5000, 2], "methods": ["diff-scm"]}),
        ("posterior_mean", {"posterior_mean": [5, 3], "methods": ["diff-scm"]}),
        ("baselines", {"methods": ["schut"]}),
        ("baselines", {"methods": ["schut"], "baselines": "ROOT/nowhere"}),
        ("baselines", {"methods": ["van-looveren-klaise"], "baselines": "ROOT/empty"}),
        ("conditional_vae", {"methods": ["conditional-vae"]}),
        *(
            ("conditional_vae", {"methods": ["conditional-vae"], "conditional_vae": place})
            for place in (
                "ROOT/nowhere",
                "ROOT/empty",
                "METRICS/vae",
                "CHECKPOINT/unet",
                "ROOT/vae_of_other_classes",
                "ROOT/vae_of_other_causes",
                "ROOT/vae_of_other_images",
            )
        ),
        ("oracle", {"oracle": "ROOT/nowhere"}),
        ("oracle", {"oracle": "ROOT/nowhere", "metric_models": "none"}),
        ("num_draws", {"num_draws": 5}),
    ],
    "search-scale": [
        *SAME_DATA,
        *LABELS,
        *SPLITS,
        *CHECKPOINT,
        *METRICS,
        *SETTINGS,
        *FILE_AS_OUTPUT,
        ("guidance_scales", {"guidance_scales": [1.0000001, 1.0000002]}),
        ("update_checkpoint", {"update_checkpoint": True, "pretrained_model_name_or_path": "me/mine"}),
        ("update_checkpoint", {"update_checkpoint": True, "num_inference_steps": 2}),
    ],
    "figures": [
        *DATA,
        *LABELS,
        ("split", {"split": "validation"}),
        *CHECKPOINT,
        *STEPS,
        *FILE_AS_OUTPUT,
        ("evaluation", {"figures": ["methods"]}),
        ("evaluation", {"figures": ["methods"], "evaluation": "ROOT/nowhere"}),
        ("evaluation", {"figures": ["difference"], "evaluation": "ROOT/empty"}),
        ("search", {"figures": ["scale_search"]}),
        ("search", {"figures": ["scale_search"], "search": "ROOT/empty"}),
    ],
    "generate": [
        *SAME_DATA,
        *LABELS,
        ("split", {"split": "validation"}),
        *CHECKPOINT,
        ("preset", {"preset": "fastest"}),
        *STEPS,
        *FILE_AS_OUTPUT,
        ("strength", {"strength": 1.5}),
        ("strength", {"strength": 0.01}),
        ("guidance_scale", {"guidance_scale": 0}),
        ("interventions", {"interventions": ["purple"]}),
        ("interventions", {"interventions": ["all", "dark"]}),
        ("interventions", {"interventions": ["other"], "label_column": None}),
        ("variant", {"variant": "fp64"}),
        ("hub_dataset_id", {"hub_dataset_id": "me/mine"}),
        ("hub_private_repo", {"hub_private_repo": True}),
    ],
    "effects": [*CHECKPOINT],
    "calibrate": [
        *SAME_DATA,
        *LABELS,
        ("split", {"split": "validation"}),
        *CHECKPOINT,
        ("timesteps", {"timesteps": [5]}),
        ("timesteps", {"timesteps": [5, 2]}),
        ("timesteps", {"timesteps": [5, 2000]}),
        ("max_samples", {"max_samples": 1}),
        ("output_dir", {"output_dir": "ROOT/empty"}),
        *FILE_AS_OUTPUT,
    ],
    "card": [
        *CHECKPOINT,
        ("evaluation", {"evaluation": "ROOT/nowhere"}),
        ("evaluation", {"evaluation": "ROOT/empty"}),
        ("picture", {"picture": "ROOT/nowhere.png"}),
    ],
    "publish": [
        *CHECKPOINT,
        ("hub_model_id", {"hub_model_id": "a/b/c"}),
        ("hub_model_id", {"hub_model_id": "white space"}),
    ],
    "join-checkpoint": [
        *((flag, {flag: value}) for flag in ("denoiser", "classifier") for value in NO_CHECKPOINT),
        ("classifier", {"classifier": None}),
        ("classifier", {"classifier": "CHECKPOINT/unet"}),
        ("predictor", {"predictor": "ROOT/nowhere"}),
        ("encoder", {"encoder": "ROOT/nowhere"}),
        ("scm", {"scm": "ROOT/nowhere", "classifier": None}),
        ("classifier", {"scm": "ROOT/nowhere"}),
        ("num_inference_steps", {"num_inference_steps": 2000}),
        ("steps_offset", {"steps_offset": 1000}),
        ("output_dir", {"output_dir": "ROOT/empty"}),
        *FILE_AS_OUTPUT,
    ],
    "convert-adm": [
        ("model_path", {"model_path": None}),
        ("model_path", {"model_path": "ROOT/nowhere.pt"}),
        ("model_path", {"model_path": "ROOT/file.txt"}),
        ("classifier_path", {"model_path": None, "classifier_path": "ROOT/nowhere.pt"}),
        ("num_head_channels", {"num_head_channels": -2}),
        ("num_inference_steps", {"num_inference_steps": 2000}),
        ("class_cond", {"class_cond": True, "classifier_path": "ROOT/nowhere.pt"}),
        ("id2label", {"id2label": "ROOT/nowhere.json", "model_path": None, "classifier_path": "ROOT/file.txt"}),
        ("max_shard_size", {"max_shard_size": "big"}),
        ("output_dir", {"output_dir": "ROOT/empty"}),
        *FILE_AS_OUTPUT,
    ],
    "make-world": [
        ("image_size", {"image_size": 29}),
        ("confounding", {"confounding": 0.5}),
        ("slant", {"slant": True}),
        ("train_data_dir", {"train_data_dir": "IMAGES"}),
        ("skip_broken", {"skip_broken": True}),
        ("output_dir", {"output_dir": "ROOT/empty"}),
        *FILE_AS_OUTPUT,
    ],
    "train_diffusion.py": [
        *TRAINING,
        *GRAPHS,
        ("validation_inference_steps", {"validation_inference_steps": 2000}),
        ("parent_dropout", {"parent_dropout": 0.5}),
        ("class_dropout", {"class_dropout": 0.5}),
        ("encoder", {"encoder": "ROOT/nowhere"}),
    ],
    "train_classifier.py": [
        *TRAINING,
        *LABELS,
        *GRAPHS,
        ("num_noise_levels", {"num_noise_levels": 2000}),
        ("not_chained", {"not_chained": True}),
        ("from_unet", {"from_unet": "ROOT/nowhere"}),
        ("from_unet", {"from_unet": "ROOT/nowhere", **NO_CONFIG}),
        ("from_unet", {"from_unet": "ROOT/empty", **NO_CONFIG}),
    ],
    "train_semantic_encoder.py": [*TRAINING, *GRAPHS],
    "train_vae.py": [*(row for row in TRAINING if "model_" not in row[0]), *GRAPHS],
    "train_baselines.py": [
        *NETWORKS,
        ("num_validation_images", {}),
        ("classifier_config_name_or_path", {"classifier_config_name_or_path": "ROOT/nowhere.json", **FEW}),
        ("ensemble_config_name_or_path", {"ensemble_config_name_or_path": "ROOT/list.json", **FEW}),
    ],
    "train_metric_models.py": [
        *NETWORKS,
        ("validation_split", {"validation_split": "validation"}),
        ("oracle_config_name_or_path", {"oracle_config_name_or_path": "ROOT/nowhere.json"}),
        ("vae_config_name_or_path", {"vae_config_name_or_path": "ROOT/file.json"}),
    ],
    "train_code_mechanism.py": [
        *NETWORKS,
        *GRAPHS,
        *(("encoder", {"encoder": place}) for place in (*NO_CHECKPOINT, "CHECKPOINT/unet")),
        ("hub_model_id", {"hub_model_id": "me/mine"}),
        ("hub_model_id", {"hub_model_id": "a/b/c", "push_to_hub": True}),
        ("learning_rate", {"learning_rate": 1e30, "max_train_steps": 20}),
    ],
    "train_scm.py": [
        *GRAPHS,
        ("table", {"table": None}),
        ("table", {"dataset_name": "mnist"}),
        *(
            ("table", {"table": f"ROOT/{name}"})
            for name in (
                "nowhere.csv",
                "file.txt",
                "no_column.csv",
                "no_rows.csv",
                "nan.csv",
                "inf.csv",
                "words.csv",
                "constant.csv",
                "table.parquet",
                "empty",
            )
        ),
        ("dataset_name", {"table": None, "dataset_name": "ROOT/nowhere"}),
        ("hub_model_id", {"hub_model_id": "me/mine"}),
        *FILE_AS_OUTPUT,
    ],
}
POSITIONAL = {"make-world": ["typeface"]}


def put(value, places: dict) -> str:
    head, *rest = str(value).split("/")
    return "/".join([str(places[head]), *rest]) if head in places else str(value)


def to_argv(name: str, changes: dict, places: dict) -> list[str]:
    argv = list(POSITIONAL.get(name, []))
    for flag, value in {**GOOD[name], **changes}.items():
        if value is True and name != "convert-adm":
            argv.append(f"--{flag}")
        elif value is not None:
            argv += [f"--{flag}", *(put(v, places) for v in (value if isinstance(value, list) else [value]))]
    return argv


def test_every_program_has_a_table():
    assert BAD.keys() == GOOD.keys() == PARSERS.keys()


@pytest.mark.parametrize(
    ("name", "flag", "changes"),
    [
        pytest.param(name, flag, changes, id=f"{name}-{flag}-{number}")
        for name, rows in BAD.items()
        for number, (flag, changes) in enumerate(rows)
    ],
)
def test_flags_that_cannot_be_used(
    name, flag, changes, places, image_folder, cache_dir, checkpoint, metric_models, tmp_path, capsys, monkeypatch
):
    # What these libraries read of the environment when they are imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    new = tmp_path / "new"
    stand_ins = {
        "ROOT": places,
        "NEW": new,
        "IMAGES": image_folder,
        "CACHE": cache_dir,
        "CHECKPOINT": checkpoint,
        "METRICS": metric_models,
        "CONFIGS": TRAIN_SCRIPTS / "configs",
    }
    line = refuse(capsys, name, to_argv(name, changes, stand_ins))
    assert re.search(rf"\b{flag}\b", line), line
    assert re.search("expect|is needed|exclude", line), line
    value = changes.get(flag)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        assert Path(put(value, stand_ins)).name in line or "got" in line, line
    left = [path for path in new.rglob("*") if path.is_file() and path.name != ".lock"] if new.exists() else []
    assert left == []


def test_a_script_in_a_process_of_its_own(tmp_path):
    flags = ["--graph", "nowhere.json", "--table", "table.csv", "--output_dir", "out"]
    command = [sys.executable, str(TRAIN_SCRIPTS / "train_scm.py"), *flags]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        "train_scm.py: error: `--graph` expects the JSON file of a causal"
    )
    assert "Traceback" not in result.stderr
