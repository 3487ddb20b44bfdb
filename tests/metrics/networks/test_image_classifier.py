# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from pathlib import Path

import pytest
import torch
from torch import nn

from diffscm_diffusers import ImageClassifier


CONFIGS = Path(__file__).resolve().parents[3] / "train_scripts" / "configs"
VAN_LOOVEREN_KLAISE = {
    "block_kernel_sizes": (2, 2),
    "block_dropouts": (0.3, 0.3),
    "hidden_features": 256,
    "hidden_dropout": 0.5,
    "batch_norm": False,
}


def get_dummy_classifier(**config) -> ImageClassifier:
    torch.manual_seed(0)
    dummy = {
        "sample_size": 8,
        "num_classes": 3,
        "block_out_channels": (4,),
        "block_kernel_sizes": (3,),
        "block_dropouts": (0.5,),
        "hidden_features": 5,
    }
    return ImageClassifier(**{**dummy, **config}).eval()


def test_oracle_config_is_a_plain_network_with_batch_normalisation():
    torch.manual_seed(0)
    model = ImageClassifier.from_config(ImageClassifier.load_config(CONFIGS / "oracle_mnist.json"))
    written_out = nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.4), nn.Linear(64 * 7 * 7, 128), nn.ReLU()),
        *(nn.Dropout(0.4), nn.Linear(128, 10)),
    )
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), written_out.parameters())
    image = torch.rand(4, 1, 28, 28)
    # In training mode, for the batch's statistics to count; dropout draws the same numbers in both.
    torch.manual_seed(1)
    logits = model.train()(image)
    torch.manual_seed(1)
    torch.testing.assert_close(written_out.train()(image), logits)
    torch.testing.assert_close(written_out.eval()(image), model.eval()(image))


def test_van_looveren_and_klaises_classifier_can_be_expressed():
    torch.manual_seed(0)
    model = ImageClassifier(28, **VAN_LOOVEREN_KLAISE)
    written_out = nn.Sequential(
        *(nn.Conv2d(1, 32, 2, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)),
        *(nn.Conv2d(32, 64, 2, padding="same"), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)),
    )
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), written_out.parameters())
    image = torch.rand(4, 1, 28, 28)
    torch.manual_seed(1)
    logits = model.train()(image)
    torch.manual_seed(1)
    torch.testing.assert_close(written_out.train()(image), logits)


def test_odd_sizes_are_rounded_down():
    assert get_dummy_classifier(sample_size=9)(torch.rand(2, 1, 9, 9)).shape == (2, 3)


def test_names_of_the_classes():
    assert get_dummy_classifier().id2label == {0: "0", 1: "1", 2: "2"}
    model = get_dummy_classifier(id2label={"2": "c", "0": "a", "1": "b"})
    assert list(model.id2label.items()) == [(0, "a"), (1, "b"), (2, "c")]
    assert model.num_classes == 3


def test_saved_and_loaded_again_it_is_the_same(tmp_path):
    model = get_dummy_classifier(id2label={0: "a", 1: "b", 2: "c"})
    image = torch.rand(2, 1, 8, 8)
    # Running statistics of the normalisation belong to what is saved.
    model.train()(image)
    model.eval().save_pretrained(tmp_path)
    loaded = ImageClassifier.from_pretrained(tmp_path)
    assert torch.equal(loaded(image), model(image))
    assert loaded.id2label == model.id2label


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 4), (1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`image` expects shape \(batch, 1, 8, 8\), got"):
        get_dummy_classifier()(torch.zeros(shape))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"block_dropouts": (0.1, 0.1)}, "expects one entry per block, got 1, 1 and 2"),
        ({"sample_size": 1}, "`sample_size` expects at least 2 with 1 blocks, got 1"),
        (
            {"id2label": {0: "a", 1: "b"}},
            r"`id2label` expects a name for each class from 0 to 2, got .*0",
        ),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        get_dummy_classifier(**config)
