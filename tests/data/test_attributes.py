# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from diffscm_diffusers.causal_graphs import CausalGraph, read_table
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("labels", "column", "indices"),
    [
        (["1", "2", "3"], [3, 1, 2], [2, 0, 1]),
        (["0", "1", "2"], [2, 0, 1], [2, 0, 1]),
        (["low", "middle", "high"], [2, 0, 1], [2, 0, 1]),
        (["low", "middle", "high"], ["high", "low", "middle"], [2, 0, 1]),
    ],
)
def test_a_column_means_the_same_to_images_and_to_tables(tmp_path, labels, column, indices, streaming):
    (tmp_path / "data" / "train").mkdir(parents=True)
    names = [f"{i}.png" for i in range(3)]
    for name in names:
        PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "data" / "train" / name)
    table = pd.DataFrame({"file_name": names, "grade": column})
    table.to_csv(tmp_path / "data" / "train" / "metadata.csv", index=False)
    graph = CausalGraph({"grade": {"kind": "ordinal", "labels": labels}}, [("grade", "image")])

    dataset = load_image_dataset(
        train_data_dir=tmp_path / "data",
        split="train",
        image_column="image",
        label_column=None,
        graph=graph,
        cache_dir=tmp_path / "cache",
        streaming=streaming,
    )["train"]
    batch = ImageCollator(8, 1, "image", graph=graph)(list(dataset.take(3)))
    assert batch["attributes"]["grade"].tolist() == indices
    table = pd.read_csv(tmp_path / "data" / "train" / "metadata.csv")
    assert read_table(graph, table)["grade"].tolist() == indices


def test_numbers_of_labels_some_of_which_are_numbers_are_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "0.png")
    pd.DataFrame({"file_name": ["0.png"], "grade": [1]}).to_csv(folder / "metadata.csv", index=False)
    graph = CausalGraph({"grade": {"kind": "ordinal", "labels": ["1", "2", "more"]}}, [("grade", "image")])
    with pytest.raises(ValueError, match="`column 'grade'` expects text, as only some of the labels"):
        load_image_dataset(
            train_data_dir=folder,
            split="train",
            image_column="image",
            label_column=None,
            graph=graph,
            cache_dir=tmp_path / "cache",
        )
