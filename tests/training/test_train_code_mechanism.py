# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch

from diffscm_diffusers import SemanticEncoder2DModel
from diffscm_diffusers.files import locked
from tests.helpers import load_script, to_argv


train_code_mechanism = load_script("train_code_mechanism")


@pytest.fixture
def encoder(tmp_path) -> SemanticEncoder2DModel:
    encoder = SemanticEncoder2DModel(8, 3, code_dim=7, block_out_channels=(4, 4, 4), num_corrections=1)
    encoder.save_pretrained(tmp_path / "encoder")
    return encoder.eval()


@pytest.fixture
def flags(tmp_path, encoder):
    return {
        "encoder": tmp_path / "encoder",
        "max_train_steps": 3,
        "train_batch_size": 8,
        "hidden_features": 4,
        "output_dir": tmp_path / "mechanism",
    }


def test_encoder_is_the_same_but_for_the_mechanism(graph_flags, flags, encoder):
    train_code_mechanism.main(to_argv({**graph_flags, **flags}))
    trained = SemanticEncoder2DModel.from_pretrained(flags["output_dir"])
    assert (trained.config.mechanism_features, trained.config.num_corrections) == (4, 1)
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in encoder.state_dict().items())
    assert trained.mechanism.mean.abs().max() > 0
    card = (flags["output_dir"] / "README.md").read_text()
    assert "train_code_mechanism.py" in card and "3 optimizer steps" in card


def test_batches_of_images_do_not_matter(graph_flags, flags, tmp_path):
    noises = []
    for size in (4, 500):
        changes = {"encoding_batch_size": size, "output_dir": tmp_path / str(size)}
        train_code_mechanism.main(to_argv({**graph_flags, **flags, **changes}))
        trained = SemanticEncoder2DModel.from_pretrained(tmp_path / str(size))
        noises.append(trained.abduct(torch.ones(2, 7), torch.eye(3)[:2]))
    torch.testing.assert_close(*noises, atol=1e-4, rtol=0)


def test_named_causes_alone_are_told(graph_flags, flags):
    train_code_mechanism.main(to_argv({**graph_flags, **flags, "causes": "level"}))
    trained = SemanticEncoder2DModel.from_pretrained(flags["output_dir"])
    code, condition = torch.randn(2, 7), torch.tensor([[0.3, 1, 0], [0.3, 0, 1]])
    assert torch.equal(trained.abduct(code, condition), trained.abduct(code, condition.flip(0)))
    assert not torch.equal(trained.abduct(code, condition), trained.abduct(code, -condition))
    with pytest.raises(ValueError, match=r"`--causes` expects parents of the image, \['level', 'shade'\], got \['hue"):
        train_code_mechanism.main(to_argv({**graph_flags, **flags, "causes": "hue"}))


def test_class_alone_is_the_cause(image_folder, cache_dir, flags):
    SemanticEncoder2DModel(8, 2, code_dim=7, block_out_channels=(4, 4, 4)).save_pretrained(flags["encoder"])
    train_code_mechanism.main(to_argv({"train_data_dir": image_folder, "cache_dir": cache_dir, **flags}))
    assert SemanticEncoder2DModel.from_pretrained(flags["output_dir"]).mechanism is not None


def test_training_the_encoder_again_drops_the_mechanism(graph_flags, flags, tmp_path):
    train_code_mechanism.main(to_argv({**graph_flags, **flags}))
    again = {"pretrained_model_name_or_path": flags["output_dir"], "output_dir": tmp_path / "again"}
    again |= {"train_batch_size": 6, "max_train_steps": 1, "num_validation_images": 6, "report_to": "none"}
    load_script("train_semantic_encoder").main(to_argv({**graph_flags, **again, "lr_warmup_steps": 0}))
    trained = SemanticEncoder2DModel.from_pretrained(tmp_path / "again")
    assert trained.mechanism is None and trained.config.mechanism_features == 0


def test_encoder_of_other_causes_is_refused(image_folder, cache_dir, flags):
    with pytest.raises(ValueError, match="`--encoder` expects one of 2 entries of causes, as the data have, got 3"):
        train_code_mechanism.main(to_argv({"train_data_dir": image_folder, "cache_dir": cache_dir, **flags}))
    assert not flags["output_dir"].exists()


def test_second_run_in_the_same_folder_is_refused(graph_flags, flags):
    with locked(flags["output_dir"]), pytest.raises(OSError, match="is being written by another run"):
        train_code_mechanism.main(to_argv({**graph_flags, **flags}))
    assert [path.name for path in flags["output_dir"].iterdir()] == [".lock"]
