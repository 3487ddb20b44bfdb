# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The card of a data set that a world rendered."""

import inspect
import json
from importlib.metadata import version

from huggingface_hub import DatasetCard, DatasetCardData

from diffscm_diffusers.worlds import World


LIBRARIES = ("diffscm-diffusers", "torch", "numpy", "pillow", "datasets")


def make_world_card(
    name: str, world: World, interventions: dict[str, tuple[str, str]], settings: dict, command: str
) -> DatasetCard:
    """
    Makes the card of a data set: its columns, the world that it comes from, and how to make it again.

    Args:
        name (`str`): Name of the data set.
        world ([`World`]): The world of the training images.
        interventions (`dict[str, tuple[str, str]]`):
            The variables that the test split intervenes on, with the columns of their values and counterfactuals.
        settings (`dict`): All that the images depend on, as JSON holds it.
        command (`str`): The command line that makes the data set.
    """
    metadata = DatasetCardData(
        tags=["diffscm-diffusers", "causality", "counterfactual"],
        task_categories=["image-classification"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in ("train", "test")],
            }
        ],
    )

    columns = {"image": "the factual"}
    for kind, nodes in (("variable", world.graph["nodes"]), ("exogenous noise", world.graph["exogenous_noise"])):
        for node_name, node in nodes.items():
            unit = f", in {node['unit']}" if node.get("unit", "1") != "1" else ""
            columns["label" if node_name == "digit" else node_name] = f"{kind}: {node_name.replace('_', ' ')}{unit}"
    for node_name, (value_column, image_column) in interventions.items():
        columns[value_column] = f"test only: value of `do({node_name})`"
        columns[image_column] = f"test only: the true counterfactual under `do({node_name})`"

    return DatasetCard(
        f"""---
{metadata.to_yaml()}
---

# {name}

Images of a world, a structural causal model that renders, and their true counterfactuals: the same exogenous noise,
rendered under an intervention.

```py
from datasets import load_dataset

images = load_dataset("{name}")
```

| column | meaning |
| --- | --- |
{chr(10).join(f"| `{column}` | {meaning} |" for column, meaning in columns.items())}

Columns that end in `_noise` are the exogenous noise of the variable that they name. Images have 8 bits per channel,
and so have the true counterfactuals: the world rounds both to multiples of 1/255, and nothing more is lost here. A
digit to intervene with is drawn uniformly from the nine others; any other value is that of the row before, which is
independent of the row.

## World

`{type(world).__name__}`, with the edges {", ".join(f"{parent} → {child}" for parent, child in world.graph["edges"])}.

{inspect.getdoc(type(world)).split("Args:")[0].strip()}

## Settings

```json
{json.dumps(settings, indent=2)}
```

```bash
{command}
```

makes the data set again, with {", ".join(f"{library} {version(library)}" for library in LIBRARIES)}.
"""
    )
