# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import numpy as np
import PIL.Image
import pytest
from accelerate.state import AcceleratorState
from datasets import ClassLabel, Dataset, Features, Image, Value

from diffscm_diffusers.causal_graphs import CausalGraph


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """Keeps accelerate off other devices, where sums may be taken in another order each time."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def fresh_accelerate():
    """Lets a test choose the precision or the compilation, which accelerate otherwise fixes once in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Greyscale 8x8 noise: 30 images to train on and 6 to validate on, half of them `dark`, half `light`."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 15), ("test", 3)):
        for label, low in (("dark", 0), ("light", 128)):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(low, low + 128, (8, 8), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / split / label / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def graph_flags(tmp_path_factory, cache_dir):
    """Flags of 8x8 images of a `shade`, dark or light, and a `level` in [0, 10], and of their causal graph."""
    folder = tmp_path_factory.mktemp("graph")
    generator = np.random.default_rng(0)
    features = Features({"picture": Image(), "shade": ClassLabel(names=["dark", "light"]), "level": Value("float32")})
    (folder / "data").mkdir()
    for split, count in (("train", 30), ("test", 6)):
        shade, level = generator.integers(0, 2, count), generator.uniform(0, 10, count)
        pixels = generator.integers(0, 50, (count, 8, 8)) + (100 * shade + 10 * level)[:, None, None]
        rows = {"picture": [PIL.Image.fromarray(image) for image in pixels.astype(np.uint8)]}
        rows |= {"shade": shade.tolist(), "level": level.tolist()}
        Dataset.from_dict(rows, features).to_parquet(folder / "data" / f"{split}.parquet")
    graph = CausalGraph(
        {
            "shade": {"kind": "categorical", "labels": ["dark", "light"]},
            "level": {"kind": "continuous", "range": [0, 10], "unit": "steps"},
        },
        [["shade", "image"], ["level", "image"]],
    )
    graph.save_json(folder / "graph.json")
    return {
        "dataset_name": folder / "data",
        "cache_dir": cache_dir,
        "image_column": "picture",
        "graph": folder / "graph.json",
    }


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def model_configs(tmp_path_factory):
    """JSON files of tiny models by their kind; `dropout` draws from the global random generator in training."""
    folder = tmp_path_factory.mktemp("configs")
    shared = {
        "sample_size": 8,
        "in_channels": 1,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "add_attention": False,
        "norm_num_groups": 4,
    }
    unet = {**shared, "_class_name": "UNet2DModel", "out_channels": 1, "up_block_types": ["UpBlock2D", "UpBlock2D"]}
    configs = {
        "unet": unet,
        "unet_dropout": {**unet, "dropout": 0.2},
        "classifier_dropout": {**shared, "_class_name": "AntiCausalClassifier2DModel", "dropout": 0.2},
        "predictor": {**shared, "_class_name": "CausalPredictor2DModel", "condition_widths": [["class", 2]]},
        "encoder": {
            "_class_name": "SemanticEncoder2DModel",
            "sample_size": 8,
            "condition_dim": 2,
            "code_dim": 7,
            "block_out_channels": [4, 4, 4],
            "hidden_features": 8,
            "condition_features": 4,
            "style_features": 4,
        },
    }
    for name, config in configs.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    return {name: folder / f"{name}.json" for name in configs}


@pytest.fixture
def flags(image_folder, cache_dir, model_configs, tmp_path):
    """Flags of a run of `train_diffusion.py` that takes two steps."""
    return {
        "train_data_dir": image_folder,
        "cache_dir": cache_dir,
        "model_config_name_or_path": model_configs["unet"],
        "train_batch_size": 4,
        "max_train_steps": 2,
        "lr_warmup_steps": 1,
        "validation_grid_size": 2,
        "validation_inference_steps": 2,
        "output_dir": tmp_path,
        "report_to": "none",
    }
