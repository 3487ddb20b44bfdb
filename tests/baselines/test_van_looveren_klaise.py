# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffscm_diffusers import ImageAutoencoder, ImageClassifier
from diffscm_diffusers.baselines import ClassPrototypes, VanLooverenKlaisePipeline

from .helpers import get_dummy_image, get_van_looveren_klaise_pipe


FACTUAL = torch.tensor([[0.2, 0.4], [0.6, 0.8]])[None, None]
PROTOTYPE = torch.tensor([[0.7, 0.5], [0.6, 0.1]])[None, None]


def get_quadratic_pipe(bias=(0.0, 0.0), **settings):
    """
    The classifier's logits are `bias`, whatever it sees; encodings and reconstructions are the images themselves. So
    the loss is `theta * |x + d - proto|^2 + |d|^2 + beta * |d|_1`.
    """
    classifier = ImageClassifier(
        2, num_classes=2, block_out_channels=(1,), block_kernel_sizes=(1,), block_dropouts=(0,)
    )
    classifier.head[-1].weight.data.zero_()
    classifier.head[-1].bias.data = torch.tensor(bias)
    autoencoder = ImageAutoencoder(2, encoder_layers=(1,), decoder_layers=())
    for convolution in (autoencoder.encoder[0], autoencoder.decoder[0]):
        nn.init.dirac_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    prototypes = ClassPrototypes(2, (1, 2, 2))
    prototypes.fit(torch.cat([torch.zeros_like(PROTOTYPE), PROTOTYPE]), torch.tensor([0, 1]))
    pipe = VanLooverenKlaisePipeline(classifier, autoencoder, prototypes, **{"c_steps": 1, **settings})
    pipe.set_progress_bar_config(disable=True)
    return pipe


# With these logits class 1 is never reached.
NEVER = {"bias": (9.0, 0.0)}


class TestSearch:
    def test_first_iteration(self):
        """A gradient step, shrinkage by `beta`, and clamping to [0, 1]."""
        pipe = get_quadratic_pipe(theta=30.0, learning_rate=0.02, beta=0.1, max_iterations=1)
        output = pipe(FACTUAL, 1, output_type="pt")
        step = 0.02 * 2 * 30.0 * (PROTOTYPE - FACTUAL)  # 0.6, 0.12, 0, -0.84
        shrunk = step.sign() * (step.abs() - 0.1).clamp(min=0)
        torch.testing.assert_close(output.images, (FACTUAL + shrunk).clamp(0, 1))
        assert output.succeeded and output.num_iterations == 1

    def test_momentum_and_decay(self):
        """Three iterations by hand: of a pixel `d` away from its factual, the gradient is `4 d - 2 * 0.5`."""
        pipe = get_quadratic_pipe(theta=1.0, learning_rate=0.1, beta=0.0, max_iterations=3, **NEVER)
        first = 0.1
        second = first - 0.1 * (2 / 3) ** 0.5 * (4 * first - 1)
        ahead = second + (second - first) / 4
        third = ahead - 0.1 * (1 / 3) ** 0.5 * (4 * ahead - 1)
        output = pipe(FACTUAL, 1, output_type="pt")
        torch.testing.assert_close(output.images[0, 0, 0, 0], FACTUAL[0, 0, 0, 0] + third)
        assert not output.succeeded

    def test_minimum(self):
        pipe = get_quadratic_pipe(theta=3.0, learning_rate=0.1, beta=0.0, max_iterations=200, **NEVER)
        expected = FACTUAL + 3.0 * (PROTOTYPE - FACTUAL) / (1 + 3.0)
        torch.testing.assert_close(pipe(FACTUAL, 1, output_type="pt").images, expected, rtol=0, atol=1e-4)

    def test_nearest_of_all_that_reach_the_target(self):
        pipe = get_quadratic_pipe(theta=10.0, learning_rate=0.01, beta=0.0, max_iterations=20)
        # All do, and the way leads away from the factual.
        first = FACTUAL + 0.01 * 2 * 10.0 * (PROTOTYPE - FACTUAL)
        torch.testing.assert_close(pipe(FACTUAL, 1, output_type="pt").images, first)

    @pytest.mark.parametrize(
        "reachable_from, expected",
        ((0.0, [1, 0.5, 0.25, 0.125]), (1e9, [1, 10, 100, 1000]), (5.0, [1, 10, 5.5, 3.25])),
    )
    def test_bisection_of_c(self, monkeypatch, reachable_from, expected):
        pipe, seen = get_quadratic_pipe(c_init=1, c_steps=4, max_iterations=3), []  # an integer, as JSON may have

        def smooth_gradient(image, factual, target, c):
            seen.append(c)
            return torch.zeros_like(image)

        monkeypatch.setattr(pipe, "smooth_gradient", smooth_gradient)
        # Class 1 is reached if `c` is high enough, class 0 always.
        monkeypatch.setattr(pipe, "hinge", lambda image, target: target * (seen[-1] < reachable_from))
        pipe(FACTUAL, [1, 0], output_type="pt")
        c = torch.stack(seen)[::3]
        assert c[:, 0].tolist() == expected and c[:, 1].tolist() == [1, 0.5, 0.25, 0.125]


