# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of the pipelines, of what guides them, and of the baselines."""

import functools

import numpy as np
import PIL.Image
import torch

from diffscm_diffusers import (
    DiffSCMCounterfactualPipeline,
    DiffSCMGraphCounterfactualPipeline,
    DiffSCMSemanticCounterfactualPipeline,
    ImageClassifier,
)
from diffscm_diffusers.baselines import SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.guidance import GuidanceScaleSearch, posterior_mean

from ..baselines.helpers import get_schut_pipe, get_van_looveren_klaise_pipe
from ..pipelines.dummies import get_dummy_components, get_dummy_pipe
from ..pipelines.graph_dummies import ATTRIBUTES, get_random_graph_pipe
from ..pipelines.test_semantic import get_semantic_components, get_semantic_pipe
from .table import INF, NAN, NO_COUNT, NO_WEIGHT, Call, Other, fuzz


@functools.cache
def pipe(name: str):
    """The pipelines, each made once."""
    return {
        "counterfactual": get_dummy_pipe,
        "semantic": get_semantic_pipe,
        "graph": get_random_graph_pipe,
        "schut": lambda: get_schut_pipe(max_iterations=2),
        "van_looveren_klaise": lambda: get_van_looveren_klaise_pipe(max_iterations=2),
    }[name]()


def call(name: str, method: str = "__call__"):
    return lambda **arguments: getattr(pipe(name), method)(**arguments)


def construct(pipeline_class, components):
    return lambda **changes: pipeline_class(**{**components(), **changes})


def parts(name: str):
    made = pipe(name)
    return lambda: {name: part for name, part in made.components.items() if name != "inverse_scheduler"}


