# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import re

import networkx
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from matplotlib.colors import to_hex

from diffscm_diffusers import CausalGraph
from diffscm_diffusers.causal_graphs import Node, read_table
from diffscm_diffusers.worlds import TypefaceWorld


NODES = {
    "thickness": {"kind": "continuous", "range": [0.5, 8.0], "unit": "pixels"},
    "digit": {"kind": "categorical", "labels": ["zero", "one", "two"]},
    "size": {"kind": "ordinal", "labels": ["small", "medium", "large"]},
    "intensity": {"kind": "continuous", "range": [64, 255]},
}
EDGES = [
    ["intensity", "image"],
    ["thickness", "image"],
    ["thickness", "intensity"],
    ["digit", "size"],
    ["digit", "image"],
    ["size", "image"],
]


@pytest.fixture
def graph() -> CausalGraph:
    return CausalGraph(NODES, EDGES)


def test_parents_come_before_children_in_whatever_order_the_graph_is_given(graph):
    assert graph.attributes == ("digit", "size", "thickness", "intensity")
    assert graph.image_parents == ("digit", "size", "thickness", "intensity")
    assert graph.parents("intensity") == ("thickness",)
    assert graph.parents("thickness") == ()

    shuffled = CausalGraph(dict(reversed(NODES.items())), EDGES[::-1])
    assert shuffled == graph
    assert shuffled.attributes == graph.attributes
    assert list(shuffled.condition_widths.items()) == [("digit", 3), ("size", 1), ("thickness", 1), ("intensity", 1)]


def test_graph_is_the_same_after_json(graph, tmp_path):
    graph.save_json(tmp_path / "graph.json")
    assert CausalGraph.from_json(tmp_path / "graph.json") == graph
    assert list(tmp_path.iterdir()) == [tmp_path / "graph.json"]
    # As Diffusers writes configurations.
    assert CausalGraph.from_dict(json.loads(json.dumps(graph.to_dict(), sort_keys=True))).nodes == graph.nodes


def test_graph_of_a_world_is_read():
    graph = CausalGraph.from_dict(TypefaceWorld(color=True, confounding=0.5).graph)
    assert graph.attributes == ("confounder", "digit", "hue")
    assert graph.image_parents == ("digit", "hue")
    assert "exogenous_noise" not in graph.to_dict()


