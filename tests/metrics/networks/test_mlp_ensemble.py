# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from torch import nn

from diffscm_diffusers.metrics.networks import MLPEnsemble


@pytest.fixture
def ensemble():
    torch.manual_seed(0)
    return MLPEnsemble(sample_size=2, in_channels=3, num_classes=4, num_members=3, hidden_features=(5, 6))


def to_members(ensemble):
    """The same networks one by one, made of torch's layers."""
    members = []
    for i in range(ensemble.config.num_members):
        member = nn.Sequential(
            nn.Linear(12, 5),
            nn.ReLU(),
            nn.BatchNorm1d(5),
            nn.Linear(5, 6),
            nn.ReLU(),
            nn.BatchNorm1d(6),
            nn.Linear(6, 4),
        )
        for own, batched in zip(member, ensemble.layers, strict=True):
            if isinstance(own, nn.Linear):
                own.weight.data, own.bias.data = batched.weight.data[i].T, batched.bias.data[i, 0]
            elif isinstance(own, nn.BatchNorm1d):
                own.weight.data = batched.weight.data.view(3, -1)[i]
                own.bias.data = batched.bias.data.view(3, -1)[i]
        members.append(member)
    return members


def test_members_are_multi_layer_perceptrons(ensemble):
    for parameter in ensemble.parameters():
        nn.init.normal_(parameter)
    members = to_members(ensemble)
    for _ in range(3):  # training moves the running statistics
        images = torch.rand(3, 8, 3, 2, 2)
        expected = torch.stack([member(x.flatten(1)) for member, x in zip(members, images, strict=True)])
        torch.testing.assert_close(ensemble(images), expected)

    ensemble.eval()
    expected = torch.stack([member.eval()(x.flatten(1)) for member, x in zip(members, images, strict=True)])
    torch.testing.assert_close(ensemble(images), expected)
    shared = ensemble(images[0])
    torch.testing.assert_close(shared[0], expected[0])
    torch.testing.assert_close(shared[1], members[1](images[0].flatten(1)))


def test_members_start_like_torch_layers(ensemble):
    weight = MLPEnsemble(num_members=2, hidden_features=(50,)).layers[0].weight
    reference = nn.Linear(784, 50).weight
    assert weight.abs().max() <= 784**-0.5
    torch.testing.assert_close(weight.std(), reference.std(), rtol=0.02, atol=0)
    assert not torch.allclose(weight[0], weight[1])


def test_round_trip(ensemble, tmp_path):
    for _ in range(3):
        ensemble(torch.rand(8, 3, 2, 2))
    ensemble.eval().save_pretrained(tmp_path)
    loaded = MLPEnsemble.from_pretrained(tmp_path)
    images = torch.rand(4, 3, 2, 2)
    assert torch.equal(loaded(images), ensemble(images))


def test_class_names():
    ensemble = MLPEnsemble(2, num_classes=2, id2label={"1": "nine", "0": "four"}, num_members=2)
    assert ensemble.id2label == {0: "four", 1: "nine"}
    assert MLPEnsemble(2, num_classes=2, num_members=2).id2label == {0: "0", 1: "1"}
    with pytest.raises(ValueError, match=r"from 0 to 1, got .*1.*2"):
        MLPEnsemble(2, num_classes=2, id2label={1: "four", 2: "nine"}, num_members=2)


@pytest.mark.parametrize("shape", ((3, 2, 2), (4, 1, 2, 2), (2, 4, 3, 2, 2), (1, 3, 4, 3, 2, 2)))
def test_images_of_another_shape(ensemble, shape):
    with pytest.raises(ValueError, match=r"`image` expects shape \(batch, 3, 2, 2\) or \(3, batch, 3, 2, 2\), got"):
        ensemble(torch.rand(shape))
