# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Reading weights without running code that a file may hold, and without a copy of them in memory."""

import pickle
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Reads a state dict from a `.safetensors` file or one that `torch.save` wrote. The tensors stay on disk until they
    are used; only PyTorch's format from before 1.6 is read into memory.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        `dict[str, torch.Tensor]`: the weights by name.

    Raises:
        ValueError: if there is no such file, or if it holds anything but tensors by name. Code in a pickle is not run.
    """
    if not isinstance(path, (str, Path)) or not Path(path).is_file():
        raise ValueError(f"`path` expects a file, got {str(path)!r}: download the checkpoint and give the path to it.")
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            weights = safetensors.torch.load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"`path` expects weights, got {str(path)!r}, which is no checkpoint, or holds Python objects other than "
            "tensors: no code in it was run. "
            "Where you trust its author, load it with the code that wrote it and save its state dict alone, best as "
            "`.safetensors`."
        ) from error
    except (SafetensorError, EOFError, RuntimeError, LookupError, ValueError) as error:  # the last two of other files
        raise ValueError(
            f"`path` expects weights, got {str(path)!r}, which is damaged or incomplete: download it again."
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise ValueError(
            f"`path` expects weights, got {str(path)!r}, which holds no state dict (tensors by name). Of a training "
            "checkpoint, save the network's state "
            "dict alone."
        )
    return weights
