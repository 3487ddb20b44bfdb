# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""ADM's networks as this package's and Diffusers' models: configuration by flags, sizes and weights from the file."""

import torch
from diffusers import UNet2DModel

from diffscm_diffusers.models import AntiCausalClassifier2DModel
from diffscm_diffusers.models.adm_unet_2d import ADMUNet2DModel

from .adm_configs import classifier_config, denoiser_config
from .adm_weights import classifier_names, convert_weights, denoiser_names
from .class_names import imagenet_id2label


LAST_LAYERS = {"adaptive": "out.3", "attention": "out.2.c_proj", "spatial": "out.2", "spatial_v2": "out.3"}


def read_size(weights: dict[str, torch.Tensor], name: str, dimension: int, default: int) -> int:
    """A size that no flag gives. Where the weight is missing, `default`: the conversion will list it."""
    shape = weights[name].shape if name in weights else ()
    return shape[dimension] if dimension < len(shape) else default


def convert_denoiser(
    weights: dict[str, torch.Tensor], class_cond: bool = False, use_new_attention_order: bool = False, **flags
) -> UNet2DModel | ADMUNet2DModel:
    """
    Converts a denoiser.

    Args:
        weights (`dict[str, torch.Tensor]`): Its state dict. The model's weights share its memory where they can.
        class_cond (`bool`, *optional*, defaults to `False`): Whether it is class-conditional.
        use_new_attention_order (`bool`, *optional*, defaults to `False`): See [`convert_weights`].
        flags: The other arguments of [`denoiser_config`].

    Raises:
        ValueError: if the weights are not those of the network that the flags describe. All that differ are listed.
    """
    config = denoiser_config(
        in_channels=read_size(weights, "input_blocks.0.0.weight", 1, default=3),
        num_classes=read_size(weights, "label_emb.weight", 0, default=1000) if class_cond else None,
        **flags,
    )
    model_class = {"UNet2DModel": UNet2DModel, "ADMUNet2DModel": ADMUNet2DModel}[config.pop("_class_name")]
    with torch.device("meta"):
        model = model_class(**config)
    weights = convert_weights(weights, model, denoiser_names(model.config), use_new_attention_order)
    model.load_state_dict(weights, assign=True)
    return model


def convert_classifier(
    weights: dict[str, torch.Tensor],
    id2label: dict[int, str] | None = None,
    use_new_attention_order: bool = False,
    **flags,
) -> AntiCausalClassifier2DModel:
    """
    Converts a classifier.

    Args:
        weights (`dict[str, torch.Tensor]`): Its state dict. The model's weights share its memory where they can.
        id2label (`dict[int, str]`, *optional*): Names of the classes. Default: ImageNet's, if there are 1,000.
        use_new_attention_order (`bool`, *optional*, defaults to `False`):
            See [`convert_weights`]. The published classifiers have the other order, whatever the denoiser's.
        flags: The other arguments of [`classifier_config`].

    Raises:
        ValueError: if the weights are not those of the network that the flags describe. All that differ are listed.
    """
    num_classes = read_size(weights, f"{LAST_LAYERS[flags['classifier_pool']]}.bias", 0, default=1000)
    if id2label is None and num_classes == 1000:
        id2label = imagenet_id2label()
    config = classifier_config(
        in_channels=read_size(weights, "input_blocks.0.0.weight", 1, default=3),
        num_classes=num_classes,
        id2label=id2label,
        **flags,
    )
    with torch.device("meta"):
        model = AntiCausalClassifier2DModel(**config)
    weights = convert_weights(weights, model, classifier_names(model.config), use_new_attention_order)
    model.load_state_dict(weights, assign=True)
    return model
