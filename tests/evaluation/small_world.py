# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A world of 8x8 images in three greys, moved up or down by a shift, with lighter rows or columns, as a data set."""

import json

import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value


CLASSES = ["dark", "grey", "light"]
LEVELS = torch.tensor([50.0, 120.0, 190.0])
PATTERNS = ["rows", "columns"]
GRAPH = {
    "nodes": {"grey": {"kind": "categorical", "labels": CLASSES}},
    "edges": [["grey", "image"]],
    "image": "image",
    "exogenous_noise": {
        "pattern": {"kind": "categorical", "labels": PATTERNS},
        "shift": {"kind": "continuous", "range": [-30.0, 30.0], "unit": "grey levels"},
    },
}


def render(grey: torch.Tensor, pattern: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Images in whole grey levels, uint8, `(num_images, 1, 8, 8)`."""
    rows = (torch.arange(8) % 2 * 20.0)[:, None].expand(8, 8)
    lighter = torch.stack([rows, rows.T])[pattern]
    return (LEVELS[grey, None, None] + lighter + shift[:, None, None]).round().byte()[:, None]


def write_world(folder, num_train=40, num_test=12):
    """Writes what `diffscm make-world` would, with two irrelevant columns."""
    features = {
        **{"image": Image(), "label": ClassLabel(names=CLASSES), "grey": ClassLabel(names=CLASSES)},
        **{"pattern": ClassLabel(names=PATTERNS), "shift": Value("float32"), "grey_noise": Value("int64")},
        **{"intervention": ClassLabel(names=CLASSES), "counterfactual": Image()},
    }
    (folder / "data").mkdir(parents=True)
    for seed, (split, size) in enumerate((("train", num_train), ("test", num_test))):
        generator = torch.Generator().manual_seed(seed)
        grey = torch.arange(size) % 3
        pattern = torch.randint(2, (size,), generator=generator)
        shift = 60 * torch.rand(size, generator=generator) - 30
        intervention = (grey + 1) % 3
        images, truth = render(grey, pattern, shift), render(intervention, pattern, shift)
        columns = {
            "image": [PIL.Image.fromarray(image[0].numpy()) for image in images],
            **{"label": grey.tolist(), "grey": grey.tolist(), "pattern": pattern.tolist(), "shift": shift.tolist()},
            "grey_noise": grey.tolist(),
            "intervention": [None] * size if split == "train" else intervention.tolist(),
            "counterfactual": [None] * size
            if split == "train"
            else [PIL.Image.fromarray(image[0].numpy()) for image in truth],
        }
        Dataset.from_dict(columns, Features(features)).to_parquet(folder / "data" / f"{split}-0.parquet")
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    return folder
