# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from torch import nn

from diffscm_diffusers import ImageAutoencoder, ImageClassifier, LatentVAE
from diffscm_diffusers.metrics import MetricModels, TransformersOracle, metric_models


NUM_CLASSES = 3


def get_dummy_networks() -> dict:
    torch.manual_seed(0)
    layers = {"encoder_layers": (2, "pool", 1), "decoder_layers": ("up",)}
    return {
        "vae": LatentVAE(8, latent_dim=2, block_out_channels=(2,), hidden_features=3).eval(),
        "autoencoder": ImageAutoencoder(8, **layers).eval(),
        "class_autoencoders": nn.ModuleList(ImageAutoencoder(8, **layers) for _ in range(NUM_CLASSES)).eval(),
        "oracle": ImageClassifier(8, num_classes=NUM_CLASSES).eval(),
    }


def save(networks: dict, folder):
    for name in ("vae", "autoencoder", "oracle"):
        networks[name].save_pretrained(folder / name)
    for c, network in enumerate(networks["class_autoencoders"]):
        network.save_pretrained(folder / "class_autoencoders" / str(c))


@pytest.fixture
def networks():
    return get_dummy_networks()


@pytest.fixture
def folder(networks, tmp_path):
    save(networks, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def transformers_classifier(tmp_path_factory):
    """Folder of a tiny transformer of RGB images, 16 x 12, that normalises each channel in its own way."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=(16, 12),
        patch_size=4,
        num_labels=NUM_CLASSES,
        id2label={0: "a", 1: "b", 2: "c"},
        initializer_range=0.5,
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    write_processor(folder, size={"height": 16, "width": 12})
    return folder


def write_processor(folder, **settings):
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.25, 2.0],
        "resample": 2,
        **settings,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def test_loads_what_was_saved_ready_to_measure(networks, folder):
    models = MetricModels.from_pretrained(folder)
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(models.vae(image), networks["vae"](image))
    assert torch.equal(models.autoencoder(image), networks["autoencoder"](image))
    assert torch.equal(models.oracle(image), networks["oracle"](image))
    assert len(models.class_autoencoders) == NUM_CLASSES
    for loaded, saved in zip(models.class_autoencoders, networks["class_autoencoders"], strict=True):
        assert torch.equal(loaded(image), saved(image))
    assert not any(module.training for module in models.modules())
    assert not any(parameter.requires_grad for parameter in models.parameters())


def test_class_autoencoders_are_in_the_order_of_the_classes(tmp_path, networks):
    # "10" comes before "2" in the order of names.
    layers = {"encoder_layers": (1,), "decoder_layers": ()}
    networks["class_autoencoders"] = nn.ModuleList(ImageAutoencoder(8, **layers) for _ in range(11))
    networks["oracle"] = ImageClassifier(8, num_classes=11)
    save(networks, tmp_path)
    models = MetricModels.from_pretrained(str(tmp_path))
    for loaded, saved in zip(models.class_autoencoders, networks["class_autoencoders"], strict=True):
        assert torch.equal(loaded.decoder[0].weight, saved.decoder[0].weight)


def test_models_that_train_are_made_ready_to_measure(networks):
    networks["oracle"].train()
    assert not MetricModels(**networks).oracle.training


def test_loads_from_the_hub(folder, tmp_path, monkeypatch):
    def download(name, allow_patterns, cache_dir):
        assert name == "someone/metrics"
        paths = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        for path in filter_repo_objects(paths, allow_patterns=allow_patterns):
            (cache_dir / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / path, cache_dir / path)
        return str(cache_dir)

    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"unsafe")
    monkeypatch.setattr(metric_models, "snapshot_download", download)
    models = MetricModels.from_pretrained("someone/metrics", cache_dir=tmp_path / "cache")
    assert len(models.class_autoencoders) == NUM_CLASSES
    assert not (tmp_path / "cache" / "vae" / "diffusion_pytorch_model.bin").exists()


def test_name_of_no_repository_is_refused(monkeypatch):
    def download(name, **kwargs):
        raise LocalEntryNotFoundError("no such thing")

    monkeypatch.setattr(metric_models, "snapshot_download", download)
    with pytest.raises(
        ValueError, match="`name_or_path` expects a folder or a repository .* got 'someone/nothing': no such"
    ):
        MetricModels.from_pretrained("someone/nothing")


def test_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="`name_or_path` expects a folder or a repository with metric models, got .*Repo id must"
    ):
        MetricModels.from_pretrained(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["vae", "autoencoder", "oracle", "class_autoencoders", "class_autoencoders/1"])
def test_missing_model_is_named(folder, name):
    shutil.rmtree(folder / name)
    named = {"class_autoencoders": "class_autoencoders/0"}.get(name, name)
    with pytest.raises(ValueError, match=rf"lacks \['{named}'\]"):
        MetricModels.from_pretrained(folder)


def test_unsafe_weights_are_refused(folder):
    weights = folder / "oracle" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        MetricModels.from_pretrained(folder)


class TestClassesByName:
    def test_order(self, networks):
        networks["oracle"] = ImageClassifier(8, num_classes=NUM_CLASSES, id2label=dict(enumerate("abc"))).eval()
        models = MetricModels(**networks)
        image = torch.rand(2, 1, 8, 8)
        for names in ("cab", "bca", "abc"):
            ordered = models.order_classes(list(names))
            index = ["abc".index(name) for name in names]
            assert ordered.class_names == list(ordered.oracle.id2label.values()) == list(names)
            assert torch.equal(ordered.oracle(image), networks["oracle"](image)[:, index])
            for c, position in enumerate(index):
                assert ordered.class_autoencoders[c] is networks["class_autoencoders"][position]
            again = ordered.order_classes(list("abc"))
            assert torch.equal(again.oracle(image), networks["oracle"](image))

    def test_other_classes_are_refused(self, networks):
        models = MetricModels(**networks)  # of the names '0', '1' and '2'
        with pytest.raises(ValueError, match=r"same classes .* There are \['a', 'b', 'c'\] and \['0', '1', '2'\]"):
            models.order_classes(list("abc"))
        with pytest.raises(ValueError, match=r"`oracle` expects the same .* \['a', 'b', 'c'\] and \['0', '1', '2'\]"):
            MetricModels(**networks, class_names=list("abc"))


def test_oracle_of_other_classes_is_refused(networks):
    networks["oracle"] = ImageClassifier(8, num_classes=4)
    with pytest.raises(ValueError, match="`oracle` expects a classifier of 3 classes, .* got 4 classes"):
        MetricModels(**networks)


@pytest.mark.parametrize("config", [{"sample_size": 16}, {"sample_size": 8, "in_channels": 3}])
def test_models_of_other_images_are_refused(networks, config):
    networks["class_autoencoders"][1] = ImageAutoencoder(**config)
    with pytest.raises(
        ValueError, match=r"The models must have the same `in_channels` and `sample_size`, .*'class_autoencoders\[1\]'"
    ):
        MetricModels(**networks)


class TestTransformersOracle:
    def test_normalises_as_the_classifier_was_trained(self, transformers_classifier):
        oracle = TransformersOracle(transformers_classifier)
        image = torch.rand(2, 3, 16, 12)
        mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 2.0])
        normalised = (image - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(oracle(image), oracle.model(normalised).logits)

    def test_agrees_with_the_classifiers_own_processor(self, transformers_classifier):
        from transformers import AutoImageProcessor

        image = torch.randint(0, 256, (2, 3, 64, 48), generator=torch.Generator().manual_seed(0))
        processor = AutoImageProcessor.from_pretrained(transformers_classifier)
        pixels = processor(list(image.to(torch.uint8).numpy()), input_data_format="channels_first")["pixel_values"]
        oracle = TransformersOracle(transformers_classifier)
        seen = []
        oracle.model.register_forward_pre_hook(lambda model, args: seen.append(args[0]))
        oracle(image / 255)
        # The processor rounds to 1 / 255 after it has resized; the smallest standard deviation is 0.25.
        assert (seen[0] - torch.as_tensor(np.stack(pixels))).abs().max() <= 1 / 255 / 0.25

    def test_greyscale_becomes_rgb(self, transformers_classifier):
        oracle = TransformersOracle(transformers_classifier)
        image = torch.rand(2, 1, 8, 8)
        torch.testing.assert_close(oracle(image), oracle(image.expand(2, 3, 8, 8)))

    @pytest.mark.parametrize(
        "settings, size",
        [
            ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, (20, 20)),
            ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": True}, (16, 12)),
        ],
    )
    def test_shortest_edge_and_crop(self, transformers_classifier, tmp_path, settings, size):
        folder = shutil.copytree(transformers_classifier, tmp_path / "classifier")
        write_processor(folder, size={"shortest_edge": 20}, crop_size={"height": 16, "width": 12}, **settings)
        assert TransformersOracle(folder).size == size

    def test_serves_in_place_of_the_shipped_oracle(self, transformers_classifier, folder):
        names = dict(enumerate("bca"))
        ImageClassifier(8, num_classes=NUM_CLASSES, id2label=names).save_pretrained(folder / "oracle")
        models = MetricModels.from_pretrained(folder, oracle=transformers_classifier)
        assert models.class_names == ["b", "c", "a"]
        assert models.oracle.id2label == names
        image = torch.rand(2, 1, 8, 8)
        assert torch.equal(models.oracle(image), TransformersOracle(transformers_classifier)(image)[:, [1, 2, 0]])
        assert not any(parameter.requires_grad for parameter in models.parameters())

    def test_other_classes_are_refused(self, transformers_classifier, networks):
        networks["class_autoencoders"].append(ImageAutoencoder(8))
        with pytest.raises(ValueError, match="`oracle` expects a classifier of 4 classes, .* got 3 classes"):
            MetricModels(**{**networks, "oracle": TransformersOracle(transformers_classifier)})

    def test_bad_images_are_refused(self, transformers_classifier):
        oracle = TransformersOracle(transformers_classifier)
        with pytest.raises(ValueError, match=r"`image` expects values in \[0, 1\]"):
            oracle(torch.full((1, 3, 8, 8), -1.0))
        with pytest.raises(ValueError, match="`image` expects 1 or 3 channels, got 2"):
            oracle(torch.zeros(1, 2, 8, 8))

    def test_transformers_is_asked_for(self, transformers_classifier, monkeypatch):
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ImportError, match="`TransformersOracle` needs `transformers`: `pip install transformers`"):
            TransformersOracle(transformers_classifier)

    def test_what_is_no_classifier_is_refused(self, folder, tmp_path):
        with pytest.raises(
            ValueError, match="`oracle` expects an image classifier of transformers, got '.*nothing': "
        ):
            MetricModels.from_pretrained(folder, oracle=tmp_path / "nothing")

    def test_processor_without_a_size_is_refused(self, transformers_classifier, tmp_path):
        folder = shutil.copytree(transformers_classifier, tmp_path / "classifier")
        write_processor(folder, size={"longest_edge": 20})
        with pytest.raises(ValueError, match="height and width or a shortest edge, got .*longest_edge"):
            TransformersOracle(folder)
