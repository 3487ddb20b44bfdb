# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .causal_graph import CausalGraph


if TYPE_CHECKING:
    from datasets import Dataset


def read_table(
    graph: CausalGraph, table: "pd.DataFrame | Dataset | Mapping[str, torch.Tensor]", argument: str = "table"
) -> dict[str, torch.Tensor]:
    """
    Reads the attributes of a graph from the columns of a table.

    Args:
        graph ([`CausalGraph`]): The graph.
        table (`pandas.DataFrame`, `datasets.Dataset` or `dict[str, torch.Tensor]`):
            One row for each sample, with a column for each attribute. Others are not looked at. Continuous columns
            hold numbers in the node's unit, categorical and ordinal ones labels or their indices. Where all labels are
            numbers, numbers are labels. Of a column of `datasets.ClassLabel` the names count. Tensors hold indices.
        argument (`str`, *optional*, defaults to `"table"`): What messages call the table.

    Returns:
        `dict[str, torch.Tensor]`: the values, as [`CausalGraph.check_values`] gives them.

    Raises:
        TypeError: if `table` is of another type, or a column has neither numbers nor labels.
        ValueError:
            if a column is missing, there are no rows, or a value is missing or does not fit its node. The message
            names column, row (counted from 0), value and expectation.
    """
    from datasets import ClassLabel, Dataset  # not above: it takes long to import

    if not isinstance(graph, CausalGraph):
        raise TypeError(f"`graph` expects a CausalGraph, got {graph!r}.")
    if isinstance(table, Dataset):
        columns, length = table.column_names, len(table)
    elif isinstance(table, pd.DataFrame):
        columns, length = list(table.columns), len(table)
    elif isinstance(table, Mapping):
        columns = list(table)
        for name in graph.attributes:
            if name in table and np.ndim(table[name]) != 1:
                raise TypeError(f"`{argument}[{name!r}]` expects a value for each row, got {table[name]!r}.")
        lengths = {name: len(table[name]) for name in graph.attributes if name in table}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"`{argument}` expects columns of one length, got {lengths}.")
        length = next(iter(lengths.values()), 0)
    else:
        raise TypeError(
            f"`{argument}` expects a pandas data frame, a `datasets.Dataset` or a `dict` of tensors, got "
            f"{type(table).__name__}."
        )
    missing = [name for name in graph.attributes if name not in columns]
    if missing:
        raise ValueError(f"`{argument}` expects a column for each of {list(graph.attributes)}, got {columns}.")
    if length == 0:
        raise ValueError(f"`{argument}` expects at least one row, got none.")

    values = {}
    for name, node in graph.nodes.items():
        # `datasets` gives a column of a formatted data set in that format.
        column = table.with_format(None)[name][:] if isinstance(table, Dataset) else table[name]
        is_tensor = isinstance(column, torch.Tensor)
        column = pd.Series(column.cpu().numpy() if is_tensor else np.asarray(column))
        empty = np.flatnonzero(column.isna())
        if len(empty) > 0:
            raise ValueError(f"`{argument}[{name!r}]` expects a value in each row, got none in row {empty[0]}.")
        if isinstance(table, Dataset) and isinstance(table.features[name], ClassLabel):
            column = column.map(table.features[name].int2str)
        elif node.labels is not None and pd.api.types.is_integer_dtype(column) and not is_tensor:
            numbers = node.read_numbers(f"{argument}[{name!r}]")
            wrong = np.flatnonzero(~column.isin(numbers))
            if len(wrong) > 0:
                raise ValueError(
                    f"`{argument}[{name!r}]` expects labels among {list(node.labels)} or numbers among "
                    f"{sorted(numbers)}, got {column[wrong[0]]} in row {wrong[0]}."
                )
            column = column.map(numbers)
        values[name] = _read_column(column, node, f"{argument}[{name!r}]")
    return values


def _read_column(column: pd.Series, node, argument: str) -> torch.Tensor:
    if pd.api.types.is_bool_dtype(column):
        raise TypeError(f"`{argument}` expects numbers or labels, got {column.dtype}.")
    if node.labels is not None and not pd.api.types.is_numeric_dtype(column):
        indices = column.map({label: index for index, label in enumerate(node.labels)})
        wrong = np.flatnonzero(indices.isna())
        if len(wrong) > 0:
            raise ValueError(
                f"`{argument}` expects labels among {list(node.labels)}, got {column[wrong[0]]!r} in row {wrong[0]}."
            )
        return torch.from_numpy(indices.to_numpy(np.int64).copy())
    if not pd.api.types.is_numeric_dtype(column):
        raise TypeError(f"`{argument}` expects numbers, got {column[0]!r} in row 0.")

    array = column.to_numpy()
    if node.labels is None:
        (low, high), dtype, expected = node.range, np.float32, f"values in [{node.range[0]:g}, {node.range[1]:g}]"
    else:
        low, high, dtype = 0, len(node.labels) - 1, np.int64
        expected = f"labels among {list(node.labels)} or their indices"
        if not np.issubdtype(array.dtype, np.integer):
            raise TypeError(f"`{argument}` expects {expected}, got {array.dtype}.")
    array = array.astype(dtype)
    wrong = np.flatnonzero(~((array >= dtype(low)) & (array <= dtype(high))))
    if len(wrong) > 0:
        raise ValueError(f"`{argument}` expects {expected}, got {array[wrong[0]]:g} in row {wrong[0]}.")
    return torch.from_numpy(array)
