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
    sources = {name for name in package if name.endswith((".py", ".json"))}
    assert "diffscm_diffusers/pipelines/__init__.py" in sources

    packed = set(zipfile.ZipFile(wheel).namelist())
    information = {name for name in packed if ".dist-info/" in name}

    assert packed - information == sources
    assert any(name.endswith("/LICENSE") for name in information)


def test_wheel_imports_outside_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import diffscm_diffusers.pipelines as pipelines; print(pipelines.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()) == tmp_path / "diffscm_diffusers" / "pipelines" / "__init__.py"
