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
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from datasets import Image
from huggingface_hub import HfApi
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import record_settings
from diffscm_diffusers.evaluation.fingerprint import fingerprint
from diffscm_diffusers.generation.generator import CounterfactualGenerator
from diffscm_diffusers.generation.interventions import Interventions, match_classes, unique_names
from diffscm_diffusers.generation.parquet_files import ChunkFolder, counterfactual_features, split_rows
from diffscm_diffusers.hub.dataset_card import write_dataset_card
from diffscm_diffusers.training.arguments import non_negative_int, positive_float, positive_int


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "diffscm generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument("--dataset_name", help="Data set: a Hub name or a local folder that `datasets` loads.")
    data.add_argument("--dataset_config_name", help="Configuration of the data set, where it has several.")
    data.add_argument("--train_data_dir", help="Folder of images; one subfolder per class makes them labelled.")
    data.add_argument("--split", default="train", help="Split of the factuals.")
    data.add_argument("--image_column", default="image", help="Column with the images, the effect.")
    data.add_argument("--label_column", help="Column with the class labels, the cause. Default: they are not known.")
    data.add_argument("--streaming", action="store_true", help="Read the data set on the way, without a copy on disk.")
    data.add_argument("--max_samples", type=positive_int, help="How many factuals, from the first. Default: all.")
    data.add_argument("--cache_dir", help="Where data sets and pretrained weights are cached.")

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
        help="`all` classes, all `other` than the factual's, a `random` one of these, or names of classes.",
    )
    model.add_argument("--preset", help="Settings of the checkpoint, by name, instead of its defaults.")
    model.add_argument("--guidance_scale", type=positive_float, help="Default: the preset's or the checkpoint's.")
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


def main(argv=None):
    args = parse_args(argv)
    # One process may wait for another's last chunk.
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))])
    with accelerator.main_process_first():
        pipe = DiffSCMCounterfactualPipeline.from_pretrained(
            args.pretrained_model_name_or_path,
            revision=args.revision,
            variant=args.variant,
            dtype=getattr(torch, args.dtype),
            cache_dir=args.cache_dir,
            use_safetensors=True,
        ).to(accelerator.device)
        splits = load_image_dataset(argparse.Namespace(**vars(args), train_split=args.split), args.label_column)
    pipe.set_progress_bar_config(disable=True)
    dataset = splits[args.split]
    names = unique_names(pipe.classifier.id2label)
    has_classes = args.label_column is not None
    classes = match_classes(dataset.features[args.label_column].names, names) if has_classes else None
    interventions = Interventions(args.interventions, names, has_classes, args.seed)
    guidance_scale, num_inference_steps, abduction, guidance_interval = pipe.prepare_settings(
        args.preset,
        guidance_scale=args.guidance_scale,
        num_inference_steps=args.num_inference_steps,
        abduction=None,
        guidance_interval=None,
    )
    if guidance_scale == 0:
        raise ValueError("`--guidance_scale` is needed: the checkpoint's own is 0, which makes reconstructions.")
    # Refused before any file is written.
    num_moves = pipe.prepare_timesteps(num_inference_steps, args.strength, abduction)
    pipe.check_guided_timesteps(guidance_interval, num_moves)

    chunks = ChunkFolder(Path(args.output_dir, "data"), args.split)
    data_flags = ("dataset_name", "dataset_config_name", "train_data_dir", "split", "image_column", "label_column")
    settings = {
        **{name: getattr(args, name) for name in (*data_flags, "max_samples")},
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "weights": fingerprint(pipe),
        "dtype": args.dtype,
        "interventions": args.interventions,
        "preset": pipe.config.presets.get(args.preset),
        "guidance_scale": guidance_scale,
        "num_inference_steps": num_inference_steps,
        "strength": args.strength,
        "seed": args.seed,
        # The last digits of a network's output depend on the images beside it.
        "batch_size": args.batch_size,
        "chunk_size": args.chunk_size,
    }
    with accelerator.main_process_first():
        record_settings(Path(args.output_dir), settings)
    if accelerator.is_main_process:
        chunks.remove_unfinished()
        if args.push_to_hub:
            # Before the work, so that a missing login shows early.
            name = args.hub_dataset_id or Path(args.output_dir).resolve().name
            repository = HfApi().create_repo(
                name, repo_type="dataset", private=args.hub_private_repo or None, exist_ok=True
            )
            args.hub_dataset_id = repository.repo_id
    done = chunks.starts()
    accelerator.wait_for_everyone()  # all have looked before the first one writes

    channels, height, _ = pipe.image_shape
    generator = CounterfactualGenerator(
        pipe,
        interventions,
        ImageCollator(height, channels, args.image_column, args.label_column),
        classes,
        guidance_scale,
        num_inference_steps,
        args.strength,
        args.batch_size,
        args.preset,
    )
    features = counterfactual_features(names, pipe.image_shape, has_classes)
    # Rows that another process takes, or that are done, need no decoding.
    dataset = dataset.cast_column(args.image_column, Image(decode=False))
    if args.streaming:
        num_rows = dataset.info.splits[args.split].num_examples if dataset.info.splits else None
    else:
        num_rows = len(dataset)
    if args.max_samples is not None:
        num_rows = min(num_rows or args.max_samples, args.max_samples)
        dataset = dataset.take(num_rows)
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
            chunks.write(start, report(generator.generate(start, rows)), features)
    progress_bar.close()
    accelerator.wait_for_everyone()

    if accelerator.is_main_process:
        if not chunks.starts():
            raise ValueError(f"`--split` {args.split!r} has no rows.")
        print(write_dataset_card(args, settings, chunks, names, argv))
        if args.push_to_hub:
            HfApi().upload_folder(
                repo_id=args.hub_dataset_id,
                repo_type="dataset",
                folder_path=args.output_dir,
                commit_message="Publish the counterfactuals",
                allow_patterns=["README.md", f"data/{args.split}-*.parquet"],
            )
    accelerator.end_training()