def test_descendants_follow_the_edges_and_stop_at_what_is_held():
    nodes = {name: {"kind": "continuous", "range": [0, 1]} for name in "abcd"}
    edges = [("a", "b"), ("b", "c"), ("a", "d"), ("d", "c"), ("c", "image")]
    graph = CausalGraph(nodes, edges)
    assert graph.descendants("a") == {"b", "c", "d"}
    assert graph.descendants(["b", "d"]) == {"c"}
    assert graph.descendants("a", hold="b") == {"c", "d"}
    assert graph.descendants("a", hold={"b", "d"}) == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": [*EDGES, ["intensity", "thickness"]]}, "no circle, got .*'thickness' -> 'intensity' -> 'thickness'|"
         "no circle, got 'intensity' -> 'thickness' -> 'intensity'"),
        ({"edges": [*EDGES, ["size", "size"]]}, "no circle, got 'size' -> 'size'"),
        ({"edges": [*EDGES, ["hue", "image"]]}, "`edges` expects nodes among .*, got 'hue' in 'hue' -> 'image'"),
        ({"edges": [*EDGES, ["image", "size"]]}, "image without children, got 'image' -> 'size'"),
        ({"edges": [*EDGES, ["digit", "image"]]}, "each edge once, got 'digit' -> 'image' again"),
        ({"edges": [*EDGES, "ab"]}, "pairs of parent and child, got 'ab'"),
        ({"edges": [["digit", "size"]]}, "at least one parent of the image, got none of 'image'"),
        ({"image": "digit"}, "expects attributes, got 'digit', which is the image"),
        ({"nodes": {**NODES, "size": {"kind": "vague"}}}, r"`nodes\['size'\]`: `kind` expects one of .*, got 'vague'"),
        ({"nodes": {**NODES, "size": {"labels": ["a", "b"]}}}, r"`nodes\['size'\]` expects a `dict` with its 'kind'"),
        ({"nodes": {**NODES, "size": {"kind": "ordinal", "labels": ["a"]}}}, r"'size'.*at least two, each once"),
        ({"nodes": {**NODES, "size": {"kind": "ordinal", "labels": ["a", "a"]}}}, r"'size'.*at least two, each once"),
        ({"nodes": {**NODES, "size": {"kind": "ordinal", "labels": "ab"}}}, r"'size'.*a list of strings, got 'ab'"),
        ({"nodes": {**NODES, "size": {"kind": "continuous", "range": [1, 1]}}}, r"'size'.*lower one first"),
        ({"nodes": {**NODES, "size": {"kind": "continuous", "range": [0, np.inf]}}}, r"'size'.*finite"),
        ({"nodes": {**NODES, "size": {"kind": "continuous"}}}, r"'size'.*two numbers.*got None"),
        ({"nodes": {**NODES, "size": {"kind": "continuous", "range": [0, 1], "labels": ["a", "b"]}}}, "'size'.*labe"),
        ({"nodes": {**NODES, "size": {**NODES["size"], "range": [0, 1]}}}, "'size'.*`range` and `unit` expect"),
        ({"nodes": {**NODES, "size": {**NODES["size"], "colour": 1}}}, r"'size'.*expects keys among .*, got 'colour'"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CausalGraph(**{"nodes": NODES, "edges": EDGES, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expects a causal graph as JSON"),
        ("[]", "expects a `dict` with 'nodes' and 'edges', got list"),
        ('{"nodes": {}}', r"got \['nodes'\]"),
        ('{"nodes": {}, "edges": [], "arrows": 1}', r"got \['arrows'\] as well"),
    ],
)
def test_file_that_holds_no_graph_is_refused_by_its_name(tmp_path, text, message):
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        CausalGraph.from_json(path)
    assert repr(str(path)) in str(caught.value)


def test_values_are_read_in_the_order_of_the_graph(graph):
    values = graph.check_values(
        {"intensity": np.array([64, 255]), "size": "large", "digit": ["two", "zero"], "thickness": 2}, 2, "attributes"
    )
    assert list(values) == list(graph.attributes)
    assert {name: value.dtype for name, value in values.items()} == {
        "digit": torch.int64,
        "size": torch.int64,
        "thickness": torch.float32,
        "intensity": torch.float32,
    }
    assert {name: value.tolist() for name, value in values.items()} == {
        "digit": [2, 0],
        "size": [2, 2],
        "thickness": [2, 2],
        "intensity": [64, 255],
    }
    assert graph.check_values({"digit": torch.tensor([1, 2])}, 2, "do")["digit"].tolist() == [1, 2]
    assert graph.check_values({}, 2, "do") == {}


def test_end_of_a_range_that_rounds_in_float32_is_in_the_range():
    node = Node("continuous", range=(0.1, 0.3))
    assert node.check([0.1, 0.3], 2, "do['a']").tolist() == pytest.approx([0.1, 0.3])


def test_numbers_are_labels_where_labels_are_numbers():
    grade, some = (Node("ordinal", labels=labels) for labels in (("1", "2", "3"), ("1", "2", "more")))
    for value in (3, "3", [3], np.array([3]), torch.tensor([2])):
        assert grade.check(value, 1, "do['grade']").tolist() == [2]
    for wrong in (0, [4], torch.tensor(3)):
        with pytest.raises(ValueError, match=r"`do\['grade'\]` expects"):
            grade.check(wrong, 1, "do['grade']")
    assert some.check("1", 1, "do['grade']").tolist() == some.check(torch.tensor(0), 1, "do").tolist() == [0]
    with pytest.raises(ValueError, match="expects text, as only some of the labels .* 1 may be a label or an index"):
        some.check(1, 1, "do['grade']")
    digits = Node("categorical", labels=[*map(str, range(10))])
    assert digits.check(7, 1, "do['digit']").tolist() == digits.check("7", 1, "do['digit']").tolist() == [7]


def test_columns_of_numbers_have_the_same_rule():
    graph = CausalGraph({"grade": {"kind": "ordinal", "labels": ["1", "2", "3"]}}, [("grade", "image")])
    column = [3, 1, 2]
    classes = Features({"grade": ClassLabel(names=["3", "2", "1"])})
    for table in (
        pd.DataFrame({"grade": column}),
        Dataset.from_dict({"grade": column}),
        {"grade": torch.tensor([2, 0, 1])},
        Dataset.from_dict({"grade": [0, 2, 1]}, classes),
    ):
        assert read_table(graph, table)["grade"].tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match=r"`table\['grade'\]` expects .* numbers among \[1, 2, 3\], got 0 in row 1"):
        read_table(graph, pd.DataFrame({"grade": [1, 0]}))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"hue": 1}, ValueError, r"`do` expects attributes among .*, got 'hue'"),
        ({"image": 1}, ValueError, "got 'image', which is the image"),
        ({"thickness": 9}, ValueError, r"`do\['thickness'\]` expects values in \[0.5, 8\] pixels, got 9"),
        ({"thickness": [1, float("nan")]}, ValueError, r"'thickness'.*got nan"),
        ({"thickness": [1, 2, 3]}, ValueError, r"'thickness'.*one value or shape \(2,\), got shape \(3,\)"),
        ({"thickness": "thick"}, TypeError, "'thickness'.*expects numbers, got 'thick'"),
        ({"thickness": True}, TypeError, "'thickness'.*expects numbers"),
        ({"thickness": None}, TypeError, "'thickness'.*expects numbers"),
        ({"digit": "three"}, ValueError, r"'digit'.*labels among \['zero', 'one', 'two'\], got 'three'"),
        ({"digit": 3}, ValueError, r"'digit'.*numbers among \[0, 1, 2\], got 3"),
        ({"digit": torch.tensor(3)}, ValueError, r"'digit'.*values in \[0, 2\], got 3"),
        ({"digit": 1.0}, TypeError, "'digit'.*labels or their indices, got torch.float32"),
        ({"size": ["small", 1]}, TypeError, "'size'.*labels or their indices"),
        ([1, 2], TypeError, "`do` expects a `dict`"),
    ],
)
def test_values_that_do_not_fit_their_node_are_refused(graph, values, error, message):
    with pytest.raises(error, match=message):
        graph.check_values(values, 2, "do")


