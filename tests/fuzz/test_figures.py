# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of the figures."""

import functools
import tempfile

import torch
from matplotlib.figure import Figure

from diffscm_diffusers import LatentVAE
from diffscm_diffusers.figures import (
    draw_difference,
    draw_effects,
    draw_latents,
    draw_methods,
    draw_one_noise,
    draw_scale_search,
    draw_scales,
    draw_sweep,
    draw_targets,
    draw_truth,
    save_figure,
)
from diffscm_diffusers.figures.grid import draw_image_grid

from ..pipelines.dummies import get_dummy_pipe
from .table import INF, NAN, NO_COUNT, NO_WEIGHT, Call, Other, fuzz


IMAGE = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
GRID = IMAGE[None].repeat(1, 1, 1, 1, 1)
NO_IMAGE = [None, "7.png", IMAGE * NAN, IMAGE + INF, IMAGE * 3, IMAGE - 1, IMAGE.long(), IMAGE[0], IMAGE[:0]]
OTHER_IMAGE = [*NO_IMAGE, IMAGE[:1], IMAGE[..., :4], IMAGE.expand(2, 2, 8, 8)]
NO_TEXTS = [None, "ab", ["a"], ["a", 3], ["a", "b", "c"]]
NO_STEPS = [0, -1, 1001, 2.5, "10"]
NO_CLASSES = [[], [3], [-1], ["seven"], None]


@functools.cache
def pipe():
    return get_dummy_pipe()


def vae():
    torch.manual_seed(0)
    return LatentVAE(8, latent_dim=2, block_out_channels=(4,), hidden_features=8).eval()


def with_pipe(draw):
    return lambda **arguments: draw(pipe(), **arguments)


def get_search(**changes):
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    scale = {"guidance_scale": 1.0, "cld": score, "effectiveness": score, "l1": score, "cld_floor": score, **changes}
    return {"chosen": 1.0, "num_pairs": 2, "min_effectiveness": 0.9, "scales": [scale]}


def save(**arguments):
    with tempfile.TemporaryDirectory() as folder:
        save_figure(**{"folder": folder, **arguments})


