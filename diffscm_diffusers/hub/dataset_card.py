# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The card of a counterfactual data set."""

import os
import shlex
import sys
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from diffscm_diffusers.generation.parquet_files import ChunkFolder
from diffscm_diffusers.training.checkpoints import UNFINISHED_PREFIX


LIBRARIES = ("diffscm-diffusers", "torch", "diffusers", "datasets")


def write_dataset_card(
    args: Namespace, settings: dict, chunks: ChunkFolder, names: list[str], argv: list[str] | None
) -> str:
    """
    Writes `README.md`: what the data set holds, how it was made, and what it is not fit for.

    Args:
        args (`argparse.Namespace`): The script's.
        settings (`dict`): Everything that the counterfactuals depend on.
        chunks ([`ChunkFolder`]): The complete data set.
        names (`list[str]`): The checkpoint's class names.
        argv (`list[str]`, *optional*): The flags that the script was called with. Default: this process' command line.

    Returns:
        `str`: a line that says how many counterfactuals there are and how many of them show their target.
    """
    num_rows = num_hits = num_factuals = 0
    has_classes = False
    for path in chunks.starts().values():
        table = pq.read_table(path, columns=["index", "target_probability"])
        num_rows += len(table)
        num_factuals += len(table["index"].unique())
        num_hits += sum(probability > 0.5 for probability in table["target_probability"].to_pylist())
        has_classes = "factual_class" in pq.read_schema(path).names
    result = (
        f"{num_rows} counterfactuals of {num_factuals} factuals; the anti-causal predictor gives {num_hits} of them a "
        "target probability above 0.5."
    )

    source = args.dataset_name or args.train_data_dir
    on_hub = args.dataset_name is not None and not os.path.exists(args.dataset_name)
    source_name = f"[{source}](https://huggingface.co/datasets/{source})" if on_hub else f"`{Path(source).name}`"
    repository = args.hub_dataset_id or args.output_dir
    launch = ["accelerate", "launch", "diffscm generate"]
    command = shlex.join([*launch, *(sys.argv[1:] if argv is None else argv)])
    metadata = DatasetCardData(
        tags=["diffscm-diffusers", "causality", "counterfactual"],
        task_categories=["image-classification"],
        source_datasets=[source] if on_hub else None,
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": chunks.split, "path": f"{chunks.folder.name}/{chunks.split}-*.parquet"}],
            }
        ],
    )
    columns = {
        "index": "row of the factual in the source's split",
        "factual": "the factual as the causal model saw it, 8 bits per channel",
        **({"factual_class": "its class"} if has_classes else {}),
        "counterfactual": "how it would look, had its class been `target`; rounded to 8 bits per channel",
        "target": "the class of the intervention",
        "target_probability": "probability of `target` under the anti-causal predictor, given the counterfactual",
        "difference": "counterfactual minus factual before rounding, float32 in [-1, 1], (height, width, channels)",
    }
    card = DatasetCard(
        f"""---
{metadata.to_yaml()}
---

# {Path(repository).name}

Counterfactual images: how would each image of the split `{chunks.split}` of {source_name} look, had its class been
another? Estimated by [Diff-SCM](https://huggingface.co/papers/2202.10166) with the causal model
`{args.pretrained_model_name_or_path}` of {len(names)} classes.

{result}

```py
from datasets import load_dataset

counterfactuals = load_dataset("{repository}", split="{chunks.split}")
```

| column | meaning |
| --- | --- |
{chr(10).join(f"| `{name}` | {meaning} |" for name, meaning in columns.items())}

The unrounded counterfactual is `factual / 255 + difference`.

## Limits

These images are estimates of a model, not observations. They take the class for the only cause that is intervened on
and hold all others fixed only as far as abduction was exact. `target_probability` comes from the network that guided
the images: judge them by one of your own. The licence and the limits of the source's images apply to these as well.

## Settings

| setting | value |
| --- | --- |
{chr(10).join(f"| `{name}` | `{value}` |" for name, value in settings.items())}

```bash
{command}
```

with {", ".join(f"{library} {version(library)}" for library in LIBRARIES)}.
"""
    )
    path = Path(args.output_dir, "README.md")
    unfinished = path.with_name(UNFINISHED_PREFIX + path.name)
    card.save(unfinished)
    os.replace(unfinished, path)
    return result
