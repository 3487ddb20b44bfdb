# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Both baselines with tiny random components."""

import torch

from diffscm_diffusers import ImageAutoencoder, ImageClassifier
from diffscm_diffusers.baselines import ClassPrototypes, SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.metrics.networks import MLPEnsemble


ID2LABEL = {0: "zero", 1: "one", 2: "two"}
# Settings of Van Looveren & Klaise with which random networks see most of their targets.
REACHABLE = {"gamma": 1.0, "theta": 1.0, "beta": 0.01, "c_init": 10.0, "learning_rate": 0.02, "max_iterations": 20}


def get_schut_pipe(**settings) -> SchutPipeline:
    torch.manual_seed(0)
    ensemble = MLPEnsemble(8, num_classes=3, id2label=ID2LABEL, num_members=3, hidden_features=(16,))
    for parameter in ensemble.layers[-1].parameters():
        parameter.data *= 8
    pipe = SchutPipeline(ensemble, **{"confidence": 0.6, **settings})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_van_looveren_klaise_pipe(**settings) -> VanLooverenKlaisePipeline:
    torch.manual_seed(0)
    classifier = ImageClassifier(
        8, num_classes=3, id2label=ID2LABEL, block_out_channels=(4,), block_kernel_sizes=(3,), block_dropouts=(0.3,)
    )
    for parameter in classifier.head[-1].parameters():
        parameter.data *= 8
    autoencoder = ImageAutoencoder(8, encoder_layers=(4, "pool", 1), decoder_layers=(4, "up"))
    prototypes = ClassPrototypes(3, (1, 4, 4))
    prototypes.fit(torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]))
    pipe = VanLooverenKlaisePipeline(classifier, autoencoder, prototypes, **{**REACHABLE, **settings})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_dummy_image(batch=1):
    return torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))
