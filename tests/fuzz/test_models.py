# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of the networks, and of the graphs that causal ones are told."""

import functools

import torch
from diffusers import UNet2DModel

from diffscm_diffusers import (
    ADMUNet2DModel,
    AntiCausalClassifier2DModel,
    CausalPredictor2DModel,
    CausalUNet2DModel,
    ClassPrototypes,
    ImageAutoencoder,
    ImageClassifier,
    LatentVAE,
    MLPEnsemble,
    SemanticEncoder2DModel,
)
from diffscm_diffusers.causal_graphs import CausalGraph

from .table import INF, NAN, NO_COUNT, NO_FLAG, Call, Other, fuzz


SIZES = [*NO_COUNT, None]
LABELS = [{0: "zero"}, {0: "zero", 1: "one", 3: "three"}, {"a": "zero", "b": "one", "c": "two"}, ["a", "b", "c"], 3]
WIDTHS = [(), (0, 8), (8, -8), (8, 2.5), ("8", 8), 8, None]
IMAGE = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
NO_IMAGE = [None, "image", torch.zeros(2, 3, 8, 8), torch.zeros(8, 8)]
NO_LABELS = [None, 1, torch.tensor([0.0, 1.0]), torch.tensor([0, 1, 2]), torch.tensor([True, False])]

ENCODER = {"down_block_types": ("DownBlock2D",), "block_out_channels": (4,), "norm_num_groups": 4}
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    **ENCODER,
    "up_block_types": ("UpBlock2D",),
    "add_attention": False,
}
CLASSIFIER = {
    "sample_size": 8,
    "in_channels": 1,
    "num_classes": 3,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
}
CAUSES = {"condition_widths": {"tint": 1, "digit": 3}}
NO_CAUSES = [None, {}, 3, {"tint": 0}, {"tint": 1.5}, {"tint": "1"}]


@functools.cache
def model(name: str):
    """The networks, each made once."""
    return {
        "classifier": lambda: AntiCausalClassifier2DModel(**CLASSIFIER),
        "encoder": lambda: SemanticEncoder2DModel(8, 3, code_dim=7, block_out_channels=(4, 4, 4)),
        "autoencoder": lambda: ImageAutoencoder(8, encoder_layers=(4, "pool", 1), decoder_layers=(4, "up")),
        "image_classifier": lambda: ImageClassifier(8, num_classes=3),
        "vae": lambda: LatentVAE(8, latent_dim=2, block_out_channels=(4,), hidden_features=8),
        "ensemble": lambda: MLPEnsemble(8, num_classes=3, num_members=2, hidden_features=(8,)),
        "prototypes": lambda: ClassPrototypes(3, (1, 4, 4)),
        "causal_unet": lambda: CausalUNet2DModel(**CAUSES, **UNET),
        "causal_predictor": lambda: CausalPredictor2DModel(
            **CAUSES, sample_size=8, in_channels=1, add_attention=False, **ENCODER
        ),
    }[name]().eval()


def call(name: str, method: str):
    return lambda **arguments: getattr(model(name), method)(**arguments)


NODES = {"tint": {"kind": "continuous", "range": [-1, 1]}, "digit": {"kind": "categorical", "labels": ["0", "1", "2"]}}
EDGES = [["tint", "image"], ["digit", "image"]]


def check_values(**arguments):
    return CausalGraph(NODES, EDGES).check_values(**arguments)


