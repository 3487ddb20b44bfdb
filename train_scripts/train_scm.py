# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Fits the mechanisms of an image's attributes: what becomes of the others when some are intervened on.

    python train_scripts/train_scm.py --graph graph.json --table attributes.csv --output_dir outputs/scm

The output folder is a `StructuralCausalModel`. The columns are called as the graph's attributes. Images are not read.
Labels can be numbers; where they are not, numbers are their indices, from 0.
"""

import argparse
import sys
from pathlib import Path

from diffscm_diffusers.flags import (
    ArgumentParser,
    add_publication_arguments,
    bad_input_in_one_line,
    non_negative_int,
    positive_float,
    positive_int,
    value_of,
)
from diffscm_diffusers.refusals import (
    check_file,
    check_json,
    check_name_or_path,
    check_output_dir,
    check_publication,
    refuse_early,
)


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import pandas as pd
from datasets import load_dataset

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.files import locked, save_whole
from diffscm_diffusers.hub.publishing import create_repository
from diffscm_diffusers.models import StructuralCausalModel
from diffscm_diffusers.training.publication import publish_component


DESCRIPTION = """
Mechanisms of an image's attributes on a causal graph: a continuous attribute is an exactly invertible flow of its
exogenous noise, a categorical or ordinal one is drawn by Gumbel-max.

```mermaid
{graph}```

```python
from diffscm_diffusers import StructuralCausalModel

scm = StructuralCausalModel.from_pretrained("{name}")
```
""".strip()


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True, help="JSON file of a causal graph.")
    data = parser.add_argument_group("data, one of the two")
    data.add_argument("--table", help="Table of attributes, a row for each image: a `.csv` or a `.parquet` file.")
    data.add_argument("--dataset_name", help="Data set: a Hub name or a local folder that `datasets` loads.")
    data.add_argument("--dataset_config_name", help="Configuration of the data set, where it has several.")
    data.add_argument("--train_split", default="train", help="Split of the data set to fit to.")
    data.add_argument("--cache_dir", help="Where data sets and pretrained weights are cached.")

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--max_train_steps", type=positive_int, default=1000, help="Optimizer steps in all.")
    optimisation.add_argument("--train_batch_size", type=positive_int, default=1024, help="Rows per step.")
    optimisation.add_argument("--learning_rate", type=positive_float, default=5e-3, help="AdamW's, at the first step.")
    optimisation.add_argument("--seed", type=non_negative_int, default=0, help="Seed of weights and data order.")

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", required=True, help="Where the model is written.")
    add_publication_arguments(output)
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    if (args.table is None) == (args.dataset_name is None):
        got = "neither" if args.table is None else "both"
        raise ValueError(f"`--table` or `--dataset_name` is expected, one of the two, got {got}.")
    check_json("graph", args.graph, "the JSON file of a causal graph")
    if args.table is not None:
        if Path(args.table).suffix.lower() not in (".csv", ".parquet"):
            raise ValueError(f"`--table` expects a `.csv` or a `.parquet` file, got {args.table!r}.")
        check_file("table", args.table, "a table that can be read")
    check_name_or_path("dataset_name", args.dataset_name, "a data set, a Hub name or a folder")
    check_output_dir(args.output_dir)
    check_publication(vars(args))


def read_file(path: str) -> pd.DataFrame:
    """Reads a table. In a text file, what looks like a number is one."""
    try:
        return pd.read_parquet(path) if Path(path).suffix.lower() == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"`--table` expects a table that can be read, got {path!r}: {error}") from error


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    with value_of("graph", args.graph, "the JSON file of a causal graph"):
        graph = CausalGraph.from_json(args.graph)
    if args.table is not None:
        table = read_file(args.table)
    else:
        with value_of("dataset_name", args.dataset_name, "a data set, a Hub name or a folder"):
            table = load_dataset(
                args.dataset_name, args.dataset_config_name, split=args.train_split, cache_dir=args.cache_dir
            )
    # Before the fit, so that a missing login shows early.
    if args.push_to_hub:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    with locked(args.output_dir):
        scm = StructuralCausalModel(graph)
        scm.fit(
            table,
            num_steps=args.max_train_steps,
            batch_size=args.train_batch_size,
            learning_rate=args.learning_rate,
            seed=args.seed,
        )
        save_whole(scm, args.output_dir)
        name = args.hub_model_id or args.output_dir
        publish_component(
            args.output_dir,
            DESCRIPTION.format(name=name, graph=graph.mermaid()),
            script=Path(__file__).name,
            argv=sys.argv[1:] if argv is None else argv,
            num_steps=args.max_train_steps,
            split=args.train_split,
            dataset_name=args.dataset_name or Path(args.table).name,
            hub_model_id=args.hub_model_id,
        )


if __name__ == "__main__":
    with bad_input_in_one_line(Path(__file__).name):
        main()
