# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import errno
import shutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Array3D, ClassLabel, Dataset, Features, Image, Value, load_dataset
from huggingface_hub import DatasetCard

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.commands import generate
from diffscm_diffusers.files import locked
from tests.evaluation.conftest import CLASSES
from tests.helpers import free_port, run_script, start_script, to_argv


# What the module's fixtures make is made once, in one worker.
pytestmark = pytest.mark.xdist_group("generate")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As runs in other processes have: with one order of all sums, files can be compared by their bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def flags(image_folder, cache_dir, checkpoint):
    return get_flags(image_folder, cache_dir, checkpoint)


def get_flags(image_folder, cache_dir, checkpoint):
    """12 factuals in three chunks of 5, 5 and 2; two targets each, so that a chunk takes several batches."""
    return {
        "train_data_dir": image_folder,
        "split": "test",
        "label_column": "label",
        "cache_dir": cache_dir,
        "pretrained_model_name_or_path": checkpoint,
        "guidance_scale": 30,
        "batch_size": 4,
        "chunk_size": 5,
    }


def run(flags, output_dir, **more):
    generate.main(to_argv({**flags, "output_dir": output_dir, **more}))


def data_files(output_dir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output_dir / "data").iterdir()}


def load(output_dir, tmp_path, split="test"):
    return load_dataset(str(output_dir), split=split, cache_dir=str(tmp_path / "read"))


@pytest.fixture(scope="module")
def finished(image_folder, cache_dir, checkpoint, tmp_path_factory):
    """A whole run."""
    output_dir = tmp_path_factory.mktemp("counterfactuals")
    run(get_flags(image_folder, cache_dir, checkpoint), output_dir)
    return output_dir


def test_load_dataset_gives_images_and_labels_back(finished, image_folder, tmp_path):
    rows = load(finished, tmp_path)
    assert rows.features == {
        "index": Value("int64"),
        "factual": Image(),
        "factual_class": ClassLabel(names=CLASSES),
        "counterfactual": Image(),
        "target": ClassLabel(names=CLASSES),
        "target_probability": Value("float32"),
        "difference": Array3D((8, 8, 1), "float32"),
    }
    assert rows["index"][:] == [i for i in range(12) for _ in range(2)]
    assert rows["factual_class"][:] == [c for c in range(3) for _ in range(8)]
    assert rows["target"][:] == [t for c in range(3) for _ in range(4) for t in range(3) if t != c]
    source = [PIL.Image.open(image_folder / "test" / label / f"{i}.png") for label in CLASSES for i in range(4)]
    for row in rows:
        assert row["factual"].mode == row["counterfactual"].mode == "L"
        factual, counterfactual = np.asarray(row["factual"]), np.asarray(row["counterfactual"])
        assert (factual == np.asarray(source[row["index"]])).all()
        unrounded = factual / 255 + np.asarray(row["difference"])[..., 0]
        assert np.abs(unrounded * 255 - counterfactual).max() <= 0.5 + 1e-4
        assert (factual != counterfactual).any()


def test_counterfactuals_are_those_of_each_factual_alone(finished, checkpoint, tmp_path):
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    for row in load(finished, tmp_path):
        output = pipe(row["factual"], row["target"], 30.0, num_inference_steps=2, output_type="np")
        expected = output.images[0] - np.asarray(row["factual"])[..., None] / 255
        np.testing.assert_allclose(row["difference"], expected, atol=1e-5)
        assert row["target_probability"] == pytest.approx(output.log_probs.exp().item(), abs=1e-5)


