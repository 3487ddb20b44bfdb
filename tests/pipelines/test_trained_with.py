# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What a network was trained with is in its configuration, and compared where networks meet."""

import pytest
from diffusers import DDPMScheduler

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline, DiffSCMDDIMScheduler
from diffscm_diffusers.training.components import record_training

from .dummies import GUIDED, get_dummy_components, get_dummy_image


OTHERS = {
    "betas": (
        {"noise_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2")},
        "beta_schedule 'linear'.*squared",
    ),
    "steps": ({"noise_scheduler": DDPMScheduler(500)}, "num_train_timesteps 1000, .* num_train_timesteps 500"),
    "values": ({"value_range": (0, 1)}, r"images in \[-1, 1\], got one for \[0, 1\]"),
    "prediction": (
        {"noise_scheduler": DDPMScheduler(), "prediction_type": "sample"},
        "prediction_type 'epsilon', got .* prediction_type 'sample'",
    ),
}


@pytest.mark.parametrize("network", ["unet", "classifier"])
@pytest.mark.parametrize(("training", "message"), OTHERS.values(), ids=OTHERS)
def test_network_that_was_trained_otherwise_is_refused(network, training, message):
    components = get_dummy_components()
    record_training(components[network], **training)
    with pytest.raises(ValueError, match=f"`{network}` expects a network trained on .*{message}"):
        DiffSCMCounterfactualPipeline(**components)


def test_record_travels_with_the_weights(tmp_path):
    components = get_dummy_components()
    for name in ("unet", "classifier"):
        record_training(components[name], DDPMScheduler(), class_names=["zero", "one", "two"])
    DiffSCMCounterfactualPipeline(**components).save_pretrained(tmp_path)
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
    trained_with = pipe.classifier.config["_trained_with"]
    assert trained_with["noise_schedule"]["beta_end"] == 0.02
    assert trained_with["class_names"] == ["zero", "one", "two"]

    classifier = AntiCausalClassifier2DModel.from_pretrained(tmp_path, subfolder="classifier")
    record_training(classifier, DDPMScheduler(), class_names=["one", "zero", "two"])
    with pytest.raises(ValueError, match=r"`classifier` expects .* classes of `unet`, \['zero', .* on \['one',"):
        DiffSCMCounterfactualPipeline(**{**pipe.components, "classifier": classifier})


def test_scheduler_that_is_put_into_a_pipeline_is_compared(pipe):
    record_training(pipe.unet, DDPMScheduler())
    pipe(get_dummy_image(), 1, **GUIDED)
    pipe.scheduler = DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, beta_schedule="scaled_linear")
    pipe.inverse_scheduler = pipe.scheduler.inverse()
    with pytest.raises(ValueError, match="`unet` expects a network trained on the noise of `scheduler`"):
        pipe(get_dummy_image(), 1, **GUIDED)
