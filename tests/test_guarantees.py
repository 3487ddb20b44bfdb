# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The page of guarantees names tests that exist."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
GUARANTEES = re.findall(r"^- (.*?)(?=^- |^#|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)


def has_test(name: str) -> bool:
    """Whether `tests/file.py`, or a class or function in it as `tests/file.py::Class::test`, holds a test."""
    file, *path = name.split("::")
    if not (ROOT / file).is_file():
        return False
    node = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for part in path:
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            return False
    # Functions, and the names that tables of tests are assigned to.
    names = [getattr(child, "name", None) or getattr(child, "id", None) or "" for child in ast.walk(node)]
    return any(name.startswith("test_") for name in names)


@pytest.mark.parametrize("guarantee", GUARANTEES, ids=lambda text: text.split(".")[0][:60])
def test_each_guarantee_names_tests_that_exist(guarantee):
    names = re.findall(r"`(tests/[^`]+)`", guarantee)
    assert names, guarantee
    assert [name for name in names if not has_test(name)] == []


def test_a_test_that_does_not_exist_is_noticed():
    assert has_test("tests/test_guarantees.py::test_a_test_that_does_not_exist_is_noticed")
    assert not has_test("tests/test_guarantees.py::test_nothing")
    assert not has_test("tests/test_nothing.py")
