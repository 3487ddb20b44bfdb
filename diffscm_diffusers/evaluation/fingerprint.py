# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Which networks made an image."""

import hashlib
import json

import torch
from diffusers import DiffusionPipeline


def fingerprint(model: DiffusionPipeline | torch.nn.Module) -> str:
    """A short hash of weights and configurations: a model that was trained again has another one."""
    components = [model, *model.components.values()] if isinstance(model, DiffusionPipeline) else [model]
    digest = hashlib.sha256()
    for component in components:
        # Names with an underscore are diffusers': its version, and where the component was loaded from. How a
        # pipeline's defaults and presets are set doesn't matter, as settings hold the values that were used.
        other = ("_", "default_", "presets")
        config = {name: value for name, value in component.config.items() if not name.startswith(other)}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        if isinstance(component, torch.nn.Module):
            for name, tensor in component.state_dict().items():
                digest.update(name.encode())
                digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
