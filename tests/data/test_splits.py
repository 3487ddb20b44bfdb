# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest
from datasets import Dataset, DatasetDict

from diffscm_diffusers.data.splits import select_rows


@pytest.fixture
def splits():
    return DatasetDict(train=Dataset.from_dict({"row": range(20)}), test=Dataset.from_dict({"row": range(100, 105)}))


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("test", range(100, 105)),
        ("train[15:]", range(15, 20)),
        ("train[:-18]+test[1:2]", [0, 1, 101]),
        ("train[90%:]", [18, 19]),
        ("train[20:]+test[:1]", [100]),
    ],
)
def test_rows_are_those_of_the_slices(splits, split, rows):
    assert select_rows(splits, split)["row"][:] == list(rows)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", "`split` expects a split or slices of splits, got 'validation': Unknown split"),
        ("test[5:", r"`split` expects a split or slices of splits, got 'test\[5:'"),
        ("train[100:]", r"`split` expects at least one row, got 'train\[100:\]' of splits with {'train': 20"),
    ],
)
def test_other_texts_are_refused(splits, split, message):
    with pytest.raises(ValueError, match=message):
        select_rows(splits, split)