FACTUAL = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = [
    None,
    "7.png",
    3,
    [],
    [None],
    FACTUAL[:, :, :4],
    FACTUAL[:0],
    FACTUAL * 2,
    FACTUAL * NAN,
    FACTUAL - 1,
    FACTUAL.long(),
    FACTUAL.bool(),
    torch.zeros(2, 3, 8, 8),
    torch.tensor(0.5),
    np.zeros((8, 8, 3), np.uint8),
    np.full((8, 8), INF, np.float32),
    PIL.Image.new("RGBA", (8, 8)),
    PIL.Image.new("L", (9, 8)),
    PIL.Image.new("1", (8, 8)),
    [FACTUAL[0], FACTUAL[1].numpy()],
    [FACTUAL[0], FACTUAL[1, :, :4]],
]
CLASSES = [-1, 3, 1.0, "seven", [], [0, 1, 2], [None], True, Other(), torch.tensor([0.5]), [0, "seven"]]
STEPS = [0, -1, 1001, 2.5, "10", True, NAN]
OUTPUT_TYPES = ["pill", None, 3]
GENERATORS = [0, "seed", Other()]
HOW = {"batch_size": NO_COUNT, "output_type": OUTPUT_TYPES, "generator": GENERATORS}
SCALES = [*NO_WEIGHT, True, [], [1.0, NAN], [1.0, 2.0, 3.0], torch.tensor([-1.0, 1.0]), Other()]
INTERVALS = [(3, 2), (-1, 5), (0, 1000), 5, "all", (1,), (0.0, 5.0), (1, 2, 3)]
ABDUCTIONS = ["backwards", 1, Other()]
CALLBACKS = ["print", 3]
STRENGTHS = [0, -1, 1.5, NAN, "1"]
QUICK = {"num_inference_steps": 2, "output_type": "pt"}
PREDICTION = {
    "intervention": CLASSES,
    "guidance_scale": SCALES,
    "num_inference_steps": STEPS,
    "strength": STRENGTHS,
    "eta": [2, -0.1, NAN, "1", None],
    "callback_on_step_end": [*CALLBACKS, lambda *arguments: 3],
    "guidance_interval": INTERVALS,
    **HOW,
}
CALLS = {
    "counterfactual": Call(
        call("counterfactual"),
        {"image": FACTUAL, "intervention": 1, **QUICK},
        {"image": IMAGES, **PREDICTION, "abduction": ABDUCTIONS, "factual_class": CLASSES},
        [
            ("intervention", {"intervention": None}),
            ("guidance_interval", {"guidance_interval": (998, 999)}),
            ("num_moves", {"strength": 0.1}),
        ],
    ),
    "counterfactual.abduct": Call(
        call("counterfactual", "abduct"),
        {"image": FACTUAL, "num_inference_steps": 2},
        {
            "image": IMAGES[:6],
            "num_inference_steps": STEPS,
            "strength": STRENGTHS,
            "batch_size": NO_COUNT,
            "abduction": ABDUCTIONS,
            "factual_class": CLASSES,
        },
        [
            ("tolerance", {"tolerance": 0, "abduction": "implicit"}),
            ("tolerance", {"tolerance": NAN, "abduction": "implicit"}),
            ("max_iterations", {"max_iterations": 0, "abduction": "implicit"}),
            ("tolerance", {"tolerance": 0}),
            ("max_iterations", {"max_iterations": "40"}),
        ],
    ),
    "counterfactual.predict": Call(
        call("counterfactual", "predict"),
        {"exogenous_noise": torch.zeros(2, 1, 8, 8), "intervention": 1, **QUICK},
        {
            "exogenous_noise": [
                None,
                "noise",
                torch.zeros(0, 1, 8, 8),
                torch.zeros(1, 8, 8),
                torch.zeros(2, 3, 8, 8),
                torch.full((2, 1, 8, 8), NAN),
                torch.full((2, 1, 8, 8), INF),
                torch.zeros(2, 2, 1, 8, 8),
            ],
            **PREDICTION,
        },
    ),
    "counterfactual.sample": Call(
        call("counterfactual", "sample"),
        {"intervention": 1, **QUICK},
        {
            "num_images": NO_COUNT,
            "intervention": [c for c in CLASSES if c != [0, 1, 2]],
            "generator": GENERATORS,
            "strength": [0.5, NAN],
        },
    ),
    "DiffSCMCounterfactualPipeline": Call(
        construct(DiffSCMCounterfactualPipeline, get_dummy_components),
        bad={
            "unet": [None, "unet", torch.nn.Linear(2, 2), get_dummy_components()["classifier"]],
            "classifier": [None, ImageClassifier(8), get_dummy_components(channels=3)["classifier"]],
            "scheduler": [None, "ddim"],
            "inverse_scheduler": ["ddim", Other()],
            "default_guidance_scale": ["a", -1.0, NAN, INF, None],
            "default_num_inference_steps": [0, 1001, "10", None, 2.5],
            "presets": [
                3,
                ["fast"],
                {"fast": 2},
                {"fast": {"eta": 1}},
                {"fast": {"num_inference_steps": 2000}},
                {"fast": {"guidance_interval": [5, 2]}},
                {"fast": {"guidance_scale": "high"}},
                {"fast": {"abduction": "backwards"}},
            ],
        },
    ),
    "semantic": Call(
        call("semantic"),
        {"image": FACTUAL, "intervention": 1, **QUICK},
        {
            "image": IMAGES,
            "intervention": CLASSES,
            "factual_class": CLASSES,
            "num_inference_steps": STEPS,
            "num_draws": NO_COUNT,
            "abduction": ABDUCTIONS,
            "tolerance": [0, NAN, "small"],
            "max_iterations": [*NO_COUNT, None],
            **HOW,
        },
    ),
    "DiffSCMSemanticCounterfactualPipeline": Call(
        construct(DiffSCMSemanticCounterfactualPipeline, get_semantic_components),
        bad={
            "unet": [None, "unet", get_dummy_components()["unet"]],
            "encoder": [None, get_dummy_components()["classifier"]],
            "classifier": [None, ImageClassifier(8), get_dummy_components(channels=3)["classifier"]],
            "scheduler": [None, "ddim"],
            "inverse_scheduler": ["ddim"],
            "default_num_inference_steps": [0, 1001, "10", None, 2.5],
        },
    ),
    "graph": Call(
        call("graph"),
        {"image": FACTUAL, "attributes": ATTRIBUTES, "do": {"tint": 0.5}, **QUICK},
        {
            "image": IMAGES,
            "attributes": [3, {"weight": 1.0}, {"tint": NAN}, {"tint": "dark", "thickness": 5.0}, {"tint": 0.5}],
            "do": [3, {"weight": 1.0}, {"tint": NAN}, {"tint": 7.0}, {"tint": "dark"}, {"tint": [0.1, 0.2, 0.3]}],
            "hold": ["weight", ["tint"], 3],
            "guidance_scale": [*NO_WEIGHT, {"weight": 1.0}, Other()],
            "num_inference_steps": STEPS,
            "num_draws": NO_COUNT,
            "abduction": ABDUCTIONS,
            **HOW,
        },
    ),
    "DiffSCMGraphCounterfactualPipeline": Call(
        construct(DiffSCMGraphCounterfactualPipeline, parts("graph")),
        {"inverse_scheduler": None},
        {
            "unet": [None, "unet", get_dummy_components(channels=3)["unet"]],
            "scheduler": [None, "ddim"],
            "inverse_scheduler": ["ddim"],
            "scm": [None, "scm"],
            "predictor": ["predictor", ImageClassifier(8, in_channels=3)],
            "encoder": ["encoder"],
            "default_guidance_scale": ["a", -1.0, NAN, {"weight": 1.0}],
            "default_num_inference_steps": [0, 1001, "10", None, 2.5],
        },
    ),
    "posterior_mean": Call(
        lambda **arguments: posterior_mean(pipe("counterfactual"), **arguments),
        {"image": FACTUAL, "intervention": 1, "timestep": 400, "num_draws": 2, "output_type": "pt"},
        {
            "image": IMAGES[:6],
            "intervention": CLASSES,
            "timestep": [-1, 1000, 0.5, "400", None, True],
            "num_draws": [*NO_COUNT, 3],
            "guidance_scale": SCALES,
            **HOW,
        },
    ),
    "GuidanceScaleSearch": Call(
        lambda **arguments: GuidanceScaleSearch(pipe("counterfactual"), **arguments),
        {"reference_images": FACTUAL.repeat(3, 1, 1, 1), "reference_class": torch.tensor([0, 0, 1, 1, 2, 2])},
        {
            "reference_images": [None, FACTUAL[:0], FACTUAL[:, :, :4], FACTUAL * NAN, FACTUAL.long(), FACTUAL + 1],
            "reference_class": [None, torch.zeros(6), torch.zeros(2).long(), torch.arange(6)],
            "encode": [3, "vae"],
            "scale_range": [3, (2.0, 1.0), (0.0, 1.0), (1.0, INF), (NAN, 1.0), ("a", "b")],
            "num_candidates": NO_COUNT,
            "target_probability": [0.0, 1.0, NAN, "0.9", 2],
        },
    ),
    "GuidanceScaleSearch()": Call(
        lambda **arguments: GuidanceScaleSearch(
            pipe("counterfactual"),
            FACTUAL.repeat(3, 1, 1, 1),
            torch.tensor([0, 0, 1, 1, 2, 2]),
            num_candidates=1,
            encode=arguments.pop("encode", None),
        )(**arguments),
        {"image": FACTUAL, "intervention": 1, **QUICK},
        {
            "image": IMAGES[:6],
            "intervention": CLASSES,
            "batch_size": NO_COUNT,
            "abduction": ABDUCTIONS,
            "guidance_interval": INTERVALS,
            "output_type": OUTPUT_TYPES,
        },
    ),
    "schut": Call(
        call("schut"),
        {"image": FACTUAL, "intervention": 1, "output_type": "pt"},
        {"image": IMAGES, "intervention": CLASSES, "batch_size": NO_COUNT, "output_type": OUTPUT_TYPES},
    ),
    "SchutPipeline": Call(
        construct(SchutPipeline, lambda: {"classifier": pipe("schut").classifier}),
        bad={
            "classifier": [None, ImageClassifier(8)],
            "step_size": [0, 1.5, NAN, "1"],
            "max_changes_per_pixel": NO_COUNT,
            "confidence": [0, 1, NAN, "1"],
            "max_iterations": NO_COUNT,
        },
    ),
    "van_looveren_klaise": Call(
        call("van_looveren_klaise"),
        {"image": FACTUAL, "intervention": 1, "output_type": "pt"},
        {"image": IMAGES[:6], "intervention": CLASSES, "batch_size": NO_COUNT, "output_type": OUTPUT_TYPES},
    ),
    "VanLooverenKlaisePipeline": Call(
        construct(VanLooverenKlaisePipeline, lambda: pipe("van_looveren_klaise").components),
        bad={
            "classifier": [None, "classifier"],
            "autoencoder": [None, "autoencoder"],
            "prototypes": [None, "prototypes"],
            "kappa": NO_WEIGHT,
            "beta": NO_WEIGHT,
            "gamma": NO_WEIGHT,
            "theta": NO_WEIGHT,
            "c_init": [0, *NO_WEIGHT],
            "c_steps": NO_COUNT,
            "max_iterations": NO_COUNT,
            "learning_rate": [0, *NO_WEIGHT],
        },
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)
