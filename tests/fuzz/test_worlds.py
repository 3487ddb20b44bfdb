# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of the worlds, of the mechanisms of attributes, and of the tables that they are fitted to."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image

from diffscm_diffusers import CausalGraph, StructuralCausalModel
from diffscm_diffusers.causal_graphs import read_table
from diffscm_diffusers.worlds import (
    MorphoMNISTWorld,
    TypefaceWorld,
    measure_hue,
    measure_intensity,
    measure_slant,
    measure_thickness,
)

from .table import INF, NAN, NO_COUNT, NO_FLAG, Call, Other, fuzz


DIGITS = np.zeros((2, 28, 28), np.uint8)
DIGITS[:, 8:20, 12:16] = 255
LABELS = np.array([1, 1])
IMAGES = torch.zeros(2, 3, 12, 12)
IMAGES[:, :, 3:9, 5:7] = 1.0
NO_IMAGES = [
    None,
    "images",
    IMAGES.long(),
    IMAGES[0],
    IMAGES[:0],
    IMAGES * 2,
    IMAGES - 1,
    IMAGES * NAN,
    IMAGES + INF,
    IMAGES * 0,
]
GENERATORS = [0, "seed", Other()]
NO_NAMES = [3, Other()]


@functools.cache
def world():
    """Without its rendering, which no refused call comes to."""

    class Unseen(MorphoMNISTWorld):
        def _render(self, variables, exogenous_noise):
            return torch.zeros(len(exogenous_noise["base_digit"]), 1, 28, 28)

    return Unseen(DIGITS, LABELS)


@functools.cache
def sample():
    return world().sample(2, torch.Generator().manual_seed(0))


@functools.cache
def base_digits():
    images = [PIL.Image.fromarray(digit) for digit in DIGITS]
    features = Features({"image": Image(), "label": ClassLabel(names=["0", "1"])})
    return Dataset.from_dict({"image": images, "label": [1, 1]}, features)


NODES = {
    "tint": {"kind": "continuous", "range": [-1, 1], "unit": "shades"},
    "digit": {"kind": "categorical", "labels": ["a", "b", "c"]},
    "size": {"kind": "ordinal", "labels": ["S", "M", "L"]},
}
EDGES = [["tint", "digit"], ["digit", "image"], ["size", "image"]]
GRAPH = CausalGraph(NODES, EDGES)
TABLE = pd.DataFrame(
    {"tint": [0.1, 0.2, -0.3, 0.4], "digit": ["a", "b", "c", "a"], "size": ["S", "M", "L", "S"], "other": [NAN] * 4}
)


def with_column(name, values):
    return pd.DataFrame({**{column: list(TABLE[column]) for column in TABLE}, name: values})


NO_TABLES = [
    None,
    3,
    "table.csv",
    [],
    {},
    TABLE[:0],
    TABLE.drop(columns="size"),
    with_column("tint", [0.1, NAN, 0.1, 0.2]),
    with_column("tint", [0.1, INF, 0.1, 0.2]),
    with_column("tint", [0.1, 1.5, 0.1, 0.2]),
    with_column("tint", ["dark"] * 4),
    with_column("tint", [True, False, True, False]),
    with_column("digit", ["a", "b", "d", "a"]),
    with_column("digit", [0, 1, 3, 0]),
    with_column("digit", [0.0, 1.0, 2.0, 0.0]),
    with_column("digit", ["a", "b", None, "a"]),
    with_column("digit", [-1, 1, 2, 0]),
    {"tint": torch.zeros(4), "digit": torch.zeros(3).long(), "size": torch.zeros(4).long()},
    {"tint": torch.zeros(4, 2), "digit": torch.zeros(4).long(), "size": torch.zeros(4).long()},
    {"tint": 0.5, "digit": 0, "size": 0},
    Dataset.from_dict({"tint": [0.1]}),
]
NO_FIT = [
    *NO_TABLES,
    with_column("tint", [0.1] * 4),
    with_column("digit", ["a", "b", "b", "a"]),
]
VALUES = {"tint": 0.1, "digit": "a", "size": "M"}
NO_VALUES = [
    None,
    3,
    {},
    {"tint": 0.1},
    {**VALUES, "tint": NAN},
    {**VALUES, "tint": 7.0},
    {**VALUES, "tint": "dark"},
    {**VALUES, "tint": Other()},
    {**VALUES, "digit": "d"},
    {**VALUES, "digit": 3},
    {**VALUES, "digit": 0.5},
    {**VALUES, "digit": True},
    {**VALUES, "tint": [0.1, 0.2], "digit": ["a", "b", "c"]},
    {**VALUES, "weight": 1.0},
]
NO_DO = [3, {"weight": 1.0}, {"tint": NAN}, {"tint": 7.0}, {"digit": "d"}, {"tint": [0.1, 0.2, 0.3]}, {"image": 1}]