def test_a_preset_stands_in_for_what_is_not_given(flags, checkpoint, tmp_path):
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    preset = {"num_inference_steps": 3, "guidance_scale": 30.0, "guidance_interval": [0, 9], "abduction": "source"}
    pipe.register_to_config(presets={"few": preset})
    pipe.save_pretrained(tmp_path / "checkpoint")
    flags.pop("guidance_scale")
    flags["pretrained_model_name_or_path"] = tmp_path / "checkpoint"
    for _ in range(2):  # the second run finds the settings of the first
        run(flags, tmp_path / "data", preset="few", max_samples=2)

    for row in load(tmp_path / "data", tmp_path):
        images = pipe(row["factual"], row["target"], **preset, output_type="np").images
        expected = images[0] - np.asarray(row["factual"])[..., None] / 255
        np.testing.assert_allclose(row["difference"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "deadly_call",
    [
        ("diffscm_diffusers.generation.generator.to_pil", 5),  # in the first chunk's third batch
        ("os.replace", "test-00000005"),  # when the second chunk is written but not renamed
        ("os.replace", "README"),
    ],
    ids=["amid a chunk", "before a chunk's name", "before the card"],
)
def test_a_killed_run_goes_on_to_the_same_rows(flags, finished, tmp_path, deadly_call):
    run_script("generate", to_argv({**flags, "output_dir": tmp_path}), deadly_call)
    assert not (tmp_path / "README.md").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("test-*")}
    for path in before:
        assert path.read_bytes() == (finished / "data" / path.name).read_bytes()
    run(flags, tmp_path)
    assert data_files(tmp_path) == data_files(finished)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_two_processes_equal_one_and_go_on_for_each_other(flags, finished, tmp_path):
    argv = to_argv({**flags, "output_dir": tmp_path})
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    # As in a run of one process that was killed while it wrote its second file.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "unfinished-test-00000005.parquet").write_bytes(b"PAR1")
    ports = {"MASTER_PORT": str(free_port())}
    ranks = [start_script("generate", argv, RANK=rank, LOCAL_RANK=rank, **shared, **ports) for rank in ("0", "1")]
    for rank in ranks:
        rank.join(timeout=100)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert data_files(tmp_path) == data_files(finished)


def test_an_absent_file_is_named_and_made_anew(flags, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "output")
    (tmp_path / "output" / "data" / "test-00000010.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="test-00000010.parquet"):
        load(tmp_path / "output", tmp_path)
    run(flags, tmp_path / "output")
    assert data_files(tmp_path / "output") == data_files(finished)
    assert len(load(tmp_path / "output", tmp_path)) == 24


def test_streaming_reads_the_same_rows(flags, finished, tmp_path):
    run(flags, tmp_path, streaming=True, max_samples=5)
    assert data_files(tmp_path) == {"test-00000000.parquet": data_files(finished)["test-00000000.parquet"]}


def test_factuals_without_classes(flags, tmp_path):
    flags.pop("label_column")
    run(flags, tmp_path, interventions="light", max_samples=2)
    rows = load(tmp_path, tmp_path)
    assert "factual_class" not in rows.features
    assert rows["target"][:] == [2, 2]
    assert "factual_class" not in (tmp_path / "README.md").read_text()


def test_classes_in_another_order(flags, image_folder, tmp_path):
    # Two of the three classes: `light` is the data set's class 1 and the checkpoint's class 2.
    for label in ("dark", "light"):
        shutil.copytree(image_folder / "test" / label, tmp_path / "images" / "test" / label)
    run({**flags, "train_data_dir": tmp_path / "images"}, tmp_path / "output")
    rows = load(tmp_path / "output", tmp_path)
    assert sorted(set(rows["factual_class"][:])) == [0, 2]
    assert rows["target"][:8] == [1, 2] * 4 and rows["target"][8:] == [0, 1] * 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"guidance_scale": 2}, "guidance_scale` 30.0 there and 2.0 here"),
        ({"interventions": "all"}, r"interventions` \['other'\] there and \['all'\] here"),
        ({"max_samples": 3}, "max_samples` None there and 3 here"),
        ({"chunk_size": 3}, "chunk_size` 5 there and 3 here"),
        ({"strength": 0.5}, "strength` 1.0 there and 0.5 here"),
    ],
)
def test_other_settings_are_refused(flags, finished, change, named):
    with pytest.raises(ValueError, match=named):
        run(flags, finished, **change)