CALLS = {
    "draw_image_grid": Call(
        draw_image_grid,
        {"images": GRID, "title": "Images", "row_labels": ["a"], "column_labels": ["a", "b"]},
        {
            "images": [None, IMAGE, GRID * NAN, GRID + INF, GRID * 3, GRID[:, :0], GRID.expand(1, 2, 2, 8, 8)],
            "row_labels": [None, "a", ["a", "b"], [3]],
            "column_labels": NO_TEXTS,
            "framed": [3, torch.zeros(2, 1, dtype=torch.bool)],
        },
    ),
    "draw_difference": Call(
        draw_difference,
        {"factual": IMAGE, "counterfactual": 1 - IMAGE, "pair_labels": ["a", "b"]},
        {"factual": NO_IMAGE, "counterfactual": OTHER_IMAGE, "pair_labels": NO_TEXTS},
    ),
    "draw_effects": Call(
        draw_effects,
        {"factual": IMAGE, "counterfactuals": {"total": IMAGE}, "title": "do", "column_labels": ["a", "b"]},
        {
            "factual": NO_IMAGE,
            "counterfactuals": [None, {}, [IMAGE], *({"total": image} for image in OTHER_IMAGE)],
            "column_labels": NO_TEXTS,
        },
    ),
    "draw_methods": Call(
        draw_methods,
        {
            "factual": IMAGE,
            "counterfactuals": {"Diff-SCM": IMAGE},
            "targets": ["a", "b"],
            "effective": torch.ones(2, 1, dtype=torch.bool),
        },
        {
            "factual": NO_IMAGE,
            "counterfactuals": [None, {}, [IMAGE], *({"Diff-SCM": image} for image in OTHER_IMAGE)],
            "targets": NO_TEXTS,
            "effective": [None, True, torch.ones(2, 1), torch.ones(2, 2, dtype=torch.bool)],
        },
    ),
    "draw_sweep": Call(
        draw_sweep,
        {
            "factual": IMAGE,
            "counterfactuals": IMAGE[:, None],
            "node": "thickness",
            "values": ["1"],
            "row_labels": ["a", "b"],
        },
        {
            "factual": NO_IMAGE,
            "counterfactuals": [None, IMAGE, IMAGE[:, None] * NAN, IMAGE[:1, None], IMAGE[:, None, ..., :4]],
            "values": [None, "1", [], ["1", "2"], [1]],
            "row_labels": NO_TEXTS,
        },
    ),
    "draw_truth": Call(
        draw_truth,
        {"factual": IMAGE, "pairs": {"do": (IMAGE, IMAGE)}},
        {
            "factual": [*NO_IMAGE, IMAGE.expand(2, 3, 8, 8)],
            "pairs": [None, IMAGE, {"do": IMAGE}, {"do": (IMAGE,)}, *({"do": (IMAGE, i)} for i in OTHER_IMAGE)],
        },
    ),
    "draw_latents": Call(
        draw_latents,
        {
            "vae": vae(),
            "reference": IMAGE.repeat(3, 1, 1, 1),
            "reference_class": torch.tensor([0, 0, 0, 1, 1, 1]),
            "factual": IMAGE[0],
            "counterfactual": IMAGE[1],
            "factual_class": 0,
            "intervention": 1,
            "names": ["a", "b"],
            "seed": 0,
        },
        {
            "vae": [None, "vae", torch.nn.Linear(2, 2)],
            "reference": [None, IMAGE * NAN, IMAGE[0], IMAGE[..., :4], IMAGE[:0]],
            "reference_class": [None, torch.zeros(6), torch.tensor([0, 1])],
            "factual": [None, IMAGE, IMAGE[0] * NAN, IMAGE[0, :, :4]],
            "counterfactual": [None, IMAGE[0] + INF],
            "factual_class": [-1, 2, "a", None, 0.0],
            "intervention": [-1, 2, "b", True],
            "names": [None, [0, 1], "ab"],
            "seed": [-1, "0", 0.5, None],
        },
        [("vae", {"vae": vae().apply(lambda m: [p.data.fill_(NAN) for p in m.parameters()])})],
    ),
    "draw_scale_search": Call(
        draw_scale_search,
        {"search": get_search()},
        {
            "search": [
                None,
                [],
                {},
                {**get_search(), "scales": []},
                {**get_search(), "chosen": NAN},
                get_search(l1={"mean": INF, "low": 0.0, "high": 1.0}),
                get_search(l1={"mean": 0.5}),
                get_search(guidance_scale="high"),
            ]
        },
    ),
    "draw_one_noise": Call(
        with_pipe(draw_one_noise),
        {"num_noises": 1, "classes": [0, 1], "seed": 0, "num_inference_steps": 2},
        {
            "num_noises": NO_COUNT,
            "classes": NO_CLASSES,
            "seed": ["0", 0.5, None],
            "num_inference_steps": NO_STEPS,
            "batch_size": NO_COUNT,
        },
    ),
    "draw_scales": Call(
        with_pipe(draw_scales),
        {"factual": IMAGE, "intervention": torch.tensor([0, 1]), "scales": [1.0], "num_inference_steps": 2},
        {
            "factual": NO_IMAGE,
            "intervention": [None, 3, torch.tensor([0, 7]), torch.tensor([0.0, 1.0]), torch.tensor([0, 1, 2])],
            "scales": [None, [], 3, *([scale] for scale in NO_WEIGHT)],
            "num_inference_steps": NO_STEPS,
            "batch_size": NO_COUNT,
        },
    ),
    "draw_targets": Call(
        with_pipe(draw_targets),
        {
            "factual": IMAGE,
            "factual_class": torch.tensor([0, 1]),
            "classes": [0, 1],
            "num_inference_steps": 2,
        },
        {
            "factual": NO_IMAGE,
            "factual_class": [None, 1, torch.tensor([0, 7]), torch.tensor([0.0, 1.0]), torch.tensor([0])],
            "classes": NO_CLASSES,
            "num_inference_steps": NO_STEPS,
            "batch_size": NO_COUNT,
        },
    ),
    "save_figure": Call(
        save,
        {"figure": Figure(), "name": "figure"},
        {"figure": [None, "figure", Other()], "folder": [None, 3], "name": [None, 3, "", "a/b", "../figure"]},
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)
