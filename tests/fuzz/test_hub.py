# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of cards, publishing and loading. None of them comes to the Hub."""

import functools
import tempfile
from pathlib import Path

import torch
from huggingface_hub import ModelCard

from diffscm_diffusers.hub.cards import make_component_card, make_graph_card, make_pipeline_card, save_card
from diffscm_diffusers.hub.publishing import create_repository, load_checkpoint, publish_checkpoint
from diffscm_diffusers.hub.weights import read_weights

from ..pipelines.dummies import get_dummy_pipe
from ..pipelines.graph_dummies import get_random_graph_pipe
from .table import INF, NAN, NO_FLAG, Call, Other, fuzz


NO_TEXT = [None, 3, Other()]
NO_REPOSITORY = ["", "a/b/c", "white space", "-dash", "a--b", "dot.", "x" * 97, 3]
SCORE = {"mean": 0.5, "low": 0.4, "high": 0.6}
SCORES = dict.fromkeys(("im1", "im2", "cld", "cld_floor", "cld_excess", "effectiveness", "l1", "l2"), SCORE)
SETTINGS = {
    "split": "test",
    "dataset_name": "mnist",
    "train_data_dir": None,
    "guidance_scale": 1.0,
    "num_inference_steps": 2,
}
SUMMARY = {
    "num_pairs": 2,
    "class_names": ["a", "b"],
    "train_split": "train",
    "metric_models": "metrics",
    "oracle": None,
    "methods": {"diff-scm": {"settings": SETTINGS, "scores": SCORES, "realism": 1.0, "seconds": 0.1}},
}


def with_scores(**changes):
    method = SUMMARY["methods"]["diff-scm"]
    return {**SUMMARY, "methods": {"diff-scm": {**method, "scores": {**SCORES, **changes}}}}


@functools.cache
def pipe(name: str):
    return {"class": get_dummy_pipe, "graph": get_random_graph_pipe}[name]()


@functools.cache
def folder() -> Path:
    """Folders that are no checkpoint, and files that are no weights; kept until the process ends."""
    kept = tempfile.TemporaryDirectory()
    folder.kept = kept
    root = Path(kept.name)
    (root / "empty").mkdir()
    for name, text in (
        ("file.txt", "text"),
        ("file.pt", "text"),
        ("file.safetensors", "text"),
        ("broken/model_index.json", "{"),
        ("list/model_index.json", "[]"),
        ("other/model_index.json", '{"_class_name": "DDPMPipeline"}'),
        (
            "torn/model_index.json",
            '{"_class_name": "DiffSCMCounterfactualPipeline", "unet": ["diffusers", "UNet2DModel"]}',
        ),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    torch.save([1, 2], root / "list.pt")
    torch.save({"weight": 3}, root / "number.pt")
    torch.save({"weight": torch.zeros(1)}, root / "good.pt")
    return root


NO_FOLDERS = [None, 3, *(folder() / n for n in ("nowhere", "empty", "file.txt", "broken", "list", "other", "torn"))]
CARD = {"name": "outputs/pipe"}
TEXTS = {
    "name": [*NO_TEXT, ""],
    "effect": NO_TEXT,
    "dataset": [3, Other()],
    "license": [3, Other()],
    "picture": [3, Other()],
    "training": NO_TEXT,
    "limits": NO_TEXT,
}
CALLS = {
    "make_pipeline_card": Call(
        lambda **arguments: make_pipeline_card(**{"pipeline": pipe("class"), **arguments}),
        {**CARD, "summary": SUMMARY},
        {
            "pipeline": [None, "pipe", pipe("graph"), pipe("class").unet],
            **TEXTS,
            "cause": NO_TEXT,
            "summary": [
                3,
                [],
                {},
                {"methods": {}},
                {"methods": {"schut": {}}},
                {"methods": {"diff-scm": {}}},
                with_scores(l1={"mean": NAN, "low": 0.0, "high": 1.0}),
                with_scores(cld={"mean": INF, "low": 0.0, "high": 1.0}),
                with_scores(effectiveness={"mean": 0.5}),
                with_scores(effectiveness=None),
                with_scores(l1={"mean": "low", "low": 0.0, "high": 1.0}),
            ],
        },
    ),
    "make_graph_card": Call(
        lambda **arguments: make_graph_card(**{"pipeline": pipe("graph"), **arguments}),
        CARD,
        {"pipeline": [None, "pipe", pipe("class"), pipe("graph").unet], **TEXTS, "results": NO_TEXT},
    ),
    "make_component_card": Call(
        make_component_card,
        {
            "name": "outputs/unet",
            "description": "A network.",
            "script": "train_diffusion.py",
            "argv": ["--seed", "0"],
            "num_processes": 1,
            "num_steps": 1,
            "split": "train",
        },
        {
            "name": [*NO_TEXT, ""],
            "description": NO_TEXT,
            "script": NO_TEXT,
            "argv": [None, 3, "--seed", [1, 2]],
            "num_processes": [0, "1", 1.5, None],
            "num_steps": [0, "1", 1.5, None],
            "split": NO_TEXT,
            "dataset_name": [3, Other()],
            "train_data_dir": [3, Other()],
        },
    ),
    "save_card": Call(
        lambda **arguments: save_card(**{"folder": folder() / "card", **arguments}),
        {"card": ModelCard("text")},
        {"card": [None, "text", Other()], "folder": [None, 3]},
    ),
    "load_checkpoint": Call(
        lambda folder=None: None if folder == "good" else load_checkpoint(folder),
        {"folder": "good"},
        {"pretrained_model_name_or_path": []},
        [("pretrained_model_name_or_path", {"folder": path}) for path in NO_FOLDERS],
    ),
    "publish_checkpoint": Call(
        lambda **arguments: (
            publish_checkpoint(**arguments) if arguments["folder"] != "good" or "bad" in arguments else 0
        ),
        {"folder": "good", "hub_model_id": "me/mine"},
        together=[
            *(("pretrained_model_name_or_path", {"folder": path}) for path in NO_FOLDERS),
            *(
                (argument, {"folder": folder() / "torn", argument: value})
                for argument, values in (
                    ("hub_model_id", [None, *NO_REPOSITORY]),
                    ("private", NO_FLAG),
                    ("revision", [*NO_TEXT, ""]),
                    ("variant", ["fp32", 3, ""]),
                    ("commit_message", [*NO_TEXT, "", " "]),
                )
                for value in values
            ),
        ],
    ),
    "create_repository": Call(
        lambda **arguments: 0 if arguments.get("name") == "good" else create_repository(**arguments),
        {"name": "good", "output_dir": "outputs/unet"},
        {"name": NO_REPOSITORY},
        [("repo_type", {"name": "me/mine", "repo_type": value}) for value in ("space", None, 3)],
    ),
    "read_weights": Call(
        read_weights,
        {"path": folder() / "good.pt"},
        together=[
            ("path", {"path": path})
            for path in (
                None,
                3,
                "",
                *(
                    folder() / n
                    for n in ("nowhere.pt", "empty", "file.pt", "file.safetensors", "list.pt", "number.pt")
                ),
            )
        ],
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)