@functools.cache
def scm():
    torch.manual_seed(0)
    return StructuralCausalModel(GRAPH, hidden_features=2, num_bins=2)


def call(method: str):
    return lambda **arguments: getattr(scm(), method)(**arguments)


def noise(**changes):
    return {**scm().abduct(VALUES, torch.Generator().manual_seed(0)), **changes}


CONDITION = GRAPH.condition(GRAPH.check_values(VALUES, 1, "values"))
CALLS = {
    "TypefaceWorld": Call(
        TypefaceWorld,
        {"color": True, "confounding": 0.5},
        {
            "image_size": [0, 29, "28", None, 28.5],
            "color": NO_FLAG,
            "confounding": [-0.1, 1.0, NAN, "0.5", True],
        },
        [("confounding", {"color": False})],
    ),
    "MorphoMNISTWorld": Call(
        MorphoMNISTWorld,
        {"images": DIGITS, "labels": LABELS},
        {
            "images": [DIGITS / 255, DIGITS[0], DIGITS[:0], DIGITS[:, :20], DIGITS * 0],
            "labels": ["1", LABELS[:1], LABELS + 9, LABELS - 2, LABELS / 2, LABELS[:, None]],
            "slant": NO_FLAG,
            "color": NO_FLAG,
        },
    ),
    "MorphoMNISTWorld.from_dataset": Call(
        lambda **arguments: MorphoMNISTWorld.from_dataset(**{"dataset": base_digits(), **arguments}),
        {"image_column": "image"},
        {
            "dataset": [None, 3, "mnist", Dataset.from_dict({"image": [], "label": []})],
            "image_column": ["picture", 3, None],
            "label_column": ["digit", 3, None],
        },
    ),
    "World.sample": Call(
        lambda **arguments: world().sample(**arguments),
        {"num_samples": 2},
        {"num_samples": NO_COUNT, "generator": GENERATORS},
    ),
    "World.counterfactual": Call(
        lambda **arguments: world().counterfactual(**{"sample": sample(), **arguments}),
        {"do": {"thickness": 3.0}},
        {
            "sample": [None, 3, Other()],
            "do": [
                None,
                3,
                ["thickness"],
                {"digit": 3},
                {"weight": 1},
                {"base_digit": 0},
                {"thickness": NAN},
                {"thickness": INF},
                {"thickness": 0.1},
                {"thickness": "thick"},
                {"thickness": True},
                {"thickness": 1j},
                {"thickness": None},
                {"thickness": [1.0, 2.0, 3.0]},
                {"intensity": 300},
            ],
        },
        [
            ("sample", {"sample": dataclasses.replace(sample(), exogenous_noise={})}),
            ("sample", {"sample": dataclasses.replace(sample(), variables={})}),
        ],
    ),
    **{
        measure.__name__: Call(measure, {"images": IMAGES * torch.tensor([1.0, 0.5, 0.2])[:, None, None]}, bad)
        for measure, bad in (
            (measure_thickness, {"images": NO_IMAGES}),
            (measure_intensity, {"images": NO_IMAGES}),
            (measure_slant, {"images": NO_IMAGES}),
            (measure_hue, {"images": [*NO_IMAGES, IMAGES[:, :1]]}),
        )
    },
    "read_table": Call(
        read_table,
        {"graph": GRAPH, "table": TABLE},
        {"graph": [None, 3, NODES], "table": NO_TABLES},
    ),
    "StructuralCausalModel": Call(
        StructuralCausalModel,
        {"graph": GRAPH},
        {
            "graph": [None, 3, "graph.json", {}],
            "hidden_features": NO_COUNT,
            "num_bins": NO_COUNT,
        },
        [("edges", {"graph": {"nodes": NODES, "edges": [["tint", "weight"]]}})],
    ),
    "StructuralCausalModel.fit": Call(
        call("fit"),
        {"table": TABLE, "num_steps": 1, "progress_bar": False},
        {
            "table": NO_FIT,
            "num_steps": NO_COUNT,
            "batch_size": NO_COUNT,
            "learning_rate": [0, -1.0, NAN, INF, "high", None, True],
            "seed": ["0", 0.5, None],
            "progress_bar": NO_FLAG,
        },
    ),
    "StructuralCausalModel.abduct": Call(
        call("abduct"), {"values": VALUES}, {"values": NO_VALUES, "generator": GENERATORS}
    ),
    "StructuralCausalModel.log_prob": Call(call("log_prob"), {"values": VALUES}, {"values": NO_VALUES}),
    "StructuralCausalModel.predict": Call(
        lambda **arguments: scm().predict(**{"noise": noise(), **arguments}),
        {"do": {"tint": 0.5}},
        {
            "do": NO_DO,
            "noise": [
                None,
                3,
                {},
                {"weight": torch.zeros(1)},
                {"digit": noise()["digit"]},
                noise(digit=torch.zeros(1, 2)),
                noise(digit=torch.zeros(1, 3).long()),
                noise(digit=[0.0]),
                noise(size=torch.full((1, 3), NAN)),
                noise(size=torch.full((1, 3), INF)),
            ],
        },
    ),
    "StructuralCausalModel.counterfactual": Call(
        call("counterfactual"),
        {"values": VALUES, "do": {"tint": 0.5}},
        {
            "values": NO_VALUES,
            "do": [None, *NO_DO],
            "generator": GENERATORS,
            "hold": ["weight", ["tint"], *NO_NAMES],
        },
    ),
    "StructuralCausalModel.sample": Call(
        call("sample"),
        {"num_samples": 3},
        {"num_samples": NO_COUNT, "do": NO_DO[:-2], "generator": GENERATORS},
    ),
    "CausalGraph": Call(
        CausalGraph,
        {"nodes": NODES, "edges": EDGES},
        {
            "nodes": [
                None,
                [],
                {**NODES, 3: NODES["tint"]},
                {**NODES, "image": NODES["tint"]},
                {**NODES, "tint": None},
                {**NODES, "tint": {"kind": "number"}},
                {**NODES, "tint": {"kind": "continuous"}},
                {**NODES, "tint": {"kind": "continuous", "range": [1, -1]}},
                {**NODES, "tint": {"kind": "continuous", "range": [NAN, 1]}},
                {**NODES, "tint": {"kind": "continuous", "range": ["0", "1"]}},
                {**NODES, "tint": {"kind": "continuous", "range": [0, 1], "unit": 3}},
                {**NODES, "tint": {"kind": "continuous", "range": [0, 1], "colour": "red"}},
                {**NODES, "digit": {"kind": "categorical", "labels": ["a"]}},
                {**NODES, "digit": {"kind": "categorical", "labels": ["a", "a"]}},
                {**NODES, "digit": {"kind": "categorical", "labels": [1, 2]}},
                {**NODES, "digit": {"kind": "categorical"}},
            ],
            "edges": [
                None,
                "tint",
                [],
                [["tint"]],
                [["tint", "image"], ["tint", "image"]],
                [["image", "tint"], ["tint", "image"]],
                [["weight", "image"]],
                [["tint", "tint"], ["tint", "image"]],
                [["tint", "digit"], ["digit", "tint"], ["tint", "image"]],
                [["tint", "digit"]],
            ],
            "image": [None, 3, ""],
        },
    ),
    "CausalGraph.from_dict": Call(
        CausalGraph.from_dict,
        {"graph": {"nodes": NODES, "edges": EDGES}},
        {"graph": [None, 3, {}, [], {"nodes": NODES}, {"nodes": NODES, "edges": EDGES, "color": 3}]},
    ),
    "CausalGraph.from_json": Call(
        lambda path: CausalGraph.from_json(path) if path != "good" else GRAPH,
        {"path": "good"},
        {"path": [None, 3]},
    ),
    "CausalGraph.save_json": Call(
        lambda path: GRAPH.save_json(path) if path != "good" else GRAPH, {"path": "good"}, {"path": [None, 3, ""]}
    ),
    "CausalGraph.parents": Call(GRAPH.parents, {"name": "digit"}, {"name": ["weight", *NO_NAMES]}),
    "CausalGraph.descendants": Call(
        GRAPH.descendants,
        {"names": "tint"},
        {"names": ["weight", ["tint", "weight"], *NO_NAMES], "hold": ["weight", *NO_NAMES]},
    ),
    "CausalGraph.condition": Call(
        GRAPH.condition,
        {"values": GRAPH.check_values(VALUES, 1, "values")},
        {"values": [None, 3, {}, {"digit": torch.zeros(1).long()}, {**VALUES}]},
    ),
    "CausalGraph.values": Call(
        GRAPH.values,
        {"condition": CONDITION},
        {"condition": [None, 3, CONDITION[0], CONDITION[:, :2], CONDITION * NAN, CONDITION + INF, CONDITION.long()]},
    ),
    "CausalGraph.mermaid": Call(
        GRAPH.mermaid,
        {"do": "tint"},
        {"do": ["weight", *NO_NAMES], "hold": ["weight", *NO_NAMES]},
        [("hold", {"do": "digit", "hold": "digit"})],
    ),
    "CausalGraph.plot": Call(
        GRAPH.plot,
        {"do": "tint"},
        {"do": ["weight", *NO_NAMES], "hold": ["weight", *NO_NAMES], "ax": [3, "axes"]},
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)
