# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest

from diffscm_diffusers.data.classes import abbreviate, match_classes, unique_names


def test_names_are_made_unique():
    assert unique_names({0: "crane", 1: "hen", 2: "crane"}) == ["crane (0)", "hen", "crane (2)"]


def test_classes_are_matched_by_name():
    names = ["dark", "grey", "light"]
    assert match_classes(["light", "dark"], names) == [2, 0]
    with pytest.raises(ValueError, match="`label_column` expects .*'dark', 'grey', 'light', got 'dark', 'blue'"):
        match_classes(["dark", "blue"], names)


def test_names_of_several_classes_are_refused():
    with pytest.raises(ValueError, match="`label_column` expects classes with names of their own, got 'dark' twice"):
        match_classes(["dark", "dark"], ["dark", "light"])
    with pytest.raises(ValueError, match="with names of their own, got 'light' twice"):
        match_classes(["dark"], ["dark", "light", "light"])


def test_messages_name_ten_classes():
    names = [str(number) for number in range(11)]
    assert abbreviate(names[:10]) == "'0', '1', '2', '3', '4', '5', '6', '7', '8', '9'"
    assert abbreviate(names) == "'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ..."
