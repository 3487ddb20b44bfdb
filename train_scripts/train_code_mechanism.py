# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Fits the mechanism of a semantic code: what in the code is exogenous, and what the causes made.

    python train_scripts/train_code_mechanism.py --encoder outputs/typeface-encoder \
        --dataset_name outputs/typeface --output_dir outputs/typeface-encoder-with-mechanism

The output folder is the encoder, a `SemanticEncoder2DModel`, with the mechanism. The cause is the class of
`--label_column` or, with `--graph`, all parents of the image in a causal graph, each in the column of its name. A
denoiser of the encoder needs no further training, as the code and what it means stay the same.
"""

import argparse
import sys
from pathlib import Path

from diffscm_diffusers.flags import (
    ArgumentParser,
    add_data_arguments,
    add_publication_arguments,
    bad_input_in_one_line,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    value_of,
)
from diffscm_diffusers.refusals import (
    check_data_source,
    check_json,
    check_name_or_path,
    check_output_dir,
    check_publication,
    refuse_early,
)


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import ImageCollator, load_flagged_dataset
from diffscm_diffusers.files import locked, save_whole
from diffscm_diffusers.hub.publishing import create_repository
from diffscm_diffusers.training.code_mechanism import fit_code_mechanism, read_codes
from diffscm_diffusers.training.components import load_encoder
from diffscm_diffusers.training.publication import publish_component


DESCRIPTION = """
A semantic code of images given their causes, the images that a code means under any causes, and a mechanism: an
invertible map from the code to exogenous noise whose law is the same under all causes.

```python
from diffscm_diffusers import SemanticEncoder2DModel

encoder = SemanticEncoder2DModel.from_pretrained("{name}")
```

`diffscm join-checkpoint` joins it and a denoiser.
""".strip()


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="Encoder that the mechanism is for: a Hub name or a folder.")
    data = add_data_arguments(parser)
    data.add_argument("--train_split", default="train", help="Split whose codes the mechanism is fitted to.")
    data.add_argument(
        "--graph", help="JSON file of a causal graph. Its image's parents are the causes, instead of `--label_column`."
    )
    data.add_argument(
        "--causes",
        nargs="+",
        help="Causes that the mechanism is told, with `--graph`: those that the code says something of. Default: all.",
    )
    data.add_argument("--encoding_batch_size", type=positive_int, default=500, help="Images encoded at once.")

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument(
        "--displacement_weight",
        type=non_negative_float,
        default=0.0003,
        help="What it costs to move codes. More keeps them, less makes their noise independent of the causes.",
    )
    optimisation.add_argument(
        "--hidden_features", type=positive_int, default=128, help="Width of the mechanism's hidden layers."
    )
    optimisation.add_argument("--max_train_steps", type=positive_int, default=3000, help="Optimizer steps in all.")
    optimisation.add_argument("--train_batch_size", type=positive_int, default=512, help="Codes per step.")
    optimisation.add_argument("--learning_rate", type=positive_float, default=3e-3, help="AdamW's, after the warm-up.")
    optimisation.add_argument("--seed", type=non_negative_int, default=0, help="Seed of weights and draws.")

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", required=True, help="Where the encoder with its mechanism is written.")
    add_publication_arguments(output)
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    check_name_or_path("encoder", args.encoder, "a `SemanticEncoder2DModel`, a Hub name or a folder")
    check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    if args.graph is not None:
        check_json("graph", args.graph, "the JSON file of a causal graph")
    elif args.causes is not None:
        raise ValueError(f"`--causes` expects a `--graph`, which names them, got {args.causes} alone.")
    check_output_dir(args.output_dir)
    check_publication(vars(args))


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    graph = None
    if args.graph is not None:
        with value_of("graph", args.graph, "the JSON file of a causal graph"):
            graph = CausalGraph.from_json(args.graph)
        unknown = sorted({*(args.causes or ())} - {*graph.image_parents})
        if unknown:
            raise ValueError(f"`--causes` expects parents of the image, {list(graph.image_parents)}, got {unknown}.")
    label_column = args.label_column if graph is None else None
    dataset = load_flagged_dataset(args, "train_split", label_column, graph)[args.train_split]
    if graph is None:
        graph = CausalGraph.of_classes(args.label_column, dataset.features[args.label_column].names, args.image_column)
    widths = graph.condition_widths
    is_told = [name in (args.causes or widths) for name, width in widths.items() for _ in range(width)]
    encoder = load_encoder(args.encoder, graph, args.cache_dir)
    # Before the fit, so that a missing login shows early.
    if args.push_to_hub:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    with locked(args.output_dir):
        collate = ImageCollator(encoder.config.sample_size, encoder.config.in_channels, args.image_column, graph=graph)
        batches = tqdm(DataLoader(dataset, args.encoding_batch_size, collate_fn=collate), desc="Codes")
        codes = read_codes(encoder, ((batch["pixel_values"], batch["condition"]) for batch in batches))
        displacement = fit_code_mechanism(
            encoder,
            *codes,
            is_told=torch.tensor(is_told),
            hidden_features=args.hidden_features,
            displacement_weight=args.displacement_weight,
            num_steps=args.max_train_steps,
            batch_size=args.train_batch_size,
            learning_rate=args.learning_rate,
            seed=args.seed,
        )
        tqdm.write(f"The noise lies {displacement:.2f} posterior standard deviations from the code.")
        save_whole(encoder, args.output_dir)
        name = args.hub_model_id or args.output_dir
        publish_component(
            args.output_dir,
            DESCRIPTION.format(name=name),
            script=Path(__file__).name,
            argv=sys.argv[1:] if argv is None else argv,
            num_steps=args.max_train_steps,
            split=args.train_split,
            dataset_name=args.dataset_name,
            train_data_dir=args.train_data_dir,
            hub_model_id=args.hub_model_id,
        )


if __name__ == "__main__":
    with bad_input_in_one_line(Path(__file__).name):
        main()
