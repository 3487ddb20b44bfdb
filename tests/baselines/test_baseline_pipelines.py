# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the baselines share: calling, saving and checks of arguments."""

import numpy as np
import PIL.Image
import pytest
import torch

from diffscm_diffusers import baselines
from tests.helpers import run_in_fresh_process

from .helpers import get_dummy_image, get_schut_pipe, get_van_looveren_klaise_pipe


@pytest.fixture(params=(get_van_looveren_klaise_pipe, get_schut_pipe), ids=("van_looveren_klaise", "schut"))
def pipe(request):
    return request.param()


@pytest.fixture
def any_pipe():
    """One of the two, for what is written once for both."""
    return get_schut_pipe()


class TestSearch:
    def test_reaches_the_target(self, pipe):
        output = pipe(get_dummy_image(5), [0, 1, 2, 1, 0], output_type="pt")
        assert output.images.shape == (5, 1, 8, 8) and output.images.dtype == torch.float32
        assert output.images.min() >= 0 and output.images.max() <= 1
        assert output.succeeded.dtype == torch.bool and output.succeeded.sum() >= 3
        assert output.num_iterations.dtype == torch.int64 and output.num_iterations.shape == (5,)
        logits = pipe.classifier(output.images)
        predictions = logits.view(-1, 5, 3).softmax(dim=-1).mean(dim=0).argmax(dim=-1)
        assert torch.equal(predictions == torch.tensor([0, 1, 2, 1, 0]), output.succeeded)

    def test_no_image_depends_on_its_batch(self, pipe):
        images, targets = get_dummy_image(6), [0, 1, 2, 1, 0, 2]
        whole = pipe(images, targets, output_type="pt")
        assert whole.succeeded.sum() >= 3
        chunks = pipe(images, targets, batch_size=4, output_type="pt")
        backwards = pipe(images.flip(0), targets[::-1], output_type="pt")
        for i, target in enumerate(targets):
            alone = pipe(images[i], target, output_type="pt")
            for image, succeeded, num_iterations in (
                (whole.images[i], whole.succeeded[i], whole.num_iterations[i]),
                (chunks.images[i], chunks.succeeded[i], chunks.num_iterations[i]),
                (backwards.images[5 - i], backwards.succeeded[5 - i], backwards.num_iterations[5 - i]),
            ):
                torch.testing.assert_close(image, alone.images[0], rtol=0, atol=1e-5)
                assert succeeded == alone.succeeded[0] and num_iterations == alone.num_iterations[0]

    def test_networks_are_set_to_evaluation_mode(self, pipe):
        for component in pipe.components.values():
            component.train()
        pipe = type(pipe)(**pipe.components, **{k: v for k, v in pipe.config.items() if not isinstance(v, tuple)})
        assert not any(component.training for component in pipe.components.values())

    def test_networks_that_trained_since(self, pipe):
        expected = pipe(get_dummy_image(3), [0, 1, 2], output_type="pt").images
        for component in pipe.components.values():
            component.train()
        buffers = {name: buffer.clone() for name, buffer in pipe.classifier.named_buffers()}
        assert torch.equal(pipe(get_dummy_image(3), [0, 1, 2], output_type="pt").images, expected)
        for name, buffer in pipe.classifier.named_buffers():
            assert torch.equal(buffer, buffers[name])

    def test_gradient_modes(self, pipe):
        expected = pipe(get_dummy_image(2), [0, 1], output_type="pt").images
        for context in (torch.no_grad, torch.inference_mode):
            with context():
                images = pipe(get_dummy_image(2), [0, 1], output_type="pt").images
            assert torch.equal(images, expected) and not images.requires_grad
        assert all(parameter.grad is None for parameter in pipe.classifier.parameters())

    def test_progress_bar(self, pipe, capsys):
        pipe.set_progress_bar_config(disable=False)
        pipe(get_dummy_image(3), 1, batch_size=2)
        assert "3/3" in capsys.readouterr().err


class TestCall:
    def test_one_image_many_targets(self, any_pipe):
        output = any_pipe(get_dummy_image(), ["two", 0], output_type="pt")
        for target, image in zip((2, 0), output.images, strict=True):
            torch.testing.assert_close(any_pipe(get_dummy_image(), target, output_type="pt").images[0], image)

    def test_many_images_one_target(self, any_pipe):
        output = any_pipe(get_dummy_image(3), "two", output_type="pt")
        torch.testing.assert_close(output.images, any_pipe(get_dummy_image(3), [2, 2, 2], output_type="pt").images)

    def test_output_types(self, any_pipe):
        tensor = any_pipe(get_dummy_image(2), 1, output_type="pt").images
        array = any_pipe(get_dummy_image(2), 1, output_type="np").images
        pictures = any_pipe(get_dummy_image(2), 1).images
        images, succeeded, num_iterations = any_pipe(get_dummy_image(2), 1, output_type="pt", return_dict=False)
        assert torch.equal(images, tensor) and len(succeeded) == len(num_iterations) == 2
        np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(np.asarray(pictures[1]), (array[1, :, :, 0] * 255).round().astype("uint8"))

    def test_factual_pixels(self, any_pipe):
        """Pixels in [0, 255] and in [0, 1] are the same image."""
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        expected = any_pipe(torch.from_numpy(pixels)[None].float() / 255, 1, output_type="pt").images
        for image in (pixels, PIL.Image.fromarray(pixels), [pixels / 255]):
            torch.testing.assert_close(any_pipe(image, 1, output_type="pt").images, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "name, kwargs",
        (
            ("image", {"image": []}),
            ("image", {"image": torch.rand(1, 1, 8, 9)}),
            ("image", {"image": torch.full((1, 8, 8), 1.1)}),
            ("intervention", {"intervention": 3}),
            ("intervention", {"intervention": "three"}),
            ("intervention", {"intervention": 1.0}),
            ("intervention", {"image": torch.rand(3, 1, 8, 8), "intervention": [0, 1]}),
            ("batch_size", {"batch_size": 0}),
            ("output_type", {"output_type": "latent"}),
        ),
    )
    def test_bad_argument(self, any_pipe, name, kwargs):
        """Is refused before any network runs."""
        any_pipe.classifier.register_forward_pre_hook(lambda *inputs: pytest.fail("a network ran"))
        with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
            any_pipe(**{"image": get_dummy_image(), "intervention": 1, **kwargs})


def load_and_call(folder):
    for name in ("VanLooverenKlaisePipeline", "SchutPipeline"):
        pipe = getattr(baselines, name).from_pretrained(folder / name)
        images = pipe(torch.load(folder / "image.pt", weights_only=True), ["two", 1], output_type="pt").images
        torch.save(images, folder / f"{name}.pt")


def test_fresh_process(tmp_path):
    pipes = {type(pipe).__name__: pipe for pipe in (get_van_looveren_klaise_pipe(), get_schut_pipe())}
    for name, pipe in pipes.items():
        pipe.save_pretrained(tmp_path / name)
    torch.save(get_dummy_image(), tmp_path / "image.pt")
    run_in_fresh_process(load_and_call, tmp_path)
    for name, pipe in pipes.items():
        expected = pipe(get_dummy_image(), ["two", 1], output_type="pt").images
        images = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)


def test_settings_are_saved_and_overridden(pipe, tmp_path):
    pipe.register_to_config(max_iterations=7)
    pipe.save_pretrained(tmp_path)
    assert type(pipe).from_pretrained(tmp_path).config.max_iterations == 7
    assert type(pipe).from_pretrained(tmp_path, max_iterations=3).config.max_iterations == 3
