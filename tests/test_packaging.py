# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import diffscm_diffusers


# What the module's fixtures make is made once, in one worker.
pytestmark = pytest.mark.xdist_group("wheel")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the sources: building in place reuses what an older build left behind."""
    sources, output = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("diffscm_diffusers", "pipelines"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))

    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", output, sources]
    build = subprocess.run(command, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    return next(output.glob("*.whl"))


def test_version_is_written_in_one_place(wheel):
    assert metadata.version("diffscm-diffusers") == diffscm_diffusers.__version__
    assert wheel.name.split("-")[1] == diffscm_diffusers.__version__


def test_wheel_holds_every_source_file_and_the_licence(wheel):
    package = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("diffscm_diffusers/**/*")}
    package |= {f"diffscm_diffusers/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("pipelines/**/*")}
    sources = {name for name in package if name.endswith((".py", ".json", ".js", ".css"))}
    assert "diffscm_diffusers/pipelines/__init__.py" in sources

    packed = set(zipfile.ZipFile(wheel).namelist())
    information = {name for name in packed if ".dist-info/" in name}

    assert packed - information == sources
    assert any(name.endswith("/LICENSE") for name in information)


@pytest.fixture(scope="module")
def run_installed(wheel, tmp_path_factory):
    """Runs code in a process that finds the wheel's modules, and not those of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)

    def run(code: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.replace(str(folder), "INSTALLED")

    return run


def test_installed_command_shows_its_help(run_installed):
    code = """
import sys
from importlib.metadata import distribution
sys.modules["torch"] = None  # the help does not wait for it
(command,) = distribution("diffscm-diffusers").entry_points.select(group="console_scripts", name="diffscm")
command.load()(["--help"])
"""
    assert run_installed(code).startswith("usage: diffscm [-h] command")


def test_every_module_of_the_wheel_can_be_imported(run_installed):
    code = """
import importlib, pkgutil, sys
import diffscm_diffusers
from diffscm_diffusers import pipelines
print(pipelines.__file__)

# What only needs the dependencies, not the extras.
extras = ("gradio", "matplotlib", "sklearn", "tensorboard", "torchmetrics")
sys.modules.update(dict.fromkeys(extras))
commands = [f"commands.{name}" for name in ("card", "convert_adm", "generate", "join_checkpoint", "publish")]
packages = ["baselines", "conversion", "data", "generation", "guidance", "hub", "training"]
for name in [*commands, *packages]:
    module = importlib.import_module(f"diffscm_diffusers.{name}")
    for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
        importlib.import_module(f"{module.__name__}.{inner.name}")

for name in extras[1:]:
    del sys.modules[name]
names = [module.name for module in pkgutil.walk_packages(diffscm_diffusers.__path__, "diffscm_diffusers.")]
names = [name for name in names if not name.endswith("__main__")]
page = [name for name in names if name.startswith("diffscm_diffusers.app.")]
for name in set(names) - set(page):
    importlib.import_module(name)

# Only the page needs Gradio.
del sys.modules["gradio"]
for name in page:
    importlib.import_module(name)
assert page
"""
    assert run_installed(code) == "INSTALLED/diffscm_diffusers/pipelines/__init__.py\n"
