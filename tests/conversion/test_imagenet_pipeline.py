# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What ImageNet asks of the pipeline, on a small sibling of its networks: the same layers and 1,000 named classes."""

import pytest
import torch
from diffusers import DDPMScheduler

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.conversion.class_names import imagenet_id2label

from .adm_reference import ADM, random_weights
from .test_adm_networks import convert_classifier, convert_denoiser


# The scale of the paper's interventional example on ImageNet.
GUIDED = {"guidance_scale": 5.0, "num_inference_steps": 4, "output_type": "pt"}


@pytest.fixture(scope="module")
def networks():
    classifier = ADM(pool="attention", num_classes=1000)
    classifier = convert_classifier(classifier, random_weights(classifier, seed=1))
    classifier.register_to_config(id2label=imagenet_id2label())
    return convert_denoiser(ADM(), random_weights(ADM())), classifier


@pytest.fixture
def pipe(networks):
    pipe = DiffSCMCounterfactualPipeline(*networks, DDPMScheduler(variance_type="learned_range"))
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    pipe.classifier.disable_gradient_checkpointing()


@pytest.fixture
def image():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_intervention_by_name(pipe, image):
    by_name = pipe(image[0], ["tabby cat", "golden retriever"], **GUIDED)
    by_index = pipe(image[0], [281, 207], **GUIDED)
    assert torch.equal(by_name.images, by_index.images)
    with pytest.raises(ValueError, match=r"'crane' names the classes \[134, 517\]"):
        pipe(image[0], "crane", **GUIDED)


def test_learned_sigma_is_left_out(pipe, image, networks):
    with torch.no_grad():
        prediction = pipe.predict_noise(image, 500)
        assert torch.equal(prediction, networks[0](image, 500).sample[:, :3])


def test_interventional_distribution(pipe):
    noise = {"generator": torch.Generator().manual_seed(0), "num_images": 2, "shared_noise": True}
    images = pipe.sample(["tabby, tabby cat", "golden retriever"], **noise, **GUIDED).images
    assert images.shape == (4, 3, 16, 16) and images.isfinite().all()
    # The same noise under another intervention is another image.
    assert not torch.allclose(images[:2], images[2:], atol=1e-3)


@pytest.mark.parametrize("batch_size", (1, 2))
def test_batches_split_to_fit(pipe, image, batch_size):
    sizes = []
    hooks = [
        network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        for network in (pipe.unet, pipe.classifier)
    ]
    split = pipe(image, 281, batch_size=batch_size, **GUIDED)
    for hook in hooks:
        hook.remove()
    assert max(sizes) == batch_size
    torch.testing.assert_close(split.images, pipe(image, 281, **GUIDED).images, rtol=0, atol=1e-3)


def test_gradient_checkpointing_of_the_classifier_changes_nothing(pipe, image):
    settings = {**GUIDED, "marginal_abduction": True}
    expected = pipe(image[0], 281, **settings).images
    sizes = []
    hook = pipe.classifier.down_blocks[0].resnets[0].register_forward_pre_hook(lambda *_: sizes.append(1))
    pipe.classifier.enable_gradient_checkpointing()
    images = pipe(image[0], 281, **settings).images
    hook.remove()
    # Each layer runs a second time when the gradient is taken; the last evaluation takes none.
    assert len(sizes) == 2 * GUIDED["num_inference_steps"] + 1
    torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)


def test_half_precision(networks, image, tmp_path):
    full = DiffSCMCounterfactualPipeline(*networks, DDPMScheduler(variance_type="learned_range"))
    full.set_progress_bar_config(disable=True)
    # Untrained predictors read another class in half precision.
    expected = full(image, 281, marginal_abduction=True, **GUIDED)
    full.save_pretrained(tmp_path)
    half = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path, dtype=torch.float16)
    half.set_progress_bar_config(disable=True)
    output = half(image, 281, marginal_abduction=True, **GUIDED)
    assert half.unet.dtype == half.classifier.dtype == torch.float16
    assert output.images.dtype == output.exogenous_noise.dtype == torch.float32
    assert (output.images - expected.images).abs().mean() < 0.01
    assert (output.exogenous_noise - expected.exogenous_noise).abs().mean() < 0.02


@pytest.mark.skipif(
    not (torch.cuda.is_available() or torch.backends.mps.is_available()), reason="offloads from an accelerator"
)
def test_model_cpu_offload(networks, image, tmp_path):
    full = DiffSCMCounterfactualPipeline(*networks, DDPMScheduler(variance_type="learned_range"))
    expected = full(image, 281, **GUIDED).images
    full.save_pretrained(tmp_path)
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(tmp_path)
    pipe.enable_model_cpu_offload()
    images = pipe(image, 281, **GUIDED).images
    assert pipe.unet.device.type == pipe.classifier.device.type == "cpu"
    assert (images.cpu() - expected).abs().mean() < 0.01
