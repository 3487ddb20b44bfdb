# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import torch

from ..files import written_whole


KINDS = ("continuous", "categorical", "ordinal")


@dataclass(frozen=True)
class Node:
    """
    An attribute of an image.

    Args:
        kind (`str`): `"continuous"`, `"categorical"`, or `"ordinal"`: categories with an order.
        range (`tuple[float, float]`, *optional*): The lowest and the highest value of a continuous attribute.
        unit (`str`, *optional*): What a continuous attribute is measured in.
        labels (`tuple[str, ...]`, *optional*):
            Names of the categories, at least two. Those of an ordinal attribute from the lowest to the highest.

    Raises:
        ValueError: if these are not what the kind needs.
    """

    kind: str
    range: tuple[float, float] | None = None
    unit: str | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"`kind` expects one of {KINDS}, got {self.kind!r}.")
        if self.kind == "continuous":
            if self.labels is not None:
                raise ValueError(f"`labels` expects a categorical or ordinal node, got {self.labels!r} of another.")
            object.__setattr__(self, "range", self._read_range(self.range))
            if self.unit is not None and not isinstance(self.unit, str):
                raise ValueError(f"`unit` expects a string, got {self.unit!r}.")
        else:
            if self.range is not None or self.unit is not None:
                raise ValueError(
                    f"`range` and `unit` expect a continuous node, got {self.range!r} and {self.unit!r} of another."
                )
            object.__setattr__(self, "labels", self._read_labels(self.labels))

    @staticmethod
    def _read_range(ends) -> tuple[float, float]:
        is_pair = isinstance(ends, Sequence) and not isinstance(ends, str) and len(ends) == 2
        if not is_pair or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
            raise ValueError(f"`range` expects two numbers, the lowest and the highest value, got {ends!r}.")
        low, high = map(float, ends)
        # In float32, as values are: its neighbours have to be distinct numbers.
        if not (math.isfinite(low) and math.isfinite(high) and np.float32(low) < np.float32(high)):
            raise ValueError(f"`range` expects two finite numbers, the lower one first, got {ends!r}.")
        return low, high

    @staticmethod
    def _read_labels(labels) -> tuple[str, ...]:
        is_list = isinstance(labels, Sequence) and not isinstance(labels, str)
        if not is_list or not all(isinstance(label, str) and label for label in labels):
            raise ValueError(f"`labels` expects a list of strings, got {labels!r}.")
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"`labels` expects at least two, each once, got {list(labels)}.")
        return tuple(labels)

    @property
    def width(self) -> int:
        """Entries that the attribute has in a condition: one, or one for each category without an order."""
        return len(self.labels) if self.kind == "categorical" else 1

    def read_numbers(self, argument: str) -> dict[int, int]:
        """
        What whole numbers mean as values of a categorical or ordinal attribute: labels, where the labels are numbers
        such as "1", "2", "3", and indices of labels otherwise.

        Args:
            argument (`str`): What messages call the value.

        Returns:
            `dict[int, int]`: each number that has a meaning, to the index of its label.

        Raises:
            ValueError: if some labels are numbers, and others than their indices, but not all are.
        """
        numbers = {int(label): index for index, label in enumerate(self.labels) if label.isdecimal()}
        if all(number == index for number, index in numbers.items()):
            return {index: index for index in range(len(self.labels))}
        if len(numbers) < len(self.labels):
            number = next(number for number, index in numbers.items() if number != index)
            raise ValueError(
                f"`{argument}` expects text, as only some of the labels {list(self.labels)} are numbers: {number} may "
                "be a label or an index."
            )
        return numbers

    def check(self, value: Any, num_samples: int, argument: str) -> torch.Tensor:
        """
        Reads values of the attribute.

        Args:
            value (`float`, `int`, `str`, `Sequence`, `np.ndarray` or `torch.Tensor`):
                One value, or one for each sample. A category is its label, or the label's index; strings are labels.
                Where all labels are numbers, numbers are labels too. Tensors always hold indices.
            num_samples (`int`): Number of samples.
            argument (`str`): What messages call the value.

        Returns:
            `torch.Tensor` of shape `(num_samples,)`: the values, on the CPU: `float32` in the attribute's unit if it
            is continuous, `int64` indices into the labels otherwise.

        Raises:
            TypeError: if they are neither numbers nor strings.
            ValueError: if their shape is wrong, or one is not in the range or among the labels.
        """
        is_list = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
        entries = list(value) if is_list else [value]
        if self.labels is not None and entries and all(isinstance(entry, str) for entry in entries):
            unknown = [entry for entry in entries if entry not in self.labels]
            if unknown:
                raise ValueError(f"`{argument}` expects labels among {list(self.labels)}, got {str(unknown[0])!r}.")
            value = [self.labels.index(entry) for entry in entries]
            value = value if is_list else value[0]
        elif (
            self.labels is not None
            and entries
            and all(type(entry) is int or isinstance(entry, np.integer) for entry in entries)
        ):
            numbers = self.read_numbers(argument)
            unknown = [entry for entry in entries if int(entry) not in numbers]
            if unknown:
                raise ValueError(
                    f"`{argument}` expects labels among {list(self.labels)} or numbers among {sorted(numbers)}, got "
                    f"{unknown[0]}."
                )
            value = [numbers[int(entry)] for entry in entries]
            value = value if is_list else value[0]
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            expected = "numbers" if self.labels is None else "labels or their indices"
            raise TypeError(f"`{argument}` expects {expected}, got {value!r}.") from error
        if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != num_samples):
            raise ValueError(
                f"`{argument}` expects one value or shape ({num_samples},), got shape {tuple(tensor.shape)}."
            )
        if tensor.dtype == torch.bool or tensor.is_complex():
            raise TypeError(f"`{argument}` expects numbers, got {tensor.dtype}.")

        if self.labels is None:
            (low, high), dtype = self.range, torch.float32
        else:
            low, high, dtype = 0, len(self.labels) - 1, torch.int64
            if tensor.is_floating_point():
                raise TypeError(f"`{argument}` expects labels or their indices, got {tensor.dtype}.")
        tensor = tensor.detach().cpu().to(dtype)
        # Written so that NaN is outside as well. An end of a range may round when it is stored as float32.
        outside = ~((tensor >= torch.tensor(low, dtype=dtype)) & (tensor <= torch.tensor(high, dtype=dtype)))
        if outside.any():
            unit = f" {self.unit}" if self.unit else ""
            raise ValueError(f"`{argument}` expects values in [{low:g}, {high:g}]{unit}, got {tensor[outside][0]:g}.")
        return tensor.expand(num_samples).clone()


