# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Runs training scripts and commands, here or in processes of their own that can be killed."""

import importlib.util
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock


TRAIN_SCRIPTS = Path(__file__).resolve().parents[1] / "train_scripts"

# The fork server imports the libraries once, before any thread or random state exists; each run is a fork of it.
multiprocessing_context = multiprocessing.get_context("forkserver")
multiprocessing_context.set_forkserver_preload(["diffscm_diffusers.training.trainer", "diffscm_diffusers"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def load_script(name: str):
    """The module of a training script or, by its module's name, of a command."""
    if not (TRAIN_SCRIPTS / f"{name}.py").exists():
        return importlib.import_module(f"diffscm_diffusers.commands.{name}")
    spec = importlib.util.spec_from_file_location(name, TRAIN_SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def to_argv(flags: dict) -> list[str]:
    argv = []
    for name, value in flags.items():
        argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return argv


def kill_at(target: str, when: int | str):
    """Patches `target` so that the process dies at call number `when`, or at a call with a path that holds `when`."""
    module, attribute = target.rsplit(".", 1)
    function = getattr(importlib.import_module(module), attribute)
    calls = 0

    def deadly(*args, **kwargs):
        nonlocal calls
        calls += 1
        paths = [str(value) for value in args if isinstance(value, (str, Path))]
        if calls == when or (isinstance(when, str) and any(when in path for path in paths)):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return mock.patch(target, deadly)


def _run(script: str, argv: list[str], environment: dict[str, str], deadly_call: tuple | None):
    os.environ.update(environment)
    import torch

    torch.set_num_threads(1)
    module = load_script(script)
    sys.argv = [script, *argv]
    if deadly_call is not None:
        kill_at(*deadly_call).start()
    module.main(argv)


def run_in_fresh_process(function: Callable, *args):
    """Runs a function of a test's module where nothing has been made or loaded yet."""
    process = multiprocessing_context.Process(target=function, args=args)
    process.start()
    process.join(timeout=300)
    assert process.exitcode == 0


def start_script(script: str, argv: list[str], deadly_call: tuple | None = None, **environment: str):
    environment = {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1", **environment}
    process = multiprocessing_context.Process(target=_run, args=(script, argv, environment, deadly_call))
    process.start()
    return process


def run_script(script: str, argv: list[str], deadly_call: tuple | None = None, **environment: str):
    """Runs a script to its end or, with `deadly_call`, until [`kill_at`] ends it."""
    process = start_script(script, argv, deadly_call, **environment)
    process.join(timeout=100)
    assert process.exitcode == (0 if deadly_call is None else -signal.SIGKILL)
