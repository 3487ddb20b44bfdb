# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import os

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.fsdp import fully_shard

from diffscm_diffusers.training.averaging import ShardedEMAModel, local_parts
from tests.helpers import free_port, multiprocessing_context


EMA = {"decay": 0.9, "use_ema_warmup": True, "inv_gamma": 1.0, "power": 0.75, "foreach": True}


def make_model() -> torch.nn.Module:
    # Three and five rows, which two processes cannot hold equal parts of.
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 5))


def average(model: torch.nn.Module, ema: EMAModel, steps: int):
    """Moves every weight by a step of its own, as an optimizer would, and averages."""
    for step in range(steps):
        with torch.no_grad():
            for i, parameter in enumerate(model.parameters()):
                parameter.add_(parameter * 0.1 * (i + 1) + step)
        ema.step(model.parameters())


def average_sharded(rank: int, port: int, folder):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    device = "cuda" if torch.cuda.device_count() >= 2 else "cpu"
    if device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    model = make_model().to(device)
    for layer in model:
        fully_shard(layer, mesh=distributed.init_device_mesh(device, (2,)))
    ema = ShardedEMAModel(model.parameters(), **EMA)
    average(model, ema, steps=3)
    held = sum(shadow.numel() for shadow in ema.shadow_params)
    state = ema.state_dict()

    # Read back into another average, which then goes on as the first.
    other = ShardedEMAModel(model.parameters(), **EMA)
    other.load_state_dict(state)
    average(model, other, steps=1)
    other_shadows = other.state_dict()["shadow_params"]

    # What the swap puts into the model, and that it puts back what was there.
    before = [part.clone() for part in local_parts(model.parameters())]
    other.store(model.parameters())
    other.copy_to(model.parameters())
    swapped = [parameter.full_tensor() for parameter in model.parameters()]
    other.restore(model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, local_parts(model.parameters()), strict=True))
    tensors = {f"three.{i}": t for i, t in enumerate(state["shadow_params"])}
    tensors |= {f"four.{i}": t for i, t in enumerate(other_shadows)}
    tensors |= {f"swapped.{i}": t for i, t in enumerate(swapped)}
    tensors["held"] = torch.tensor(held)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / f"{rank}.safetensors")
    distributed.destroy_process_group()


def test_sharded_average_is_the_average_of_the_whole(tmp_path):
    port = free_port()
    ranks = [multiprocessing_context.Process(target=average_sharded, args=(rank, port, tmp_path)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=100)
    assert [rank.exitcode for rank in ranks] == [0, 0]

    model = make_model()
    ema = EMAModel(model.parameters(), **EMA)
    average(model, ema, steps=3)
    three = [shadow.clone() for shadow in ema.shadow_params]
    average(model, ema, steps=1)
    results = [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    for result in results:
        for i, (after_three, after_four) in enumerate(zip(three, ema.shadow_params, strict=True)):
            torch.testing.assert_close(result[f"three.{i}"], after_three)
            torch.testing.assert_close(result[f"four.{i}"], after_four)
            assert torch.equal(result[f"swapped.{i}"], result[f"four.{i}"])
    # Each process holds its part alone: together they hold every weight once.
    assert sum(result["held"].item() for result in results) == sum(p.numel() for p in model.parameters())


def test_whole_weights_are_averaged_as_by_diffusers():
    model, reference = make_model(), make_model()
    ema, expected = ShardedEMAModel(model.parameters(), **EMA), EMAModel(reference.parameters(), **EMA)
    average(model, ema, steps=3)
    average(reference, expected, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(ema.shadow_params, expected.shadow_params, strict=True))
    with pytest.raises(ValueError, match="Decay must be between 0 and 1"):
        ema.load_state_dict({**ema.state_dict(), "decay": 2.0})
