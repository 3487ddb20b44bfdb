# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections import Counter

import pytest

from diffscm_diffusers.generation.interventions import Interventions


NAMES = ["dark", "grey", "light"]


def targets(interventions, row=0, factual_class=1, seed=0):
    chosen = Interventions(interventions, NAMES, has_classes=factual_class is not None, seed=seed)
    found = chosen.targets(row, factual_class)
    assert len(found) == chosen.per_factual
    return found


def test_modes():
    assert targets(["all"]) == [0, 1, 2]
    assert targets(["all"], factual_class=None) == [0, 1, 2]
    assert targets(["other"]) == [0, 2]
    assert targets(["light", "dark"], factual_class=None) == [2, 0]
    assert targets(["grey"], factual_class=1) == [1]


def test_random_is_uniform_over_the_other_classes_and_a_function_of_seed_and_row():
    drawn = [targets(["random"], row)[0] for row in range(1000)]
    counts = Counter(drawn)
    assert counts.keys() == {0, 2}
    assert abs(counts[0] - 500) < 5 * (1000 * 0.25) ** 0.5  # five standard deviations
    assert drawn[::-1] == [targets(["random"], row)[0] for row in reversed(range(1000))]
    assert drawn != [targets(["random"], row, seed=1)[0] for row in range(1000)]


class TestNamesThatAreWords:
    """Classes that are called like words of the interface."""

    NAMES = ["all", "--x", "other", "class:all", "3", "factual"]

    def choose(self, *interventions):
        chosen = Interventions(list(interventions), self.NAMES, has_classes=True, seed=0)
        return chosen.targets(0, 1)

    def test_prefixed_they_are_classes(self, caplog):
        for name in self.NAMES:
            assert self.choose(f"class:{name}") == [self.NAMES.index(name)]
        assert self.choose("class:other", "3") == [2, 4]  # a name, not an index
        assert not caplog.text

    def test_alone_they_are_words_with_a_warning(self, caplog):
        assert self.choose("all") == [0, 1, 2, 3, 4, 5]
        assert "write 'class:all' for the class" in caplog.text
        caplog.clear()
        assert self.choose("random") != []
        assert not caplog.text


@pytest.mark.parametrize(
    ("interventions", "factual_class", "message"),
    [
        (["blue"], 1, "`interventions` expects one of all, other, random, or names .*'dark'.* got 'blue'"),
        (["all", "dark"], 1, "got 'all'"),
        (["dark", "dark"], 1, "`interventions` expects each class once"),
        (["other"], None, "`interventions` 'other' expects factuals of known classes: name their `label_column`"),
        (["random"], None, "`interventions` 'random' expects factuals of known classes"),
    ],
)
def test_bad_interventions(interventions, factual_class, message):
    with pytest.raises(ValueError, match=message):
        targets(interventions, factual_class=factual_class)


def test_no_other_class():
    with pytest.raises(ValueError, match="at least two classes, got \\['dark'\\]"):
        Interventions(["random"], ["dark"], has_classes=True, seed=0)