def test_missing_value_is_named(graph):
    with pytest.raises(
        ValueError, match=r"`attributes` expects a value of each .*, got none of \['size', 'intensity'\]"
    ):
        graph.check_values({"digit": 1, "thickness": 1}, 2, "attributes", names=graph.attributes)


def test_condition_holds_scaled_values_and_one_hot_labels(graph):
    values = graph.check_values(
        {"digit": [1, 2, 0], "size": [0, 1, 2], "thickness": [0.5, 4.25, 8], "intensity": [64, 255, 159.5]},
        3,
        "values",
    )
    condition = graph.condition(values)
    assert condition.dtype == torch.float32
    assert condition.tolist() == [[0, 1, 0, -1, -1, -1], [0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0]]
    for name, value in graph.values(condition).items():
        assert value.dtype == values[name].dtype
        assert torch.equal(value, values[name])


def test_values_of_any_condition_are_the_nearest_labels(graph):
    values = graph.values(torch.tensor([[0.2, 0.1, 0.3, 5.0, 0.0, 0.0], [3.0, 0.0, 0.0, -0.6, 0.0, 0.0]]))
    assert values["digit"].tolist() == [2, 0]
    assert values["size"].tolist() == [2, 0]


def test_condition_is_refused_without_all_causes_or_of_another_width(graph):
    with pytest.raises(ValueError, match=r"got none of \['size'"):
        graph.condition({"digit": torch.tensor([1])})
    with pytest.raises(ValueError, match=r"expects shape \(num_samples, 6\), got \(1, 5\)"):
        graph.values(torch.zeros(1, 5))


def test_plot_marks_interventions_and_what_is_held(graph):
    ax = graph.plot(do="intensity", hold="size")
    assert {text.get_text() for text in ax.texts} == {*graph.attributes, "image"}
    dotted = [patch for patch in ax.patches if patch.get_linestyle() in (":", "dotted")]
    assert len(dotted) == 2
    assert len(ax.patches) == len(EDGES)
    (nodes,) = ax.collections
    assert sum(to_hex(color) == "#f4b183" for color in nodes.get_facecolor()) == 1
    assert sum(to_hex(color) == "#0072b2" for color in nodes.get_edgecolor()) == 1


def test_mermaid_text_has_every_edge_and_says_which_are_cut(graph):
    text = graph.mermaid(do="intensity", hold="size")
    ids = {name: key for key, name in re.findall(r'(n\d+)[\(\[/]+"(?:do: |hold: )?(.+?)"', text)}
    assert set(ids) == {*graph.attributes, "image"}
    arrows = {(parent, child): arrow for parent, arrow, child in re.findall(r"(n\d) (-.+>) (n\d)", text)}
    expected = {
        (ids[parent], ids[child]): "-. cut .->" if child in ("intensity", "size") else "-->" for parent, child in EDGES
    }
    assert arrows == expected
    assert '"do: intensity"' in text and '"hold: size"' in text


def test_pictures_refuse_what_is_no_attribute_or_both_set_and_held(graph):
    for draw in (graph.plot, graph.mermaid):
        with pytest.raises(ValueError, match="`do` expects attributes among .*, got 'image'"):
            draw(do="image")
        with pytest.raises(ValueError, match=r"`hold` expects other .* got \['size'\] in both"):
            draw(do=["size", "digit"], hold="size")


def test_order_of_attributes_is_topological_in_random_graphs():
    generator = np.random.default_rng(0)
    for _ in range(20):
        names = [f"v{index}" for index in generator.permutation(8)]
        edges = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if generator.random() < 0.4]
        graph = CausalGraph({name: Node("continuous", (0, 1)) for name in names}, [*edges, (names[-1], "image")])
        assert all(graph.attributes.index(a) < graph.attributes.index(b) for a, b in edges)
        reference = networkx.DiGraph(edges)
        reference.add_nodes_from(names)
        assert all(graph.descendants(name) == networkx.descendants(reference, name) for name in names)
