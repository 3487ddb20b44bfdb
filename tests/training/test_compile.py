# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from tests.helpers import load_script, to_argv


@pytest.fixture(autouse=True)
def forget_compiled_code():
    yield
    torch.compiler.reset()


def test_run_that_accelerate_compiles_equals_the_plain_one(flags, tmp_path, monkeypatch, fresh_accelerate):
    """Dynamo's `eager` backend traces the network and runs the same operations, so the bits are the same."""
    flags = {**flags, "checkpointing_steps": 1, "use_ema": True, "validation_grid_size": 1}
    main = load_script("train_diffusion").main
    main(to_argv({**flags, "output_dir": tmp_path / "plain"}))

    # What `accelerate launch --dynamo_backend eager` sets.
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    compiled_calls = []
    compile_model = torch.compile

    def count(model, **kwargs):
        compiled_calls.append(kwargs)
        return compile_model(model, **kwargs)

    monkeypatch.setattr(torch, "compile", count)
    output_dir = tmp_path / "compiled"
    main(to_argv({**flags, "max_train_steps": 1, "output_dir": output_dir}))
    main(to_argv({**flags, "resume_from_checkpoint": "latest", "output_dir": output_dir}))
    assert [call["backend"] for call in compiled_calls] == ["eager", "eager"]

    for name in ("checkpoint-2/model.safetensors", "checkpoint-2/ema.safetensors"):
        compiled, plain = load_file(output_dir / name), load_file(tmp_path / "plain" / name)
        assert compiled.keys() == plain.keys()
        assert all(torch.equal(compiled[key], plain[key]) for key in plain), name
    compiled, plain = (UNet2DModel.from_pretrained(tmp_path / run, subfolder="unet") for run in ("compiled", "plain"))
    assert all(torch.equal(a, b) for a, b in zip(compiled.parameters(), plain.parameters(), strict=True))
    # A checkpoint of the compiled run goes on without compilation.
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND")
    main(to_argv({**flags, "max_train_steps": 3, "resume_from_checkpoint": "latest", "output_dir": output_dir}))
    assert len(compiled_calls) == 2
