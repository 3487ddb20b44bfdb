# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline

from ..training.conftest import cache_dir, image_folder, model_configs, on_cpu  # noqa: F401
from .hub_server import HubServer


ROOT = Path(__file__).resolve().parents[2]

# Errors as the user meets them: in a fresh process, by type and message.
PRELUDE = """
import json, sys
from pathlib import Path
results = {}
def error(function):
    try:
        function()
    except Exception as error:
        kind, messages = type(error).__name__, []
        while error is not None:
            messages.append(str(error))
            error = error.__cause__
        return [kind, " <- ".join(messages)]
"""


@pytest.fixture(scope="module")
def hub():
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """What `HF_HOME` names: the cache that the processes share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(hub, home, tmp_path_factory):
    """Runs code in a process of its own, against the Hub on loopback, and returns the `results` that it fills."""

    def run(code: str, token: str | None = None, package: bool = True, **environment: str) -> dict:
        file = tmp_path_factory.mktemp("run") / "results.json"
        # `None` in `sys.modules` makes an import fail as if the package were not installed.
        hide = "" if package else "sys.modules['diffscm_diffusers'] = None\n"
        code = PRELUDE + hide + textwrap.dedent(code) + f"\nPath({str(file)!r}).write_text(json.dumps(results))\n"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment = {
            **inherited,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            **({"HF_TOKEN": token} if token else {}),
            **environment,
        }
        command = [sys.executable, "-c", code]
        process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr
        return {**json.loads(file.read_text()), "stdout": process.stdout, "stderr": process.stderr}

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of tiny networks with random weights."""
    shared = {
        "sample_size": 8,
        "in_channels": 1,
        "block_out_channels": (8, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "add_attention": False,
        "norm_num_groups": 4,
    }
    torch.manual_seed(0)
    pipe = DiffSCMCounterfactualPipeline(
        UNet2DModel(**shared, out_channels=1, up_block_types=("UpBlock2D", "UpBlock2D")),
        AntiCausalClassifier2DModel(**shared, num_classes=2, id2label={0: "dark", 1: "light"}),
        DDPMScheduler(),
        default_guidance_scale=2.0,
        default_num_inference_steps=3,
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-diffscm"
    pipe.save_pretrained(folder)
    return folder
