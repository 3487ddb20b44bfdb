# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch

from diffscm_diffusers.baselines import SchutPipeline
from diffscm_diffusers.metrics.networks import MLPEnsemble

from .helpers import get_dummy_image, get_schut_pipe


def get_linear_pipe(weights, **settings):
    """Two classes; the logit of class 1 is each member's `weights` times the four pixels, that of class 0 is zero."""
    ensemble = MLPEnsemble(2, num_classes=2, num_members=len(weights), hidden_features=())
    ensemble.layers[0].bias.data.zero_()
    ensemble.layers[0].weight.data.zero_()
    ensemble.layers[0].weight.data[..., 1] = torch.tensor(weights)
    pipe = SchutPipeline(ensemble, **settings)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(*pixels):
    return torch.tensor(pixels).view(1, 1, 2, 2)


class TestSearch:
    """With a linear ensemble: the most salient pixel is the one with the largest mean weight, whatever the image."""

    @pytest.mark.parametrize(
        "num_changes, pixels",
        (
            (1, (0.5, 0.5, 0.5, 0.5 - 0.2)),
            (2, (0.5, 0.5, 0.5, 0.5 - 0.4)),
            (3, (0.5, 0.5, 0.5, 0.0)),  # at black
            (4, (0.5, 0.5 + 0.2, 0.5, 0.0)),
            (7, (0.5 + 0.2, 1.0, 0.5, 0.0)),
            (9, (1.0, 1.0, 0.5, 0.0)),  # the pixel without a weight is never changed
        ),
    )
    def test_changes_the_most_salient_pixel(self, num_changes, pixels):
        pipe = get_linear_pipe([[1.0, 2.0, 0.0, -5.0], [1.0, 2.0, 0.0, -1.0]], max_iterations=num_changes)
        output = pipe(image(0.5, 0.5, 0.5, 0.5), 1, output_type="pt")
        torch.testing.assert_close(output.images, image(*pixels))
        assert output.num_iterations == num_changes and not output.succeeded

    def test_opposite_target(self):
        pipe = get_linear_pipe([[1.0, 2.0, 0.0, -3.0]], max_iterations=4)
        output = pipe(image(0.5, 0.5, 0.5, 0.5), 0, output_type="pt")
        torch.testing.assert_close(output.images, image(0.5, 0.3, 0.5, 1.0))

    def test_changes_each_pixel_five_times(self):
        pipe = get_linear_pipe([[1.0, 2.0, 0.0, 3.0]], step_size=0.1)
        output = pipe(image(0.0, 0.1, 0.2, 0.3), 1, output_type="pt")
        torch.testing.assert_close(output.images, image(0.5, 0.6, 0.2, 0.8))
        assert output.num_iterations == 15 and not output.succeeded

    def test_ends_where_no_pixel_can_change(self):
        output = get_linear_pipe([[1.0, 2.0, 0.0, -3.0]])(image(1.0, 1.0, 0.0, 0.0), 1, output_type="pt")
        torch.testing.assert_close(output.images, image(1.0, 1.0, 0.0, 0.0), rtol=0, atol=0)
        assert output.num_iterations == 0 and not output.succeeded

    @pytest.mark.parametrize("confidence, num_changes", ((0.5, 0), (0.54, 1), (0.7, 5), (0.8, 7)))
    def test_ends_when_confident(self, confidence, num_changes):
        pipe = get_linear_pipe([[2.0, 2.0, 2.0, 2.0]], confidence=confidence, step_size=0.1)
        pipe.classifier.layers[0].bias.data[..., 1] = -4.0
        output = pipe(image(0.5, 0.5, 0.5, 0.5), 1, output_type="pt")
        # The logit is zero at first, and each change adds 0.2.
        probabilities = torch.sigmoid(0.2 * torch.arange(9))
        assert num_changes == (probabilities < confidence).sum()
        assert output.num_iterations == num_changes and output.succeeded

    def test_confidence_needs_agreement(self):
        # The mean of the logits is sure of class 1, one of the members is sure of class 0.
        pipe = get_linear_pipe([[90.0, 0.0, 0.0, 0.0], [-9.0, 0.0, 0.0, 0.0]], max_iterations=1)
        output = pipe(image(1.0, 0.0, 0.0, 0.0), 1, output_type="pt")
        assert not output.succeeded

    def test_saliency_of_a_sure_ensemble(self):
        # At a probability of 1 - 1e-9, which float32 rounds to 1, the first pixel still matters more than the second.
        pipe = get_linear_pipe([[3.0, 0.0, 0.0, 0.0]], confidence=1 - 1e-12, max_iterations=1)
        pipe.classifier.layers[0].weight.data[0, :, 0] = torch.tensor([0.0, -2.0, 0.0, 0.0])
        pipe.classifier.layers[0].bias.data[..., 1] = 18.0
        output = pipe(image(0.5, 0.5, 0.5, 0.5), 1, output_type="pt")
        torch.testing.assert_close(output.images, image(0.7, 0.5, 0.5, 0.5))

    def test_sure_images_are_left_alone(self):
        pipe = get_linear_pipe([[50.0, 0.0, 0.0, 0.0]])
        output = pipe(torch.cat([image(1.0, 0.3, 0.2, 0.1), image(0.0, 0.3, 0.2, 0.1)]), 1, output_type="pt")
        torch.testing.assert_close(output.images[0], image(1.0, 0.3, 0.2, 0.1)[0])
        assert output.num_iterations.tolist() == [0, 1] and output.succeeded.all()


def test_finished_images_leave_the_batch():
    pipe, batch_sizes = get_schut_pipe(), []
    pipe.classifier.register_forward_pre_hook(lambda module, inputs: batch_sizes.append(len(inputs[0])))
    num_iterations = pipe(get_dummy_image(6), [0, 1, 2, 1, 0, 2], output_type="pt").num_iterations
    assert batch_sizes == [int((num_iterations >= i).sum()) for i in range(max(num_iterations) + 1)]


@pytest.mark.parametrize(
    "name, value",
    (
        ("step_size", 0),
        ("step_size", 1.1),
        ("step_size", float("nan")),
        ("step_size", "0.2"),
        ("confidence", "0.99"),
        ("confidence", 0.0),
        ("confidence", 1.0),
        ("max_changes_per_pixel", 0),
        ("max_changes_per_pixel", 2.5),
        ("max_iterations", 0),
    ),
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}` expects"):
        get_schut_pipe(**{name: value})