def test_other_weights_are_refused(flags, finished, checkpoint, tmp_path):
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.unet.conv_out.bias.data += 1e-3
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`weights` '.*' there and '.*' here"):
        run(flags, finished, pretrained_model_name_or_path=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_data_dir": "nowhere"}, "`train_data_dir` expects a folder of images, got 'nowhere'"),
        ({"split": "validation"}, "`split` expects one of .* splits, .* got 'validation'"),
        ({"image_column": "scan"}, "`image_column` expects one of .* columns, .* got 'scan'"),
        ({"label_column": "sex"}, "`label_column` expects one of .* columns, .* got 'sex'"),
        ({"interventions": "blue"}, "names of classes .* got 'blue'"),
        ({"guidance_scale": 0}, "`--guidance_scale` expects a number above 0, got 0"),
        ({"preset": "slow"}, r"`--preset` expects one of the checkpoint's, \[\], got 'slow'"),
        ({"strength": 1.5}, r"`--strength` expects a fraction of the steps, in \(0, 1\], got 1.5"),
        ({"num_inference_steps": 21}, "21"),
    ],
)
def test_bad_input_writes_nothing(flags, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run({**flags, **change}, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_a_checkpoint_whose_default_makes_reconstructions_is_refused(flags, checkpoint, tmp_path):
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.register_to_config(default_guidance_scale=0.0)
    pipe.save_pretrained(tmp_path / "checkpoint")
    del flags["guidance_scale"]
    with pytest.raises(ValueError, match="`--guidance_scale` expects a number above 0, got 0"):
        run(flags, tmp_path / "output", pretrained_model_name_or_path=tmp_path / "checkpoint")
    assert not (tmp_path / "output").exists()


def test_a_split_without_rows_is_refused(flags, tmp_path):
    features = Features({"image": Image(), "label": ClassLabel(names=CLASSES)})
    (tmp_path / "data").mkdir()
    Dataset.from_dict({"image": [], "label": []}, features).to_parquet(tmp_path / "data" / "test.parquet")
    del flags["train_data_dir"]
    with pytest.raises(ValueError, match="`--split` expects at least one row, but 'test' has none"):
        run(flags, tmp_path / "output", dataset_name=tmp_path / "data", streaming=True)
    assert not (tmp_path / "output" / "README.md").exists()


def test_a_broken_image_is_named_and_leaves_whole_chunks(flags, finished, image_folder, tmp_path):
    shutil.copytree(image_folder / "test", tmp_path / "images" / "test")
    flags["train_data_dir"] = tmp_path / "images"
    broken = tmp_path / "images" / "test" / "grey" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match="got one in row 7 of the file '.*grey/3.png': .* with `--skip_broken`"):
        run(flags, tmp_path / "output")
    assert data_files(tmp_path / "output").keys() == {"test-00000000.parquet"}
    broken.write_bytes(whole)
    run(flags, tmp_path / "output")
    assert data_files(tmp_path / "output") == data_files(finished)


def test_broken_images_are_left_out_counted_and_listed(flags, finished, image_folder, tmp_path, caplog):
    """What the error about a broken image advises: the run goes on, and other rows are as they were."""
    shutil.copytree(image_folder / "test", tmp_path / "images" / "test")
    flags["train_data_dir"] = tmp_path / "images"
    for broken in ("grey/3.png", "light/2.png", "light/3.png"):  # of the last chunk, all
        (tmp_path / "images" / "test" / broken).write_bytes(b"404")
    with pytest.raises(ValueError, match="with `--skip_broken`"):
        run(flags, tmp_path / "output")
    for _ in range(2):  # a run that finds everything done tells it again
        caplog.clear()
        run(flags, tmp_path / "output", skip_broken=True)
        (message,) = caplog.messages
        assert message.startswith("Left out 3 of the images of 'test':\n- in row 7 of the file '")
        assert message.count("\n- ") == 3 and "light/3.png" in message
    card = (tmp_path / "output" / "README.md").read_text()
    assert "3 images of the source cannot be used and were left out." in card
    left, whole = load(tmp_path / "output", tmp_path), load(finished, tmp_path)
    assert left["index"][:] == [i for i in range(12) for _ in range(2) if i not in (7, 10, 11)]
    kept = [i for i, index in enumerate(whole["index"][:]) if index not in (7, 10, 11)]
    np.testing.assert_allclose(left["difference"][:], whole.select(kept)["difference"][:], atol=1e-5)


def test_classes_without_factuals_are_named(flags, tmp_path, capsys):
    run(flags, tmp_path, max_samples=5)
    assert "No factual is of the class 'light'." in capsys.readouterr().out


def test_a_full_disk_is_named_and_leaves_whole_chunks(flags, finished, tmp_path, monkeypatch):
    write_table, calls = pq.ParquetWriter.write_table, []

    def fill_up(writer, table):
        calls.append(table)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_table(writer, table)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", fill_up)
        with pytest.raises(OSError, match="No space left to write '.*test-00000005.parquet'.* start the same command"):
            run(flags, tmp_path)
    assert data_files(tmp_path).keys() == {"test-00000000.parquet"}
    run(flags, tmp_path)
    assert data_files(tmp_path) == data_files(finished)


def test_other_errors_of_writing_are_passed_on(flags, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pq.ParquetWriter, "write_table", mock.Mock(side_effect=OSError(errno.EIO, "Input/output error"))
    )
    with pytest.raises(OSError, match="Input/output error"):
        run(flags, tmp_path)
    assert data_files(tmp_path) == {}


def test_half_precision(flags, tmp_path):
    run(flags, tmp_path, dtype="bfloat16", max_samples=2)
    for row in load(tmp_path, tmp_path):
        assert np.abs(row["difference"]).max() <= 1
        assert 0 <= row["target_probability"] <= 1


def test_the_card_and_the_upload(flags, tmp_path):
    api = mock.Mock()
    api.create_repo.return_value = SimpleNamespace(repo_id="someone/what-if")
    with mock.patch("diffscm_diffusers.hub.publishing.HfApi", return_value=api):
        run(flags, tmp_path, max_samples=2, push_to_hub=True, hub_dataset_id="what-if")
    api.create_repo.assert_called_once_with("what-if", repo_type="dataset", private=None, exist_ok=True)
    upload = api.upload_folder.call_args.kwargs
    assert (upload["repo_id"], upload["repo_type"]) == ("someone/what-if", "dataset")

    card = DatasetCard.load(tmp_path / "README.md")
    files = [{"split": "test", "path": ["data/test-00000000.parquet"]}]
    assert card.data.to_dict()["configs"] == [{"config_name": "default", "data_files": files}]
    assert 'load_dataset("someone/what-if", split="test")' in card.text
    hits = sum(probability > 0.5 for probability in load(tmp_path, tmp_path)["target_probability"])
    assert f"4 counterfactuals of 2 factuals; the anti-causal predictor gives {hits} of them" in card.text
    assert "| `guidance_scale` | `30.0` |" in card.text
    assert f"\ndiffscm generate --train_data_dir {flags['train_data_dir']} --split test" in card.text


def test_without_a_login_nothing_is_computed(flags, tmp_path):
    api = mock.Mock()
    api.create_repo.side_effect = OSError("Token is required")
    with (
        mock.patch("diffscm_diffusers.hub.publishing.HfApi", return_value=api),
        pytest.raises(OSError, match="Token is required"),
    ):
        run(flags, tmp_path, push_to_hub=True)
    assert not (tmp_path / "data").exists()


NAMES = ["../../evil", "a/b\0c", "x" * 5000, "--x", "all", "3"]


def test_names_of_classes_are_no_paths_and_no_flags(checkpoint, cache_dir, tmp_path):
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    config = {**pipe.classifier.config, "num_classes": len(NAMES), "id2label": dict(enumerate(NAMES[::-1]))}
    pipe.register_modules(classifier=AntiCausalClassifier2DModel.from_config(config))
    pipe.save_pretrained(tmp_path / "checkpoint")
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    rows = {"image": [PIL.Image.new("L", (8, 8), 20 * c) for c in range(6)], "label": range(6)}
    Dataset.from_dict(rows, features).to_parquet(tmp_path / "source" / "train-00000-of-00001.parquet")
    before = set(tmp_path.parent.rglob("*"))
    generate.main(
        [
            *to_argv({"dataset_name": tmp_path / "source", "label_column": "label", "cache_dir": cache_dir}),
            *to_argv({"pretrained_model_name_or_path": tmp_path / "checkpoint", "output_dir": tmp_path / "out"}),
            *("--interventions", "class:--x", "class:all", "3", "../../evil"),
        ]
    )
    made = {path for path in set(tmp_path.parent.rglob("*")) - before if not path.is_relative_to(cache_dir)}
    assert {path.relative_to(tmp_path / "out").as_posix() for path in made} == {
        *(".", ".lock", "README.md", "settings.json", "data", "data/train-00000000.parquet")
    }
    rows = load(tmp_path / "out", tmp_path, split="train")
    names = rows.features["target"].names
    assert [names[c] for c in rows["target"][:4]] == ["--x", "all", "3", "../../evil"]
    assert [names[c] for c in rows["factual_class"][::4]] == NAMES
    assert DatasetCard.load(tmp_path / "out" / "README.md").data.configs


def test_a_second_run_in_the_same_folder_is_refused(flags, finished, capsys):
    before = data_files(finished)
    with locked(finished), pytest.raises(OSError, match="is being written by another run. Wait until it has ended"):
        run(flags, finished)
    run(flags, finished)
    assert data_files(finished) == before
