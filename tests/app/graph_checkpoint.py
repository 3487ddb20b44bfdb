# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A tiny untrained checkpoint with the causal graph of [`MorphoMNISTWorld`]."""

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler

from diffscm_diffusers import (
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMGraphCounterfactualPipeline,
    StructuralCausalModel,
)
from diffscm_diffusers.app.examples import read_digits
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.worlds import MorphoMNISTWorld


def save_graph_checkpoint(folder: Path):
    torch.manual_seed(0)
    images, names = read_digits()
    world = MorphoMNISTWorld(
        np.stack([np.asarray(image) for image in images]), np.array([int(name) for name in names])
    )
    graph = CausalGraph.from_dict(world.graph)
    scm = StructuralCausalModel(graph, hidden_features=8)
    table = world.sample(64, torch.Generator().manual_seed(0)).variables
    scm.fit({name: value.numpy() for name, value in table.items()}, num_steps=20, progress_bar=False)
    layers = {"norm_num_groups": 4, "block_out_channels": (8, 16), "layers_per_block": 1}
    unet = CausalUNet2DModel(
        graph.condition_widths,
        sample_size=28,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        **layers,
    )
    predictor = CausalPredictor2DModel(
        graph.condition_widths,
        sample_size=28,
        in_channels=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        **layers,
    )
    scheduler = DDIMScheduler(clip_sample=False)
    DiffSCMGraphCounterfactualPipeline(unet, scheduler, None, scm, predictor).save_pretrained(folder)
