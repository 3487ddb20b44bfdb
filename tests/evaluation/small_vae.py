# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Untrained VAEs of 8x8 images, in folders."""

import torch

from diffscm_diffusers.baselines import ConditionalVAE2DModel
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.files import save_whole
from diffscm_diffusers.training.components import record_training
from tests.evaluation.conftest import CLASSES


TINT = {"kind": "continuous", "range": [0.0, 1.0]}


def make_graph(labels=CLASSES, **others) -> CausalGraph:
    nodes = {"shade": {"kind": "categorical", "labels": labels}, **others}
    return CausalGraph(nodes, [[name, "image"] for name in nodes])


def save_vae(folder, graph=None, model_class=ConditionalVAE2DModel, **config):
    """What `train_vae.py` writes, untrained."""
    torch.manual_seed(0)
    widths = make_graph().condition_widths if graph is None else graph.condition_widths
    sizes = {"sample_size": 8, "block_out_channels": (4, 6), "condition_features": 5}
    vae = model_class(**{**sizes, "condition_dim": sum(widths.values()), **config})
    for weights in vae.parameters():  # also those that start at zero
        weights.data += 0.1 * torch.randn(weights.shape)
    if graph is not None:
        record_training(vae, graph=graph)
    save_whole(vae, folder)
    return vae.eval()