class TestLoss:
    @pytest.mark.parametrize(
        "target, kappa, expected",
        ((1, 0.0, 0.6 - 0.3), (0, 0.2, 0.0), (0, 0.4, 0.1), (1, 0.2, 0.5)),
    )
    def test_hinge(self, target, kappa, expected):
        pipe = get_van_looveren_klaise_pipe(kappa=kappa)
        pipe.classifier.head[-1].weight.data.zero_()
        pipe.classifier.head[-1].bias.data = torch.tensor([0.6, 0.3, 0.1]).log()
        hinge = pipe.hinge(get_dummy_image(2), torch.tensor([target, target]))
        torch.testing.assert_close(hinge, torch.tensor([expected, expected]))

    def test_gradient(self):
        """Against the loss's finite difference in a random direction."""
        c, gamma, theta = 3.0, 2.0, 4.0
        pipe = get_van_looveren_klaise_pipe(gamma=gamma, theta=theta, kappa=0.5)
        for component in pipe.components.values():
            component.double()
        factual, image, target = get_dummy_image(3).double(), get_dummy_image(3).flip(0).double(), torch.arange(3)

        def loss(image):
            probabilities = pipe.classifier(image).softmax(dim=1)
            others = probabilities[F.one_hot(target) == 0].view(3, 2)
            hinge = F.relu(others.max(dim=1).values - probabilities[range(3), range(3)] + 0.5)
            reconstruction, encoding = pipe.autoencoder(image), pipe.autoencoder.encode(image)
            return (
                c * hinge.sum()
                + (image - factual).norm() ** 2
                + gamma * (image - reconstruction).norm() ** 2
                + theta * (encoding - pipe.prototypes.encodings).norm() ** 2
            )

        gradient = pipe.smooth_gradient(image, factual, target, torch.full((3,), c, dtype=torch.float64))
        direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        slope = (loss(image + 1e-6 * direction) - loss(image - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-6)


class TestPrototypes:
    def test_are_means(self):
        prototypes = ClassPrototypes(2, (1, 1, 2))
        prototypes.fit(torch.tensor([[1.0, 2.0], [5.0, 6.0], [3.0, 6.0]]).view(3, 1, 1, 2), torch.tensor([1, 0, 1]))
        assert torch.equal(prototypes(torch.tensor([1, 0, 1])).flatten(1), torch.tensor([[2.0, 4], [5, 6], [2, 4]]))

    def test_class_without_images(self):
        with pytest.raises(
            ValueError, match=r"`labels` expects at least one image of each class, got none of \[0, 2\]"
        ):
            ClassPrototypes(3, (1,)).fit(torch.rand(2, 1), torch.tensor([1, 1]))

    @pytest.mark.parametrize(
        "encodings, labels, error, message",
        (
            (torch.rand(3, 1, 2), [0, 1, 3], ValueError, r"`labels` expects class indices from 0 to 2, got \[3\]"),
            (torch.rand(3, 1, 2), [0, -1, 2], ValueError, r"`labels` expects class indices from 0 to 2, got \[-1\]"),
            (
                torch.rand(3, 1, 2),
                [0.0, 1.0, 2.0],
                TypeError,
                "`labels` expects a tensor of integers, got torch.float32",
            ),
            (torch.rand(4, 1, 2), [0, 1, 2], ValueError, r"`labels` .* of the 4 samples, got shape \(3,\)"),
            (
                torch.rand(3, 2, 1),
                [0, 1, 2],
                ValueError,
                r"`encodings` expects shape \(num_images, 1, 2\), got \(3, 2, 1\)",
            ),
            (
                torch.ones(3, 1, 2).long(),
                [0, 1, 2],
                TypeError,
                "`encodings` expects a tensor of floats, got torch.int64",
            ),
            (torch.full((3, 1, 2), float("nan")), [0, 1, 2], ValueError, "`encodings` expects finite values"),
        ),
    )
    def test_bad_input(self, encodings, labels, error, message):
        with pytest.raises(error, match=message):
            ClassPrototypes(3, (1, 2)).fit(encodings, torch.tensor(labels))

    @pytest.mark.parametrize("dtype", (torch.uint8, torch.int32))
    def test_other_types(self, dtype):
        prototypes = ClassPrototypes(2, (1,))
        prototypes.fit(torch.tensor([[1.0], [2.0], [4.0]]).half(), torch.tensor([0, 1, 1], dtype=dtype))
        assert prototypes.encodings.tolist() == [[1.0], [3.0]] and prototypes.dtype == torch.float32


@pytest.mark.parametrize(
    "name, value",
    (
        ("kappa", -0.1),
        ("kappa", "0.1"),
        ("learning_rate", "0.01"),
        ("beta", float("nan")),
        ("gamma", -1),
        ("theta", float("inf")),
        ("c_init", 0),
        ("c_steps", 0),
        ("max_iterations", 2.5),
    ),
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"`{name}` expects"):
        get_van_looveren_klaise_pipe(**{name: value})


@pytest.mark.parametrize(
    "name, component",
    (
        ("autoencoder", ImageAutoencoder(4)),
        ("autoencoder", ImageAutoencoder(8, in_channels=3)),
        ("prototypes", ClassPrototypes(4, (1, 4, 4))),
        ("prototypes", ClassPrototypes(3, (1, 1, 1))),  # which broadcasts
        ("prototypes", ClassPrototypes(3, (2, 4, 4))),
    ),
)
def test_components_that_do_not_match(name, component):
    components = {**get_van_looveren_klaise_pipe().components, name: component}
    with pytest.raises(ValueError, match=f"`{name}` expects"):
        VanLooverenKlaisePipeline(**components)
