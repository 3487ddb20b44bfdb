# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The exponential moving average of weights that may be sharded over processes."""

from collections.abc import Iterable

import torch
from diffusers.training_utils import EMAModel
from torch.distributed.tensor import DTensor, distribute_tensor


def local_parts(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Returns what this process holds of each parameter; writing to it writes to the parameter."""
    return [
        torch.nn.Parameter(p.detach().to_local(), p.requires_grad) if isinstance(p, DTensor) else p for p in parameters
    ]


class ShardedEMAModel(EMAModel):
    """
    diffusers' `EMAModel` that averages on each process the part of the weights that this process holds. Its state
    holds whole tensors, so a checkpoint can be read with any number of processes; making and loading the state takes
    every process.

    Args:
        parameters (`Iterable[torch.nn.Parameter]`): The weights, after `Accelerator.prepare`.
        kwargs: See `EMAModel`.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], **kwargs):
        parameters = list(parameters)
        self.sharded = {i: p for i, p in enumerate(parameters) if isinstance(p, DTensor)}
        super().__init__(local_parts(parameters), **kwargs)

    def step(self, parameters: Iterable[torch.nn.Parameter]):
        super().step(local_parts(parameters))

    def copy_to(self, parameters: Iterable[torch.nn.Parameter]):
        super().copy_to(local_parts(parameters))

    def store(self, parameters: Iterable[torch.nn.Parameter]):
        super().store(local_parts(parameters))

    def restore(self, parameters: Iterable[torch.nn.Parameter]):
        super().restore(local_parts(parameters))

    def state_dict(self) -> dict:
        state = super().state_dict()
        shadows = list(state["shadow_params"])
        for i, p in self.sharded.items():
            shard = DTensor.from_local(shadows[i], p.device_mesh, p.placements, shape=p.shape, stride=p.stride())
            shadows[i] = shard.full_tensor()
        return {**state, "shadow_params": shadows}

    def load_state_dict(self, state_dict: dict):
        shadows = list(state_dict["shadow_params"])
        for i, p in self.sharded.items():
            shadows[i] = distribute_tensor(shadows[i].to(p.device), p.device_mesh, p.placements).to_local()
        super().load_state_dict({**state_dict, "shadow_params": shadows})