CALLS = {
    "AntiCausalClassifier2DModel": Call(
        AntiCausalClassifier2DModel,
        CLASSIFIER,
        {
            "sample_size": SIZES,
            "in_channels": SIZES,
            "num_classes": SIZES,
            "id2label": LABELS,
            "down_block_types": [("DownBlock2D",), ("DownBlock2D", "Block"), None],
            "block_out_channels": [*WIDTHS, (8,), (8, 9)],
            "layers_per_block": SIZES,
            "downsample_type": ["pool", None],
            "add_attention": NO_FLAG,
            "attention_head_dim": NO_COUNT,
            "norm_num_groups": SIZES,
            "norm_eps": [0, -1e-5, NAN, "small"],
            "resnet_time_scale_shift": ["shift", None],
            "dropout": [-0.1, 1.0, NAN, "0.1"],
            "pooling": ["max", None],
            "time_proj_dim": NO_COUNT,
        },
    ),
    "AntiCausalClassifier2DModel.from_unet": Call(
        AntiCausalClassifier2DModel.from_unet,
        {"unet": UNet2DModel(**UNET), "num_classes": 3},
        {"unet": [None, "unet", UNet2DModel(**UNET, act_fn="relu")], "num_classes": SIZES, "id2label": LABELS},
    ),
    "AntiCausalClassifier2DModel.log_prob": Call(
        call("classifier", "log_prob"),
        {"sample": IMAGE, "timestep": 3, "class_labels": torch.tensor([0, 1])},
        {"sample": NO_IMAGE, "class_labels": [*NO_LABELS, torch.tensor([0, 3]), torch.tensor([-1, 0])]},
    ),
    "AntiCausalClassifier2DModel.log_prob_gradient": Call(
        call("classifier", "log_prob_gradient"),
        {"sample": IMAGE, "timestep": 3, "class_labels": torch.tensor([0, 1])},
        {"sample": NO_IMAGE, "class_labels": NO_LABELS},
    ),
    "AntiCausalClassifier2DModel.class_indices": Call(
        call("classifier", "class_indices"),
        {"classes": [0, "1"]},
        {"classes": [-1, 3, "seven", [], 1.5, None, True]},
    ),
    "SemanticEncoder2DModel": Call(
        SemanticEncoder2DModel,
        {"sample_size": 8, "condition_dim": 3},
        {
            "sample_size": [*SIZES, 6],
            "condition_dim": SIZES,
            "in_channels": SIZES,
            "code_dim": [*SIZES, 6],
            "block_out_channels": [*WIDTHS, (8, 8)],
            "hidden_features": SIZES,
            "condition_features": SIZES,
            "style_features": SIZES,
            "residual_std": [0, -0.1, NAN, INF, "0.1", True],
            "gain_conditions": [1, [-1], [100], ["0"], [0, 0], [True], None],
        },
    ),
    "SemanticEncoder2DModel.residual_prior": Call(
        call("encoder", "residual_prior"),
        {"sample": IMAGE, "decoded": IMAGE, "alpha_prod": 0.5, "prediction_type": "epsilon"},
        {"sample": [None, 0.5], "decoded": [None, IMAGE[:1], IMAGE[:, 0]], "prediction_type": [None, "x", 3]},
    ),
    "SemanticEncoder2DModel.encode": Call(
        call("encoder", "encode"),
        {"sample": IMAGE, "condition": torch.eye(3)[:2]},
        {"sample": NO_IMAGE, "condition": [None, torch.eye(3), torch.zeros(2, 2)]},
    ),
    "SemanticEncoder2DModel.decode": Call(
        call("encoder", "decode"),
        {"code": torch.zeros(2, 7), "condition": torch.eye(3)[:2]},
        {"code": [None, torch.zeros(2, 6), torch.zeros(7)], "condition": [None, torch.eye(3), torch.zeros(2, 2)]},
    ),
    "ADMUNet2DModel": Call(
        ADMUNet2DModel,
        {**UNET, "block_out_channels": (8,), "add_attention": True, "attention_head_dim": 4},
        {"num_attention_heads": [*NO_COUNT, 3], "time_proj_dim": NO_COUNT, "block_out_channels": WIDTHS},
    ),
    "CausalUNet2DModel": Call(
        CausalUNet2DModel,
        {**CAUSES, **UNET},
        {"condition_widths": NO_CAUSES, "num_class_embeds": [3], "class_embed_type": ["timestep"]},
    ),
    "CausalUNet2DModel.forward": Call(
        call("causal_unet", "forward"),
        {"sample": IMAGE, "timestep": 3, "condition": torch.zeros(2, 4)},
        {
            "sample": NO_IMAGE,
            "condition": [None, torch.zeros(2, 3), torch.zeros(1, 4), torch.zeros(4)],
            "keep": [3, torch.ones(2, 2), torch.ones(2, 3, dtype=torch.bool)],
        },
    ),
    "CausalPredictor2DModel": Call(
        CausalPredictor2DModel,
        {**CAUSES, "sample_size": 8, "in_channels": 1, "add_attention": False, **ENCODER},
        {
            "condition_widths": NO_CAUSES,
            "sample_size": SIZES,
            "in_channels": SIZES,
            "chained": NO_FLAG,
            "block_out_channels": WIDTHS,
        },
    ),
    "CausalPredictor2DModel.log_prob": Call(
        call("causal_predictor", "log_prob"),
        {"sample": IMAGE, "timestep": 3, "condition": torch.zeros(2, 4)},
        {"sample": NO_IMAGE, "condition": [None, torch.zeros(2, 3), torch.zeros(1, 4)]},
    ),
    "CausalGraph": Call(
        CausalGraph,
        {"nodes": NODES, "edges": EDGES},
        {
            "nodes": [None, {"tint": 3}, {"tint": {"kind": "odd"}}, {**NODES, "tint": {"kind": "continuous"}}],
            "edges": [None, [["tint", "weight"]], [["tint"]], [["tint", "digit"], ["digit", "tint"], *EDGES], 3],
            "image": [3],
        },
        [("nodes", {"image": "tint"}), ("edges", {"nodes": {}})],
    ),
    "CausalGraph.check_values": Call(
        check_values,
        {"values": {"tint": 0.5, "digit": "1"}, "num_samples": 2, "argument": "values"},
        {
            "values": [
                3,
                {"weight": 1.0},
                {"tint": 2.0},
                {"tint": NAN},
                {"tint": "dark"},
                {"tint": [0.1, 0.2, 0.3]},
                {"digit": 3},
                {"digit": "3"},
                {"digit": 0.5},
                {"digit": Other()},
            ]
        },
    ),
    "ImageClassifier": Call(
        ImageClassifier,
        {"sample_size": 8, "num_classes": 3},
        {
            "sample_size": [*SIZES, 3],
            "in_channels": SIZES,
            "num_classes": SIZES,
            "id2label": LABELS,
            "block_out_channels": [*WIDTHS, (8,)],
            "block_kernel_sizes": [(0, 3), (3,), 3, (3, "5")],
            "block_dropouts": [(0.1,), (1.5, 0.1), (NAN, 0.1), 0.1],
            "hidden_features": SIZES,
            "hidden_dropout": [-0.1, 1.0, NAN, "0.1"],
            "batch_norm": NO_FLAG,
        },
    ),
    "ImageClassifier.forward": Call(call("image_classifier", "forward"), {"image": IMAGE}, {"image": NO_IMAGE}),
    "ImageAutoencoder": Call(
        ImageAutoencoder,
        {"sample_size": 8},
        {
            "sample_size": [*SIZES, 7],
            "in_channels": SIZES,
            "encoder_layers": [(), (16, "pool"), (16, "up", 1), (0,), (True,), 16, None],
            "decoder_layers": [(16,), (16, "pool"), (0, "up"), None],
            "linear_encoding": NO_FLAG,
        },
    ),
    "ImageAutoencoder.forward": Call(call("autoencoder", "forward"), {"image": IMAGE}, {"image": NO_IMAGE}),
    "LatentVAE": Call(
        LatentVAE,
        {"sample_size": 8},
        {
            "sample_size": [*SIZES, 6],
            "in_channels": SIZES,
            "latent_dim": SIZES,
            "block_out_channels": WIDTHS,
            "hidden_features": SIZES,
        },
    ),
    "LatentVAE.encode": Call(
        call("vae", "encode"), {"image": IMAGE}, {"image": [*NO_IMAGE, IMAGE * 2, IMAGE * NAN, IMAGE + INF]}
    ),
    "LatentVAE.decode": Call(
        call("vae", "decode"), {"latent": torch.zeros(2, 2)}, {"latent": [None, torch.zeros(2, 3), torch.zeros(2)]}
    ),
    "MLPEnsemble": Call(
        MLPEnsemble,
        {"sample_size": 8, "num_classes": 3, "num_members": 2, "hidden_features": (8,)},
        {
            "sample_size": SIZES,
            "in_channels": SIZES,
            "num_classes": SIZES,
            "id2label": LABELS,
            "num_members": SIZES,
            "hidden_features": WIDTHS[1:],
        },
    ),
    "MLPEnsemble.forward": Call(call("ensemble", "forward"), {"image": IMAGE}, {"image": NO_IMAGE}),
    "ClassPrototypes": Call(
        ClassPrototypes,
        {"num_classes": 3, "encoding_shape": (1, 4, 4)},
        {"num_classes": SIZES, "encoding_shape": [(0,), (1.5,), None, 3, "4"]},
    ),
    "ClassPrototypes.fit": Call(
        call("prototypes", "fit"),
        {"encodings": torch.zeros(3, 1, 4, 4), "labels": torch.tensor([0, 1, 2])},
        {
            "encodings": [None, torch.zeros(3, 4, 4), torch.full((3, 1, 4, 4), NAN), torch.zeros(3, 1, 4, 4).long()],
            "labels": [None, torch.tensor([0, 1, 3]), torch.tensor([0, 1, 1]), torch.zeros(3), torch.tensor([0])],
        },
    ),
    "ClassPrototypes.forward": Call(
        call("prototypes", "forward"),
        {"labels": torch.tensor([0, 2])},
        {"labels": [None, torch.tensor([3]), torch.tensor([-1]), torch.tensor([0.5])]},
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)
