# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Makes a data set of counterfactuals from a data set of images.

    diffscm generate --dataset_name ylecun/mnist --split test \
        --label_column label --interventions other \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist --output_dir outputs/mnist-counterfactuals

The folder holds parquet files that `datasets.load_dataset` reads: one per `--chunk_size` factuals, written whole or
not at all. A run that was interrupted goes on when started anew. See docs/generation.md.
"""

import argparse
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.classes import match_classes, unique_names
from diffscm_diffusers.data.image_files import report_left_out
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import record_settings
from diffscm_diffusers.evaluation.fingerprint import fingerprint
from diffscm_diffusers.evaluation.pipelines import complete_settings
from diffscm_diffusers.files import locked
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_data_arguments,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    value_of_checkpoint,
)
from diffscm_diffusers.generation.generator import CounterfactualGenerator
from diffscm_diffusers.generation.interventions import Interventions
from diffscm_diffusers.generation.parquet_files import ChunkFolder, counterfactual_features, split_rows
from diffscm_diffusers.hub.cards import make_dataset_card, save_card
from diffscm_diffusers.hub.publishing import create_repository, upload_folder
from diffscm_diffusers.refusals import check_checkpoint, check_data_source, check_output_dir, check_publication


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = add_data_arguments(parser, labels=False)
    data.add_argument("--label_column", help="Column with the class labels, the cause. Default: they are not known.")
    data.add_argument("--split", default="train", help="Split of the factuals.")
    data.add_argument("--streaming", action="store_true", help="Read the data set on the way, without a copy on disk.")
    data.add_argument("--max_samples", type=positive_int, help="How many factuals, from the first. Default: all.")

    model = parser.add_argument_group("causal model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        required=True,
        help="`DiffSCMCounterfactualPipeline`: a Hub name or a local folder.",
    )
    model.add_argument("--revision", help="Branch, tag or commit of the Hub's repository.")
    model.add_argument("--variant", help="Weights of this variant, such as `fp16`.")
    model.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="Precision of the networks. The images between their steps are float32.",
    )
    model.add_argument(
        "--interventions",
        nargs="+",
        default=["other"],
        help="`all` classes, all `other` than the factual's, a `random` one of these, or names of classes, as "
        "`class:NAME` where they are called like these words.",
    )
    model.add_argument("--preset", help="Settings of the checkpoint, by name, instead of its defaults.")
    model.add_argument("--guidance_scale", type=non_negative_float, help="Default: the preset's or the checkpoint's.")
    model.add_argument(
        "--num_inference_steps",
        type=positive_int,
        help="Steps in each direction. Default: the preset's or the checkpoint's.",
    )
    model.add_argument("--strength", type=positive_float, default=1.0, help="Fraction of the steps, in (0, 1].")
    model.add_argument("--seed", type=non_negative_int, default=0, help="Seed of `--interventions random`.")

    output = parser.add_argument_group("output")
    output.add_argument("--output_dir", required=True, help="Where the data set is written; a restart goes on there.")
    output.add_argument("--batch_size", type=positive_int, default=100, help="Images that the networks see at once.")
    output.add_argument(
        "--chunk_size", type=positive_int, default=100, help="Factuals per file; one is computed anew after a kill."
    )
    output.add_argument("--push_to_hub", action="store_true", help="Publish the data set, after `hf auth login`.")
    output.add_argument("--hub_dataset_id", help="Repository to publish to. Default: the output folder's name.")
    output.add_argument("--hub_private_repo", action="store_true", help="Make that repository a private one.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    check_publication(vars(args), "hub_dataset_id")
    check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    check_checkpoint(args.pretrained_model_name_or_path)
    check_output_dir(args.output_dir)
    if args.guidance_scale == 0:
        raise ValueError("`--guidance_scale` expects a number above 0, got 0, which makes reconstructions.")
    if args.strength > 1:
        raise ValueError(f"`--strength` expects a fraction of the steps, in (0, 1], got {args.strength}.")
    if args.label_column is None and args.interventions in (["other"], ["random"]):
        raise ValueError(
            f"`--interventions` {args.interventions[0]!r} expects factuals of known classes: name their "
            "`--label_column`, got none."
        )


def limit_rows(
    dataset: Dataset | IterableDataset, split: str, max_samples: int | None
) -> tuple[Dataset | IterableDataset, int | None]:
    """The first rows of a split, and how many they are if that is known."""
    if isinstance(dataset, Dataset):
        num_rows = len(dataset)
    else:
        num_rows = dataset.info.splits[split].num_examples if dataset.info.splits else None
    if max_samples is None:
        return dataset, num_rows
    num_rows = min(num_rows or max_samples, max_samples)
    return dataset.take(num_rows), num_rows


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    # One process may wait for another's last chunk.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))])
    with accelerator.main_process_first():
        with value_of_checkpoint(args.pretrained_model_name_or_path):
            pipe = DiffSCMCounterfactualPipeline.from_pretrained(
                args.pretrained_model_name_or_path,
                revision=args.revision,
                variant=args.variant,
                dtype=getattr(torch, args.dtype),
                cache_dir=args.cache_dir,
                use_safetensors=True,
            ).to(accelerator.device)
        dataset = load_image_dataset(
            args.dataset_name,
            args.train_data_dir,
            dataset_config_name=args.dataset_config_name,
            split=args.split,
            image_column=args.image_column,
            label_column=args.label_column,
            cache_dir=args.cache_dir,
            streaming=args.streaming,
        )[args.split]
    pipe.set_progress_bar_config(disable=True)
    names = unique_names(pipe.classifier.id2label)
    has_classes = args.label_column is not None
    classes = match_classes(dataset.features[args.label_column].names, names) if has_classes else None
    interventions = Interventions(args.interventions, names, has_classes, args.seed)
    call = complete_settings(pipe, args.preset, args.num_inference_steps, args.guidance_scale, strength=args.strength)
    if call["guidance_scale"] == 0:
        raise ValueError("`--guidance_scale` expects a number above 0, got 0, which makes reconstructions.")
    call["strength"] = args.strength

    output_dir = Path(args.output_dir)
    chunks = ChunkFolder(output_dir / "data", args.split)
    settings = {
        "dataset_name": args.dataset_name,
        "dataset_config_name": args.dataset_config_name,
        "train_data_dir": args.train_data_dir,
        "split": args.split,
        "image_column": args.image_column,
        "label_column": args.label_column,
        "max_samples": args.max_samples,
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "weights": fingerprint(pipe),
        "dtype": args.dtype,
        "interventions": args.interventions,
        **call,
        "seed": args.seed,
        # The last digits of a network's output depend on the images beside it.
        "batch_size": args.batch_size,
        "chunk_size": args.chunk_size,
    }
    with locked(output_dir) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            record_settings(output_dir, settings)
        if accelerator.is_main_process:
            chunks.remove_unfinished()
            if args.push_to_hub:
                # Before the work, so that a missing login shows early.
                repository = create_repository(
                    args.hub_dataset_id, output_dir, repo_type="dataset", private=args.hub_private_repo or None
                )
        done = chunks.starts()
        accelerator.wait_for_everyone()  # all have looked before the first one writes

        channels, height, _ = pipe.image_shape
        collate = ImageCollator(height, channels, args.image_column, args.label_column)
        generator = CounterfactualGenerator(
            pipe, interventions, collate, classes, args.batch_size, **call, skip_broken=args.skip_broken
        )
        features = counterfactual_features(names, pipe.image_shape, has_classes)
        dataset, num_rows = limit_rows(dataset, args.split, args.max_samples)
        # The bar counts this process' share, so its estimate of the time left is the whole run's.
        starts = [start for start in range(0, num_rows or 0, args.chunk_size) if start not in done]
        starts = starts[accelerator.process_index :: accelerator.num_processes]
        mine = sum(min(args.chunk_size, num_rows - start) for start in starts)
        progress_bar = tqdm(
            total=mine * interventions.per_factual if num_rows else None,
            desc="Counterfactuals",
            disable=not accelerator.is_main_process,
        )

        def report(batches):
            for batch in batches:
                yield batch
                progress_bar.update(len(batch["index"]))

        missing = ((start, rows) for start, rows in split_rows(dataset, args.chunk_size) if start not in done)
        for number, (start, rows) in enumerate(missing):
            if number % accelerator.num_processes == accelerator.process_index:
                chunks.write(start, report(generator.generate(start, rows)), features, lambda: generator.left_out)
        progress_bar.close()
        accelerator.wait_for_everyone()

        if accelerator.is_main_process:
            if not chunks.starts():
                raise ValueError(f"`--split` expects at least one row, but {args.split!r} has none.")
            launch = ["diffscm"]
            if accelerator.num_processes > 1:
                num_processes = str(accelerator.num_processes)
                launch = ["accelerate", "launch", "--num_processes", num_processes, "-m", "diffscm_diffusers"]
            result = chunks.summarize({c: names[c] for c in classes} if has_classes else None)
            if left_out := chunks.left_out():
                report_left_out(left_out, f"images of {args.split!r}")
            card = make_dataset_card(
                repository if args.push_to_hub else args.output_dir,
                model=args.pretrained_model_name_or_path,
                num_classes=len(names),
                result=result,
                has_classes=has_classes,
                settings=settings,
                command=[*launch, "generate", *(sys.argv[1:] if argv is None else argv)],
                split=args.split,
                data_files=[path.relative_to(output_dir).as_posix() for path in chunks.starts().values()],
                dataset_name=args.dataset_name,
                train_data_dir=args.train_data_dir,
            )
            save_card(card, output_dir)
            print(result)
            if args.push_to_hub:
                upload_folder(
                    output_dir,
                    repository,
                    "Publish the counterfactuals",
                    repo_type="dataset",
                    allow_patterns=["README.md", f"data/{args.split}-*.parquet"],
                )
        accelerator.end_training()
