# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
import shutil
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

# Importing takes longer than all that these tests do. One process imports the libraries, none of this package, and
# each run is a fork of it: a line of its input has the environment to add, the files of its output, and the code.
SERVER = """
import json, os, signal, sys
import accelerate, datasets
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, UNet2DModel
while line := sys.stdin.readline():
    environment, outputs, code = json.loads(line)
    if (child := os.fork()) == 0:
        for descriptor, path in enumerate(outputs, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
        os.environ.update(environment)
        signal.alarm(300)
        exec(compile(code, "<run>", "exec"), {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

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


def environment(hub: HubServer, home: Path) -> dict[str, str]:
    """What the libraries read when they are imported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **inherited,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }


@pytest.fixture(scope="session")
def hub_server():
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def server(hub_server, shared_home):
    """The process that [`run`] forks."""
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(hub_server, shared_home), text=True, bufsize=1, **pipes
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture(scope="module")
def hub(hub_server):
    """A Hub with nothing in it."""
    hub_server.clear()
    return hub_server


@pytest.fixture(scope="module")
def home(shared_home) -> Path:
    """What `HF_HOME` names: the cache that the processes share, empty."""
    for path in shared_home.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return shared_home


@pytest.fixture(scope="module")
def run(hub, home, server, tmp_path_factory):
    """Runs code in a process of its own, against the Hub on loopback, and returns the `results` that it fills."""

    def run(
        code: str, token: str | None = None, package: bool = True, offline: bool = False, **variables: str
    ) -> dict:
        folder = tmp_path_factory.mktemp("run")
        results, outputs = folder / "results.json", [folder / "stdout", folder / "stderr"]
        # `None` in `sys.modules` makes an import fail as if the package were not installed.
        hide = "" if package else "sys.modules['diffscm_diffusers'] = None\n"
        code = PRELUDE + hide + textwrap.dedent(code) + f"\nPath({str(results)!r}).write_text(json.dumps(results))\n"
        variables |= {"HF_TOKEN": token} if token else {}
        if offline:  # is read by imports
            variables = {**environment(hub, home), **variables, "HF_HUB_OFFLINE": "1"}
            with outputs[0].open("w") as stdout, outputs[1].open("w") as stderr:
                command = [sys.executable, "-c", code]
                exitcode = subprocess.run(
                    command, cwd=ROOT, env=variables, stdout=stdout, stderr=stderr, timeout=300
                ).returncode
        else:
            server.stdin.write(json.dumps([variables, list(map(str, outputs)), code]) + "\n")
            exitcode = int(server.stdout.readline())
        stdout, stderr = (path.read_text() for path in outputs)
        assert exitcode == 0, stderr
        return {**json.loads(results.read_text()), "stdout": stdout, "stderr": stderr}

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
