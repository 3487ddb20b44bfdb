# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What is loaded runs no code of its own, and names that it holds lead nowhere."""

import io
import json
import pickle
import tarfile

import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from diffscm_diffusers import (
    AntiCausalClassifier2DModel,
    CausalGraph,
    DiffSCMCounterfactualPipeline,
    StructuralCausalModel,
)
from diffscm_diffusers.baselines import SchutPipeline
from diffscm_diffusers.checksums import write_checksums
from diffscm_diffusers.data.images import load_image_dataset
from diffscm_diffusers.files import load_whole, save_whole
from diffscm_diffusers.metrics import TransformersOracle
from diffscm_diffusers.metrics.networks import MLPEnsemble
from diffscm_diffusers.training.components import create_model
from tests.helpers import load_script, to_argv

from .pipelines.dummies import get_dummy_components
from .training.conftest import cache_dir, flags, image_folder, model_configs, on_cpu  # noqa: F401


class Code:
    """Creates a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def marker(tmp_path):
    """Exists once foreign code has run, as Python source or pickled."""
    return tmp_path / "code has run"


@pytest.fixture
def source(marker):
    return f"open({str(marker)!r}, 'w')\n"


def test_the_marker_works(marker):
    pickle.loads(pickle.dumps(Code(marker))).close()
    assert marker.exists()


class TestPickles:
    @pytest.mark.parametrize(
        "load",
        [
            DiffSCMCounterfactualPipeline.from_pretrained,
            lambda folder: DiffSCMCounterfactualPipeline.from_pretrained(folder, use_safetensors=False),
            lambda folder: load_whole(AntiCausalClassifier2DModel, folder, subfolder="classifier"),
            lambda folder: create_model(
                AntiCausalClassifier2DModel, pretrained_model_name_or_path=folder, subfolder="classifier"
            ),
        ],
        ids=["pipeline", "pipeline that may load them", "network", "network to train"],
    )
    def test_weights(self, load, marker, tmp_path):
        folder = tmp_path / "checkpoint"
        DiffSCMCounterfactualPipeline(**get_dummy_components()).save_pretrained(folder)
        for path in folder.rglob("*.safetensors"):
            path.with_suffix(".bin").write_bytes(pickle.dumps(Code(marker)))
            path.unlink()
        with pytest.raises((OSError, ValueError)):
            load(folder)
        assert not marker.exists()

    def test_weights_of_a_baseline(self, marker, tmp_path):
        ensemble = MLPEnsemble(8, num_classes=2, num_members=2, hidden_features=(4,))
        SchutPipeline(ensemble).save_pretrained(tmp_path / "schut")
        (path,) = tmp_path.rglob("*.safetensors")
        path.with_suffix(".bin").write_bytes(pickle.dumps(Code(marker)))
        path.unlink()
        with pytest.raises(OSError, match="safetensors"):
            SchutPipeline.from_pretrained(tmp_path / "schut")
        assert not marker.exists()

    @pytest.mark.parametrize("name", ["optimizer.bin", "random_states_0.pkl"])
    def test_training_checkpoint_with_checksums_that_fit(self, flags, marker, name):  # noqa: F811
        """What accelerate writes of the optimizer and the random states is of PyTorch's format: its tensors alone."""
        train = load_script("train_diffusion").main
        train(to_argv({**flags, "max_train_steps": 1}))
        folder = flags["output_dir"] / "checkpoint-1"
        (folder / name).write_bytes(pickle.dumps(Code(marker)))
        (folder / "checksums.json").unlink()
        write_checksums(folder, {path.name: path for path in folder.iterdir()})
        try:
            train(to_argv({**flags, "resume_from_checkpoint": "latest"}))
        except pickle.UnpicklingError:
            pass
        assert not marker.exists()

    def test_data_set(self, marker, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "train.pkl").write_bytes(pickle.dumps(Code(marker)))
        with pytest.raises(ValueError, match="`dataset_name` expects a data set of images"):
            load_image_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
        assert not marker.exists()

    def test_archive_with_images(self, marker, tmp_path):
        image = io.BytesIO()
        PIL.Image.new("L", (8, 8)).save(image, "PNG")
        (tmp_path / "data").mkdir()
        with tarfile.open(tmp_path / "data" / "train.tar", "w") as archive:
            for suffix, content in (("png", image.getvalue()), ("pkl", pickle.dumps(Code(marker)))):
                member = tarfile.TarInfo(f"0.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        splits = load_image_dataset(str(tmp_path / "data"), image_column="png", cache_dir=str(tmp_path / "cache"))
        assert len(list(splits["train"])) == 1
        assert not marker.exists()


class TestRemoteCode:
    def test_of_a_checkpoint(self, marker, source, tmp_path):
        folder = tmp_path / "checkpoint"
        DiffSCMCounterfactualPipeline(**get_dummy_components()).save_pretrained(folder)
        index = json.loads((folder / "model_index.json").read_text())
        index["_class_name"] = ["pipeline", "DiffSCMCounterfactualPipeline"]
        index["classifier"] = ["anticausal_classifier_2d", "AntiCausalClassifier2DModel"]
        (folder / "model_index.json").write_text(json.dumps(index))
        for name in ("pipeline.py", "classifier/anticausal_classifier_2d.py"):
            (folder / name).write_text(source)
        DiffSCMCounterfactualPipeline.from_pretrained(folder)
        index["classifier"] = ["anticausal_classifier_2d", "Other"]
        (folder / "model_index.json").write_text(json.dumps(index))
        with pytest.raises((AttributeError, ValueError)):
            DiffSCMCounterfactualPipeline.from_pretrained(folder)
        assert not marker.exists()

    def test_of_a_data_set(self, marker, source, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "data.py").write_text(source)
        with pytest.raises(ValueError, match="`dataset_name` expects a data set of images"):
            load_image_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
        assert not marker.exists()

    def test_of_an_oracle(self, marker, source, tmp_path):
        auto_map = dict.fromkeys(("AutoConfig", "AutoModelForImageClassification"), "code.Other")
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "other", "auto_map": auto_map}))
        (tmp_path / "code.py").write_text(source)
        with pytest.raises(ValueError, match="trust_remote_code"):
            TransformersOracle(tmp_path)
        assert not marker.exists()


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a.b", "a\0b", "x" * 5000])
class TestNames:
    """Names of a data set's or a graph's are no paths."""

    def test_of_classes_and_nodes(self, name, tmp_path):
        nodes = {name: {"kind": "categorical", "labels": [name, "other"]}}
        try:
            graph = CausalGraph(nodes, [[name, "image"]])
        except ValueError as error:
            assert "`nodes` expects" in str(error)
            return
        scm = StructuralCausalModel(graph)
        scm.fit({name: [name, "other"] * 10}, num_steps=1, progress_bar=False)
        save_whole(scm, tmp_path / "scm")
        graph.save_json(tmp_path / "graph.json")
        assert {path.name for path in tmp_path.iterdir()} == {"scm", "graph.json"}
        assert load_whole(StructuralCausalModel, tmp_path / "scm").graph == CausalGraph.from_json(
            tmp_path / "graph.json"
        )

    def test_of_splits(self, name, tmp_path):
        features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
        rows = {"image": [PIL.Image.new("L", (8, 8))], "label": [0]}
        Dataset.from_dict(rows, features).to_parquet(tmp_path / "data" / "train.parquet")
        with pytest.raises(ValueError, match="`split` expects one of the data set's splits"):
            load_image_dataset(str(tmp_path / "data"), split=name, cache_dir=str(tmp_path / "cache"))
