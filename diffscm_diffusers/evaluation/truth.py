# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The true counterfactuals that a world's data set carries, and the attributes that they are measured by."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import ClassLabel, Dataset, Image

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import DecodedImages, ImageCollator, read_attributes
from diffscm_diffusers.metrics.functional import counterfactual_error

from .measuring import MeasuringNetwork
from .pairs import COUNTERFACTUAL_COLUMN, INTERVENTION_COLUMN, Pairs


def has_truth(rows: Dataset) -> bool:
    """
    Whether rows hold an intervention each, and the true counterfactual under it, as the test split of
    `diffscm make-world typeface` does.

    Raises:
        ValueError: if some of them do, and others do not.
    """
    if not isinstance(rows.features.get(INTERVENTION_COLUMN), ClassLabel) or not isinstance(
        rows.features.get(COUNTERFACTUAL_COLUMN), Image
    ):
        return False
    missing = [row for row, value in enumerate(rows[INTERVENTION_COLUMN][:]) if value is None]
    if missing and len(missing) < len(rows):
        raise ValueError(
            f"Column {INTERVENTION_COLUMN!r} expects an intervention in every row, or in none, got none in row "
            f"{missing[0]} (from 0)."
        )
    return not missing


def find_attributes(dataset_name: str | None, rows: Dataset, label_column: str) -> tuple[CausalGraph | None, str]:
    """
    The attributes that counterfactuals of a world are measured by: the causes of its images, and the exogenous noise
    that has a meaning of its own. What the class causes is left out, as the data do not say what it would have become.

    Args:
        dataset_name (`str`, *optional*): The data set: a local folder, with the world's `graph.json`, or another.
        rows (`datasets.Dataset`): Rows with true counterfactuals.
        label_column (`str`): Column with the class.

    Returns:
        `tuple`: a graph in which each of the attributes causes the image, and the one that is the class. `None` and an
        empty string where no graph is known, or none of its attributes is the class.
    """
    path = Path(dataset_name or "", "graph.json")
    if dataset_name is None or not path.is_file():
        return None, ""
    world = json.loads(path.read_text())
    graph = CausalGraph.from_dict(world)
    labels = rows[label_column][:]
    causes = [name for name in graph.image_parents if name in rows.features and rows[name][:] == labels]
    if not causes:
        return None, ""
    left_out = graph.descendants(causes[0])
    nodes = {name: graph.nodes[name] for name in graph.image_parents if name not in left_out}
    nodes = {
        name: node for name, node in {**nodes, **world.get("exogenous_noise", {})}.items() if name in rows.features
    }
    return CausalGraph(nodes, [[name, "image"] for name in nodes]), causes[0]


@dataclass
class Truth:
    """
    What would have been.

    Args:
        images (`DecodedImages`): The true counterfactual of each pair.
        graph ([`CausalGraph`], *optional*): The attributes that are measured; see [`find_attributes`].
        attributes (`dict[str, torch.Tensor]`): Their values in the true counterfactuals, of shape `(num_pairs,)`.
        reference_attributes (`dict[str, torch.Tensor]`): Their values in the reference images.
    """

    images: DecodedImages
    graph: CausalGraph | None
    attributes: dict[str, torch.Tensor]
    reference_attributes: dict[str, torch.Tensor]

    @property
    def attribute_labels(self) -> dict[str, str]:
        """`dict[str, str]`: the scores of attributes, and what tables call them, with their unit."""
        labels = {}
        for name, node in ({} if self.graph is None else self.graph.nodes).items():
            unit = f" ({node.unit})" if node.unit not in (None, "1") else ""
            labels[f"error_{name}"] = f"wrong {name}" if node.kind == "categorical" else f"error of {name}{unit}"
        return labels

    def score(self, counterfactual: torch.Tensor, network: MeasuringNetwork | None) -> dict[str, torch.Tensor]:
        """
        Errors of one method's images, each of shape `(num_pairs,)`.

        Args:
            counterfactual (`torch.Tensor` of shape `(num_pairs, channels, height, width)`): Images in [0, 1].
            network ([`MeasuringNetwork`], *optional*): Measures their attributes.

        Returns:
            `dict[str, torch.Tensor]`: `error_l1` and `error_rms`, the mean absolute and the root mean square
            difference of pixels, and with a network `error_<attribute>`: of a number the absolute difference from the
            truth, in its unit, of a category 1 if it is another one.
        """
        truth = self.images.images(slice(None))
        scores = {
            "error_l1": counterfactual_error(counterfactual, truth, "l1"),
            "error_rms": counterfactual_error(counterfactual, truth, "l2"),
        }
        if network is not None:
            for name, value in network.measure(counterfactual).items():
                is_category = self.graph.nodes[name].kind == "categorical"
                difference = (value.double() - self.attributes[name].double()).abs()
                scores[f"error_{name}"] = (difference > 0).double() if is_category else difference
        return scores


def load_truth(
    dataset_name: str | None,
    rows: Dataset,
    reference_rows: Dataset,
    pairs: Pairs,
    collate: ImageCollator,
    class_names: list[str],
    show_progress: bool = True,
) -> Truth:
    """
    Reads the true counterfactuals of pairs.

    Args:
        dataset_name (`str`, *optional*): The data set; see [`find_attributes`].
        rows (`datasets.Dataset`): The split of the factuals, which [`has_truth`].
        reference_rows (`datasets.Dataset`): The reference images.
        pairs (`Pairs`): The pairs.
        collate (`ImageCollator`): Reads the factuals.
        class_names (`list[str]`): The classes that `pairs` has indices of.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars.
    """
    factual_rows = rows.select(pairs.row)
    collate_truth = ImageCollator(collate.resolution, 3 if collate.mode == "RGB" else 1, COUNTERFACTUAL_COLUMN)
    images = DecodedImages(
        factual_rows.select_columns([COUNTERFACTUAL_COLUMN]), collate_truth, "Reading truth", show_progress
    )
    graph, cause = find_attributes(dataset_name, rows, collate.label_column)
    if graph is None:
        return Truth(images, None, {}, {})
    names = list(graph.image_parents)
    attributes, reference_attributes = (
        read_attributes(selected.select_columns(names)[:], graph, source)
        for selected, source in ((factual_rows, "the factuals"), (reference_rows, "the references"))
    )
    # The noise stays as it was, and so do the other causes.
    interventions = [class_names[c] for c in pairs.intervention.tolist()]
    attributes[cause] = graph.nodes[cause].check(interventions, len(pairs), "intervention")
    return Truth(images, graph, attributes, reference_attributes)