class CausalGraph:
    """
    The causal graph of an image and its attributes, as data.

    ```py
    graph = CausalGraph(
        nodes={
            "digit": {"kind": "categorical", "labels": list("0123456789")},
            "thickness": {"kind": "continuous", "range": [0.5, 8], "unit": "pixels"},
            "intensity": {"kind": "continuous", "range": [64, 255], "unit": "grey levels"},
        },
        edges=[["digit", "image"], ["thickness", "intensity"], ["thickness", "image"], ["intensity", "image"]],
    )
    graph.save_json("graph.json")
    ```

    The order of attributes, everywhere, is that of the graph: parents before children, and otherwise by name. It does
    not depend on the order of `nodes` or `edges`.

    Args:
        nodes (`dict[str, Node | dict]`): Name of each attribute to what it is: a [`Node`], or a `dict` of its fields.
        edges (`Iterable[tuple[str, str]]`): Pairs of parent and child. The image is a child here.
        image (`str`, *optional*, defaults to `"image"`): Name of the image in the edges. It is not among `nodes`.

    Attributes:
        nodes (`dict[str, Node]`): The attributes, in the order of the graph.
        edges (`tuple[tuple[str, str], ...]`): The edges, in the order of the children and then of the parents.
        image (`str`): Name of the image.
        attributes (`tuple[str, ...]`): Names of the attributes, in the order of the graph.
        image_parents (`tuple[str, ...]`): Names of the attributes that cause the image, in the same order.

    Raises:
        TypeError: if an argument is of another type.
        ValueError:
            if a node is not what its kind needs, an edge has an unknown end or occurs twice, edges run in a circle,
            the image causes something, or nothing causes the image. The message names the node.
    """

    def __init__(
        self, nodes: Mapping[str, Node | Mapping], edges: Iterable[Sequence[str]], image: str = "image"
    ) -> None:
        if not isinstance(nodes, Mapping):
            raise TypeError(f"`nodes` expects a `dict` of names to descriptions, got {type(nodes).__name__}.")
        if not isinstance(image, str) or not image:
            raise TypeError(f"`image` expects the image's name, got {image!r}.")
        if image in nodes:
            raise ValueError(f"`nodes` expects attributes, got {image!r}, which is the image.")
        if isinstance(edges, str) or not isinstance(edges, Iterable):
            raise TypeError(f"`edges` expects pairs of parent and child, got {edges!r}.")
        descriptions = {name: self._read_node(name, node) for name, node in nodes.items()}

        graph = networkx.DiGraph()
        graph.add_nodes_from([*descriptions, image])
        for edge in edges:
            if isinstance(edge, str) or not isinstance(edge, Sequence) or len(edge) != 2:
                raise ValueError(f"`edges` expects pairs of parent and child, got {edge!r}.")
            parent, child = edge
            for end in edge:
                if end not in graph:
                    raise ValueError(
                        f"`edges` expects nodes among {list(graph)}, got {end!r} in {parent!r} -> {child!r}."
                    )
            if parent == image:
                raise ValueError(f"`edges` expects an image without children, got {image!r} -> {child!r}.")
            if graph.has_edge(parent, child):
                raise ValueError(f"`edges` expects each edge once, got {parent!r} -> {child!r} again.")
            graph.add_edge(parent, child)
        if not networkx.is_directed_acyclic_graph(graph):
            circle = [parent for parent, _ in networkx.find_cycle(graph)]
            raise ValueError(f"`edges` expects no circle, got {' -> '.join(map(repr, [*circle, circle[0]]))}.")
        if graph.in_degree(image) == 0:
            raise ValueError(f"`edges` expects at least one parent of the image, got none of {image!r}.")

        self.image = image
        # Not the order of the arguments: that of a JSON object's keys may change when it is saved.
        order = [name for name in networkx.lexicographical_topological_sort(graph) if name != image]
        self.nodes = {name: descriptions[name] for name in order}
        self.edges = tuple(
            (parent, child) for child in [*order, image] for parent in order if graph.has_edge(parent, child)
        )
        self.attributes = tuple(order)
        self.image_parents = self.parents(image)

    @staticmethod
    def _read_node(name: str, node: Node | Mapping) -> Node:
        if not isinstance(name, str) or not name:
            raise TypeError(f"`nodes` expects names that are strings, got {name!r}.")
        if isinstance(node, Node):
            return node
        if not isinstance(node, Mapping) or "kind" not in node:
            raise ValueError(f"`nodes[{name!r}]` expects a `dict` with its 'kind', one of {KINDS}, got {node!r}.")
        known = list(Node.__dataclass_fields__)
        for key in node:
            if key not in known:
                raise ValueError(f"`nodes[{name!r}]` expects keys among {known}, got {key!r}.")
        try:
            return Node(**node)
        except ValueError as error:
            raise ValueError(f"`nodes[{name!r}]`: {error}") from error

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, CausalGraph) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"CausalGraph({', '.join(f'{parent} -> {child}' for parent, child in self.edges)})"

    @classmethod
    def from_dict(cls, graph: Mapping[str, Any]) -> "CausalGraph":
        """
        Makes a graph from plain data, such as a world's `graph`.

        Args:
            graph (`dict`):
                With `"nodes"`, `"edges"` and, unless it is `"image"`, the image's name in `"image"`. What a world
                tells of its `"exogenous_noise"` is ignored.

        Raises:
            ValueError: if a key is missing or unknown, or for the reasons of [`CausalGraph`].
        """
        if not isinstance(graph, Mapping) or not {"nodes", "edges"} <= set(graph):
            got = list(graph) if isinstance(graph, Mapping) else type(graph).__name__
            raise ValueError(f"`graph` expects a `dict` with 'nodes' and 'edges', got {got}.")
        unknown = set(graph) - {"nodes", "edges", "image", "exogenous_noise"}
        if unknown:
            raise ValueError(f"`graph` expects 'nodes', 'edges' and 'image', got {sorted(map(str, unknown))} as well.")
        return cls(graph["nodes"], graph["edges"], graph.get("image", "image"))

    @classmethod
    def of_classes(cls, name: str, class_names: list[str], image: str = "image") -> "CausalGraph":
        """
        The graph of images with one cause, their class.

        Args:
            name (`str`): The class' name, such as that of its column.
            class_names (`list[str]`): Its labels, in their order.
            image (`str`, *optional*, defaults to `"image"`): The image's name.
        """
        return cls({name: {"kind": "categorical", "labels": class_names}}, [(name, image)], image)

    def to_dict(self) -> dict[str, Any]:
        """The graph as plain data, which can be written as JSON."""
        nodes = {}
        for name, node in self.nodes.items():
            nodes[name] = {"kind": node.kind}
            if node.labels is not None:
                nodes[name]["labels"] = list(node.labels)
            else:
                nodes[name]["range"] = list(node.range)
                if node.unit is not None:
                    nodes[name]["unit"] = node.unit
        return {"nodes": nodes, "edges": [list(edge) for edge in self.edges], "image": self.image}

    @classmethod
    def from_json(cls, path: str | Path) -> "CausalGraph":
        """
        Reads a graph from a JSON file with the keys of [`~CausalGraph.from_dict`].

        Args:
            path (`str` or `Path`): The file.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is not JSON, or not that of a graph. The message names the file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"`path` expects a causal graph as JSON, got {str(path)!r}: {error}") from error

    def save_json(self, path: str | Path) -> None:
        """
        Writes the graph to a JSON file, whole or not at all.

        Args:
            path (`str` or `Path`): The file. An older one is replaced.

        Raises:
            TypeError: if `path` is no path of a file.
        """
        if not isinstance(path, (str, Path)) or not Path(path).name:
            raise TypeError(f"`path` expects a file to write, got {path!r}.")
        with written_whole(path) as unfinished:
            unfinished.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def parents(self, name: str) -> tuple[str, ...]:
        """
        The attributes that cause an attribute or the image, in the order of the graph.

        Args:
            name (`str`): The attribute or the image.

        Raises:
            ValueError: if there is no such node.
        """
        if name != self.image:
            self.check_names([name], "name")
        return tuple(parent for parent, child in self.edges if child == name)

    def descendants(self, names: str | Iterable[str], hold: str | Iterable[str] = ()) -> set[str]:
        """
        The attributes that change when others are intervened on: their descendants, without themselves.

        Args:
            names (`str` or `Iterable[str]`): The attributes that are intervened on.
            hold (`str` or `Iterable[str]`, *optional*): Attributes that are held. They pass nothing on.

        Raises:
            ValueError: if there is no such attribute.
        """
        names, hold = self.check_names(names, "names"), self.check_names(hold, "hold")
        changed = set(names)
        for name in self.attributes:
            if name not in hold and changed.intersection(self.parents(name)):
                changed.add(name)
        return changed - names

    def check_names(self, names: str | Iterable[str], argument: str) -> set[str]:
        """
        Reads names of attributes.

        Args:
            names (`str` or `Iterable[str]`): One or several names.
            argument (`str`): What messages call them.

        Returns:
            `set[str]`: the names.

        Raises:
            TypeError: if there are no names.
            ValueError: if one is not an attribute.
        """
        if not isinstance(names, Iterable):
            raise TypeError(f"`{argument}` expects names of attributes, got {names!r}.")
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self.nodes:
                reason = ", which is the image" if name == self.image else ""
                raise ValueError(f"`{argument}` expects attributes among {list(self.nodes)}, got {name!r}{reason}.")
        return set(names)

    def check_values(
        self, values: Mapping[str, Any], num_samples: int, argument: str, names: Collection[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Reads values of attributes.

        Args:
            values (`dict[str, Any]`):
                Attribute to its values: one, or one for each sample (a list, an array or a tensor of shape
                `(num_samples,)`). A category is a label or its index.
            num_samples (`int`): Number of samples.
            argument (`str`): What messages call `values`.
            names (`Collection[str]`, *optional*): Attributes that have to be there. By default none has to.

        Returns:
            `dict[str, torch.Tensor]`: the values of the attributes that are given, in the order of the graph, of shape
            `(num_samples,)`, on the CPU: `float32` in the node's unit for continuous ones, `int64` indices into the
            labels for categorical and ordinal ones.

        Raises:
            TypeError: if `values` is not a `dict`, or a value is neither a number nor a label.
            ValueError:
                if an attribute is unknown or missing, or a value's shape is wrong or it is not in its node's range or
                among its labels. The message names argument, node, value and expectation.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"`{argument}` expects a `dict` of attributes to values, got {type(values).__name__}.")
        self.check_names(values, argument)
        missing = [name for name in names or () if name not in values]
        if missing:
            raise ValueError(f"`{argument}` expects a value of each of {list(names)}, got none of {missing}.")
        return {
            name: node.check(values[name], num_samples, f"{argument}[{name!r}]")
            for name, node in self.nodes.items()
            if name in values
        }

    @property
    def condition_widths(self) -> dict[str, int]:
        """
        Number of entries of each of the image's parents in a condition: 1 for continuous and ordinal ones, the number
        of labels for categorical ones. In the order of `image_parents`.
        """
        return {name: self.nodes[name].width for name in self.image_parents}

    def condition(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """
        The image's causes as one vector, as networks take them.

        Args:
            values (`dict[str, torch.Tensor]`):
                Values of at least the image's parents, as [`~CausalGraph.check_values`] gives them.

        Returns:
            `torch.Tensor` of shape `(num_samples, sum of condition_widths)`: in the order of `image_parents`. The
            range of a continuous attribute and the indices of an ordinal one are scaled to [-1, 1], a categorical one
            is one-hot. `float32`, on the device of the values.

        Raises:
            TypeError: if `values` is no `dict`.
            ValueError: if one of the image's parents is missing or no tensor.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"`values` expects a `dict` of attributes to tensors, got {values!r}.")
        missing = [name for name in self.image_parents if not isinstance(values.get(name), torch.Tensor)]
        if missing:
            raise ValueError(
                f"`values` expects tensors of the image's parents {list(self.image_parents)}, got none of {missing}."
            )
        columns = []
        for name in self.image_parents:
            node, value = self.nodes[name], values[name]
            if node.kind == "categorical":
                columns.append(torch.nn.functional.one_hot(value, len(node.labels)).float())
            else:
                low, high = node.range or (0, len(node.labels) - 1)
                columns.append(((value.double() - low) / (high - low) * 2 - 1).float()[:, None])
        return torch.cat(columns, dim=1)

    def values(self, condition: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        The values that a condition means: the inverse of [`~CausalGraph.condition`].

        Args:
            condition (`torch.Tensor` of shape `(num_samples, sum of condition_widths)`):
                The image's causes. Of a categorical attribute the largest entry counts, of an ordinal one the nearest
                index. A continuous one's entry outside of [-1, 1] gives a value outside of its range.

        Returns:
            `dict[str, torch.Tensor]`: values of the image's parents, of shape `(num_samples,)`, on the condition's
            device.

        Raises:
            TypeError: if `condition` is no tensor of floats.
            ValueError: if `condition` has another shape, or values that are not finite.
        """
        widths = self.condition_widths
        if not isinstance(condition, torch.Tensor) or not condition.is_floating_point():
            got = condition.dtype if isinstance(condition, torch.Tensor) else repr(condition)
            raise TypeError(f"`condition` expects a tensor of floats, got {got}.")
        if not condition.isfinite().all():
            raise ValueError("`condition` expects finite values, got NaN or infinity.")
        if condition.ndim != 2 or condition.shape[1] != sum(widths.values()):
            raise ValueError(
                f"`condition` expects shape (num_samples, {sum(widths.values())}), got {tuple(condition.shape)}."
            )
        values = {}
        for name, columns in zip(widths, condition.split(list(widths.values()), dim=1), strict=True):
            node = self.nodes[name]
            if node.kind == "categorical":
                values[name] = columns.argmax(dim=1)
                continue
            low, high = (
                torch.tensor(end, dtype=torch.float64, device=condition.device)
                for end in node.range or (0, len(node.labels) - 1)
            )
            # Unlike low + part * (high - low), this is exact at both ends.
            value = torch.lerp(low, high, (columns[:, 0].double() + 1) / 2)
            if node.kind == "ordinal":
                values[name] = value.round().clamp(low, high).long()
            else:
                values[name] = value.float()
        return values

    def check_do_and_hold(self, do: str | Iterable[str], hold: str | Iterable[str]) -> tuple[set[str], set[str]]:
        """
        Reads which attributes are intervened on, and which are held.

        Args:
            do (`str` or `Iterable[str]`): Names of those that are intervened on; the `dict` of values will do.
            hold (`str` or `Iterable[str]`): Names of those that are held.

        Returns:
            `tuple[set[str], set[str]]`: the names.

        Raises:
            ValueError: if one is not an attribute, or is in both.
        """
        do, hold = self.check_names(do, "do"), self.check_names(hold, "hold")
        if do & hold:
            raise ValueError(f"`hold` expects other attributes than `do`, got {sorted(do & hold)} in both.")
        return do, hold

    def plot(self, do: str | Iterable[str] = (), hold: str | Iterable[str] = (), ax=None):
        """
        Draws the graph, from causes at the left to the image at the right. Needs matplotlib.

        Args:
            do (`str` or `Iterable[str]`, *optional*):
                Attributes that are intervened on: filled orange, their incoming edges cut, which is drawn dotted.
            hold (`str` or `Iterable[str]`, *optional*): Attributes that are held: framed in blue, likewise cut.
            ax (`matplotlib.axes.Axes`, *optional*): Where to draw. A new figure by default.

        Returns:
            `matplotlib.axes.Axes`: the axes.

        Raises:
            ValueError: if `do` or `hold` names something that is not an attribute, or both name the same.
        """
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure

        if ax is not None and not isinstance(ax, Axes):
            raise TypeError(f"`ax` expects axes of matplotlib, got {ax!r}.")
        do, hold = self.check_do_and_hold(do, hold)
        graph = networkx.DiGraph(self.edges)
        graph.add_nodes_from(self.nodes)
        depth = {name: i for i, names in enumerate(networkx.topological_generations(graph)) for name in names}
        # To the right of everything, also of attributes that do not cause it.
        depth[self.image] = max(depth.values()) + 1
        # Lists, in the graph's order: networkx makes sets of names, whose order is one of chance.
        layers = [[name for name in (*self.attributes, self.image) if depth[name] == i] for i in range(len(graph) + 1)]
        layers = dict(enumerate(names for names in layers if names))
        layer = {name: i for i, names in layers.items() for name in names}
        position = networkx.multipartite_layout(graph, subset_key=layers)
        # Edges that pass a layer would run through the nodes of a row.
        for index, name in enumerate([*self.attributes, self.image]):
            position[name] = position[name] + (0, 0.15 * (index % 3 - 1))
        if ax is None:
            ax = Figure(figsize=(1.5 + 1.5 * len(layers), 3)).subplots()
        cut = [edge for edge in self.edges if edge[1] in do | hold]
        size = 2500
        middle = sum(place[1] for place in position.values()) / len(position)
        for edge in self.edges:
            # Around the layers that it passes.
            is_long = layer[edge[1]] - layer[edge[0]] > 1
            bend = 0.5 * is_long * (-1 if position[edge[0]][1] > middle else 1)
            is_cut = edge in cut
            networkx.draw_networkx_edges(
                graph,
                position,
                [edge],
                ax=ax,
                node_size=size,
                style=":" if is_cut else "-",
                edge_color="#767676" if is_cut else "black",
                arrows=True,
                connectionstyle=f"arc3,rad={bend}",
            )
        names = list(graph)
        networkx.draw_networkx_nodes(
            graph,
            position,
            names,
            ax=ax,
            node_size=size,
            node_shape="o",
            node_color=["#F4B183" if name in do else "#D9D9D9" if name == self.image else "white" for name in names],
            edgecolors=["#0072B2" if name in hold else "#D55E00" if name in do else "black" for name in names],
            linewidths=[2.5 if name in do | hold else 1 for name in names],
        )
        networkx.draw_networkx_labels(graph, position, ax=ax, font_size=8)
        ax.margins(0.25)
        ax.set_axis_off()
        return ax

    def mermaid(self, do: str | Iterable[str] = (), hold: str | Iterable[str] = ()) -> str:
        """
        The graph as text that Mermaid draws, in cards and on GitHub.

        Args:
            do (`str` or `Iterable[str]`, *optional*):
                Attributes that are intervened on. Their incoming edges are dotted and say that they are cut.
            hold (`str` or `Iterable[str]`, *optional*): Attributes that are held, likewise.

        Returns:
            `str`: a flowchart.

        Raises:
            ValueError: if `do` or `hold` names something that is not an attribute, or both name the same.
        """
        do, hold = self.check_do_and_hold(do, hold)
        ids = {name: f"n{index}" for index, name in enumerate([*self.attributes, self.image])}
        lines = ["flowchart LR"]
        for name, key in ids.items():
            text = name.replace('"', "#quot;")
            if name == self.image:
                lines.append(f'    {key}[/"{text}"/]')
            else:
                mark = "do: " if name in do else "hold: " if name in hold else ""
                lines.append(f'    {key}(["{mark}{text}"])')
        for parent, child in self.edges:
            arrow = "-. cut .->" if child in do | hold else "-->"
            lines.append(f"    {ids[parent]} {arrow} {ids[child]}")
        for name in self.attributes:
            if name in do:
                lines.append(f"    style {ids[name]} fill:#F4B183,stroke:#D55E00,stroke-width:3px")
            elif name in hold:
                lines.append(f"    style {ids[name]} stroke:#0072B2,stroke-width:3px")
        return "\n".join(lines) + "\n"
