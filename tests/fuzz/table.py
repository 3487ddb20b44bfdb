# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Tables of bad calls: each is a good one with another value for one argument."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest


NAN, INF = float("nan"), float("inf")


class Other:
    """An object that no argument expects."""

    def __repr__(self):
        return "Other()"


# What is no whole number of at least 1, no finite number of at least 0, no flag.
NO_COUNT = [0, -1, 2.5, "3", True, NAN]
NO_WEIGHT = [-0.1, NAN, INF, "1"]
NO_FLAG = ["yes", 1, None]


@dataclass(frozen=True)
class Call:
    """
    A public call.

    Args:
        function (`Callable`): Is called with keyword arguments.
        good (`dict`): Arguments with which it works.
        bad (`dict[str, list]`): Values of an argument, each of which is refused in place of the good one.
        together (`list[tuple[str, dict]]`): Arguments that do not fit each other, and the one that is blamed.
    """

    function: Callable
    good: dict = field(default_factory=dict)
    bad: dict[str, list] = field(default_factory=dict)
    together: list[tuple[str, dict]] = field(default_factory=list)

    def rows(self) -> list[tuple[str, dict]]:
        rows = [(argument, {argument: value}) for argument, values in self.bad.items() for value in values]
        return rows + self.together


def assert_names(message: str, argument: str, changes: dict[str, Any]):
    """A message names the argument, what it expects, and what it got."""
    assert re.search(rf"`(--)?{re.escape(argument)}\b", message), f"{argument} is not named: {message}"
    assert "expects" in message and "got" in message, message
    value = changes.get(argument, Other())
    if isinstance(value, (str, int, float, type(None))) and value != "":
        shown = {repr(value), str(value), type(value).__name__}
        assert any(text in message for text in shown), f"{value!r} is not shown: {message}"


def fuzz(calls: dict[str, Call]) -> tuple[Callable, Callable]:
    """The tests of a table: that the good call is answered, and that each bad one is refused."""

    @pytest.mark.parametrize("name", calls)
    def test_good_call_is_answered(name):
        calls[name].function(**calls[name].good)

    rows = [
        pytest.param(name, argument, changes, id=f"{name}-{argument}-{number}")
        for name, call in calls.items()
        for number, (argument, changes) in enumerate(call.rows())
    ]

    @pytest.mark.parametrize(("name", "argument", "changes"), rows)
    def test_bad_call_is_refused(name, argument, changes):
        call = calls[name]
        with pytest.raises((ValueError, TypeError)) as caught:
            call.function(**{**call.good, **changes})
        assert_names(str(caught.value), argument, changes)

    return test_good_call_is_answered, test_bad_call_is_refused
