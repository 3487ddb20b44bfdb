# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The documentation's examples run, and its commands name scripts and flags that exist."""

import argparse
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from diffscm_diffusers import DiffSCMCounterfactualPipeline


ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    path.stem.replace("_", "-")
    for path in ROOT.glob("diffscm_diffusers/commands/*.py")
    if path.stem not in ("__init__", "diffscm")
}
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("docs/api/*.md"),
        *ROOT.glob("checkpoints/*/*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)
# Pages whose Python blocks run, one after another, as they are printed.
RUNNABLE = [
    "README.md",
    "docs/index.md",
    "docs/quicktour.md",
    "docs/using_the_pipeline.md",
    "docs/truth.md",
    "docs/api/worlds.md",
]
# What people use most has an example that runs.
ENTRY_POINTS = [
    "DiffSCMCounterfactualPipeline.from_pretrained",
    "pipe(",
    "pipe.abduct(",
    "pipe.predict(",
    "pipe.sample(",
    "pipe.presets",
    "GuidanceScaleSearch(",
    "posterior_mean(",
    "AntiCausalClassifier2DModel.from_unet(",
    "DiffSCMDDIMScheduler.from_config(",
    "DiffSCMBELMScheduler.from_config(",
    "MetricModels.from_pretrained(",
    "Effectiveness(",
    "IM1(",
]


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The shell commands of a page, each split into words, without comments and variables set for it."""
    found = []
    for block in blocks(page, "bash"):
        variables = {}
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.fullmatch(r'(\w+)="(.*)"', line.strip()):
                variables[match[1]] = match[2]
                continue
            for name, value in variables.items():
                line = line.replace(f"${name} ", f"{value} ")
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                found.append(words)
    return found


def parser_of(module) -> argparse.ArgumentParser:
    """The parser of a command or script, caught where it would parse."""

    class Found(Exception):
        pass

    def found(parser, *args, **kwargs):
        raise Found(parser)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Found) as caught:
        patch.setattr(argparse.ArgumentParser, "parse_args", found)
        getattr(module, "parse_args", module.main)([])
    return caught.value.args[0]


def command_parser(name: str) -> argparse.ArgumentParser:
    return parser_of(importlib.import_module(f"diffscm_diffusers.commands.{name.replace('-', '_')}"))


def load(path: str):
    """The module in a file outside the package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / Path(path).parent)  # where Python looks first when it runs the file
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def few_steps(monkeypatch):
    """Calls that say nothing else, and presets, make two steps each way."""
    from_pretrained = DiffSCMCounterfactualPipeline.from_pretrained

    def load_with_few_steps(*args, **kwargs):
        pipe = from_pretrained(*args, **kwargs)
        presets = {name: {**preset, "num_inference_steps": 2} for name, preset in pipe.presets.items()}
        pipe.register_to_config(default_num_inference_steps=2, presets=presets)
        return pipe

    monkeypatch.setattr(DiffSCMCounterfactualPipeline, "from_pretrained", load_with_few_steps)


@pytest.mark.parametrize("page", RUNNABLE)
@pytest.mark.filterwarnings("ignore:Implicit abduction of")  # Two steps are too few for it.
def test_examples_run(page, few_steps, tmp_path, monkeypatch):
    for folder in ("checkpoints", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)

    namespace = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), namespace)

    assert namespace.keys() & {"pipe", "world"}


def test_what_is_used_most_has_an_example_that_runs():
    examples = "\n".join(block for page in RUNNABLE for block in blocks(page, "python"))

    assert [name for name in ENTRY_POINTS if name not in examples] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_and_have_these_flags(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for words in commands(page):
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), words
        elif "diffscm" in words[:1] or "diffscm_diffusers" in words:
            name, *arguments = words[words.index("diffscm_diffusers") + 1 if "diffscm_diffusers" in words else 1 :]
            if name == "--help":
                continue
            assert name in COMMANDS, words
            command_parser(name).parse_args(arguments)
        elif "diffscm_diffusers.app" in words:
            module = importlib.import_module("diffscm_diffusers.app.__main__")
            module.parse_args(words[words.index("diffscm_diffusers.app") + 1 :])
        elif scripts := [word for word in words if word.endswith(".py")]:
            parser_of(load(scripts[0])).parse_args(words[words.index(scripts[0]) + 1 :])
        else:
            assert words[0] in ("pip", "hf", "wget"), words


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_the_repository_exist(page):
    text = (ROOT / page).read_text()
    if page == "CHANGELOG.md":  # Its tables name what is no more.
        text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    named = re.findall(r"(?<![\w/.-])(?:train_scripts|benchmarks|examples|tests|diffscm_diffusers)/[\w./-]+\w", text)

    assert [path for path in named if not (ROOT / path).exists()] == []
