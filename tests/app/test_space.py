# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""`spaces/` as Hugging Face runs it, and the checkpoints that it can show."""

import importlib.metadata
import json
import re
import shutil

import pytest
from packaging.requirements import Requirement

from tests.app.helpers import ROOT, Server, needs_gradio, post


pytestmark = needs_gradio
CALL = ["example:3", True, 1, 3, 1.0, 0, None, "leave", "set", "leave", "0", 3.0, 200]


def test_requirements_are_this_package_and_what_it_needs():
    (line,) = (ROOT / "spaces" / "requirements.txt").read_text().splitlines()
    wanted = Requirement(line)
    metadata = importlib.metadata.metadata(wanted.name)
    assert wanted.url.removeprefix("git+") in [url.rpartition(", ")[2] for url in metadata.get_all("Project-URL")]
    assert wanted.extras <= set(metadata.get_all("Provides-Extra")) and wanted.extras
    needed = [Requirement(text) for text in importlib.metadata.requires(wanted.name)]
    for extra in ("", *wanted.extras):
        for requirement in needed:
            if requirement.name != wanted.name and (
                not requirement.marker or requirement.marker.evaluate({"extra": extra})
            ):
                assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), requirement


def test_card_names_the_versions_that_the_package_is_tested_with():
    card = (ROOT / "spaces" / "README.md").read_text()
    settings = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    constraints = (ROOT / "constraints.txt").read_text()
    assert settings["sdk"] == "gradio" and f"gradio=={settings['sdk_version']}\n" in constraints
    assert (ROOT / "spaces" / settings["app_file"]).is_file()
    allowed = importlib.metadata.metadata("diffscm-diffusers")["Requires-Python"]
    assert Requirement(f"python{allowed}").specifier.contains(settings["python_version"].strip('"'))
    assert len(settings["short_description"]) <= 60


@pytest.mark.slow
@pytest.mark.parametrize("from_hub", [False, True], ids=["folders beside it", "names on the Hub"])
def test_space_runs_as_it_is(from_hub, tmp_path):
    space = shutil.copytree(ROOT / "spaces", tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__"))
    env, checkpoint = {}, ROOT / "checkpoints" / "diffscm-morphomnist-graph"
    if from_hub:
        # Downloaded before, as a Space does it that is started again.
        cache = tmp_path / "hub" / "models--user--graph"
        shutil.copytree(checkpoint, cache / "snapshots" / "0")
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("0")
        env = {"HF_HUB_CACHE": str(tmp_path / "hub"), "CHECKPOINTS": json.dumps({"A graph": "user/graph"})}
    else:
        (space / "checkpoints").mkdir()
        (space / "checkpoints" / checkpoint.name).symlink_to(checkpoint)
    server = Server(["app.py"], tmp_path, cwd=space, env=env)
    try:
        answer = post(f"{server.url}/gradio_api/call/tab0", CALL)
    finally:
        server.stop()
    assert "<figure>" in answer
    name = "user/graph" if from_hub else "checkpoints/diffscm-morphomnist-graph"
    assert re.search(rf"from_pretrained\('{name}'\)", answer)
