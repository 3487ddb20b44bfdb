# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Compares counterfactual methods on the same pairs of factual and intervention (paper, Sec. 5, Table 1).

    diffscm evaluate --dataset_name ylecun/mnist \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --metric_models outputs/mnist-metrics --baselines outputs/mnist-baselines --output_dir outputs/evaluation

Images are generated first, in chunks that are written whole to `counterfactuals/<method>`: a run that was interrupted
goes on when started anew. Then all of them are scored: `samples.csv`, `summary.json` and `table.md`. A method is one
file in `diffscm_diffusers/evaluation/methods`.
"""

import argparse
import json
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from tqdm.auto import tqdm

from diffscm_diffusers.data.classes import unique_names
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import missing_chunks, read_chunks, record_settings, write_chunk
from diffscm_diffusers.evaluation.methods import METHODS
from diffscm_diffusers.evaluation.pairs import load_pairs_and_images
from diffscm_diffusers.evaluation.pipelines import complete_settings, load_pipeline
from diffscm_diffusers.evaluation.scores import Scorer
from diffscm_diffusers.evaluation.summary import make_table, summarize
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.finite import check_finite_numbers
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_evaluation_arguments,
    non_negative_float,
    non_negative_int,
    value_of,
)
from diffscm_diffusers.metrics import MetricModels


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_evaluation_arguments(parser, split="test", train_split="train")
    methods = parser.add_argument_group("methods")
    names = sorted(METHODS, key=lambda name: METHODS[name].is_control)
    methods.add_argument("--methods", nargs="+", choices=names, default=names, help="What to compare. Default: all.")
    methods.add_argument(
        "--guidance_scale", type=non_negative_float, help="Default: the preset's or the checkpoint's."
    )
    methods.add_argument(
        "--search_scale",
        nargs="+",
        metavar="ENCODER",
        help="Search Diff-SCM's guidance scale for each image, by divergences from its factual. Expects the word "
        "pixels alone, or folders that hold a VAE, such as `outputs/metrics/vae`, other than the one that scores.",
    )
    methods.add_argument(
        "--posterior_mean",
        nargs=2,
        type=non_negative_int,
        metavar=("TIMESTEP", "DRAWS"),
        help="Replace Diff-SCM's counterfactuals by the mean of what they could be, given what noise of TIMESTEP "
        "leaves of them; see `diffscm_diffusers.guidance.posterior_mean`.",
    )
    methods.add_argument("--baselines", help="Folder that `train_baselines.py` wrote.")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.guidance_scale is not None and args.search_scale is not None:
        raise ValueError("`--guidance_scale` and `--search_scale` exclude each other, got both.")
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        # One process may wait for another's last chunk.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )

    # 1. Load models and images
    with value_of(
        "pretrained_model_name_or_path",
        args.pretrained_model_name_or_path,
        "the Hub name or folder of a pipeline's checkpoint",
    ):
        pipe = load_pipeline(args.pretrained_model_name_or_path, args.scheduler, args.cache_dir).to(accelerator.device)
    pipe.set_progress_bar_config(leave=False, disable=not accelerator.is_main_process)
    settings = complete_settings(
        pipe, args.preset, args.num_inference_steps, args.guidance_scale, args.guidance_interval, args.abduction
    )
    with value_of("metric_models", args.metric_models, "what train_metric_models.py wrote, a Hub name or a folder"):
        models = MetricModels.from_pretrained(args.metric_models, oracle=args.oracle, cache_dir=args.cache_dir)
    class_names = unique_names(pipe.classifier.id2label)
    models = models.order_classes(class_names)
    data = {
        "dataset_name": args.dataset_name,
        "dataset_config_name": args.dataset_config_name,
        "train_data_dir": args.train_data_dir,
        "image_column": args.image_column,
        "label_column": args.label_column,
        "skip_broken": args.skip_broken,
    }
    splits = load_image_dataset(**data, cache_dir=args.cache_dir)
    channels, height, _ = pipe.image_shape
    pairs, factuals, reference = load_pairs_and_images(
        splits,
        args.split,
        args.train_split,
        ImageCollator(height, channels, args.image_column, args.label_column),
        class_names,
        args.seed,
        args.max_samples,
        accelerator.is_main_process,
    )
    scorer = Scorer(accelerator, models, pairs, factuals, reference, args.batch_size)

    # 2. Create the methods. Each uses what it needs
    guidance_scale = settings.pop("guidance_scale")
    inputs = {
        "pairs": pairs,
        "factuals": factuals,
        "reference": reference,
        "scorer": scorer,
        "accelerator": accelerator,
        "seed": args.seed,
        "train_split": args.train_split,
        "metric_models": args.metric_models,
        "baselines": args.baselines,
        "class_names": class_names,
        "pipe": pipe,
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "steps": settings,
        "guidance_scale": guidance_scale,
        "search_scale": args.search_scale,
        "posterior_mean": args.posterior_mean,
    }
    methods = {name: METHODS[name].create(**inputs) for name in dict.fromkeys(args.methods)}
    output_dir = Path(args.output_dir)
    folders = {name: output_dir / "counterfactuals" / name for name in methods}
    data |= {"split": args.split, "seed": args.seed, "class_names": class_names}
    with locked(output_dir) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            for name, method in methods.items():
                record_settings(folders[name], {**data, **method.settings})

        # 3. Generate what is missing
        for name, method in methods.items():
            chunks = missing_chunks(folders[name], len(pairs), args.batch_size)
            accelerator.wait_for_everyone()  # all have looked before the first one writes
            chunks = chunks[accelerator.process_index :: accelerator.num_processes]
            for chunk in tqdm(chunks, name, disable=not accelerator.is_main_process):
                start = time.perf_counter()
                counterfactual = method.generate(torch.arange(chunk.start, chunk.stop)).cpu()
                write_chunk(folders[name], chunk, counterfactual, time.perf_counter() - start)
        accelerator.wait_for_everyone()

        # 4. Score everything
        samples, summaries = [], {}
        for name, folder in folders.items():
            counterfactual, seconds = read_chunks(folder, len(pairs))
            scores = scorer.score(counterfactual).assign(seconds=seconds.numpy())
            scores.insert(0, "method", name)
            samples.append(scores)
            summaries[name] = {
                "settings": {**data, **methods[name].settings},
                "scores": summarize(scores, args.seed),
                "realism": scorer.realism(counterfactual),
                "seconds": seconds.mean().item(),
            }
        if accelerator.is_main_process:
            summary = {
                "num_pairs": len(pairs),
                "class_names": class_names,
                "train_split": args.train_split,
                "metric_models": args.metric_models,
                "oracle": args.oracle,
                "methods": summaries,
            }
            check_finite_numbers(summaries, "methods")
            table = make_table(summaries, {name: METHODS[name].label for name in methods})
            # An interruption here leaves some of them or none, never new ones beside old ones.
            for name in ("table.md", "summary.json", "samples.csv"):
                (output_dir / name).unlink(missing_ok=True)
            with written_whole(output_dir / "samples.csv") as path:
                pd.concat(samples).to_csv(path, index=False, float_format="%.6g")
            with written_whole(output_dir / "summary.json") as path:
                path.write_text(json.dumps(summary, indent=2) + "\n")
            with written_whole(output_dir / "table.md") as path:
                path.write_text(table)
            print(table)
        accelerator.end_training()
