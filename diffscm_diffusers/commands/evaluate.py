# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Compares counterfactual methods on the same pairs of factual and target (paper, Sec. 5, Table 1).

    diffscm evaluate --dataset_name ylecun/mnist \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --metric_models outputs/mnist-metrics --baselines outputs/mnist-baselines --output_dir outputs/evaluation

Images are generated first, in chunks that are written whole to `counterfactuals/<method>`: a run that was interrupted
goes on when started anew. Then all of them are scored: `samples.csv`, `summary.json` and `table.md`.
"""

import argparse
import json
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from tqdm.auto import tqdm

from diffscm_diffusers.data.splits import load_pairs_and_images
from diffscm_diffusers.evaluation.arguments import add_evaluation_arguments
from diffscm_diffusers.evaluation.counterfactual_files import missing_chunks, read_chunks, record_settings, write_chunk
from diffscm_diffusers.evaluation.methods import CONTROLS, METHODS, create_method, load_pipeline
from diffscm_diffusers.evaluation.scores import Scorer
from diffscm_diffusers.evaluation.summary import make_table, summarize
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.training.arguments import non_negative_float


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "diffscm evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_evaluation_arguments(parser)
    parser.set_defaults(split="test", train_split="train")
    names = [*METHODS, *CONTROLS]
    parser.add_argument("--methods", nargs="+", choices=names, default=names, help="What to compare. Default: all.")
    parser.add_argument(
        "--guidance_scale", type=non_negative_float, help="Diff-SCM's guidance scale. Default: the checkpoint's."
    )
    parser.add_argument(
        "--search_scale",
        nargs="+",
        metavar="ENCODER",
        help="Search Diff-SCM's guidance scale for each image, by divergences from its factual. Takes the word pixels "
        "alone, or folders that hold a VAE, such as `outputs/metrics/vae`, other than the one that scores.",
    )
    parser.add_argument(
        "--posterior_mean",
        nargs=2,
        type=int,
        metavar=("TIMESTEP", "DRAWS"),
        help="Replace Diff-SCM's counterfactuals by the mean of what they could be, given what noise of TIMESTEP "
        "leaves of them; `DiffSCMCounterfactualPipeline.posterior_mean`.",
    )
    parser.add_argument("--baselines", help="Folder that `train_baselines.py` wrote.")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        # One process may wait for another's last chunk.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )
    pipe = load_pipeline(args).to(accelerator.device)
    pipe.set_progress_bar_config(leave=False, disable=not accelerator.is_main_process)
    models = MetricModels.from_pretrained(args.metric_models, oracle=args.oracle, cache_dir=args.cache_dir)
    pairs, factuals, reference = load_pairs_and_images(
        args, pipe.classifier.config.num_classes, pipe.image_shape, accelerator.is_main_process
    )
    scorer = Scorer(accelerator, models, pairs, factuals, reference, args.batch_size)
    methods = {
        name: create_method(name, args, pipe, pairs, factuals, reference, scorer)
        for name in dict.fromkeys(args.methods)
    }
    output_dir = Path(args.output_dir)
    folders = {name: output_dir / "counterfactuals" / name for name in methods}
    with accelerator.main_process_first():
        for name, method in methods.items():
            record_settings(folders[name], method.settings)

    for name, method in methods.items():
        chunks = missing_chunks(folders[name], len(pairs), args.batch_size)
        accelerator.wait_for_everyone()  # all have looked before the first one writes
        chunks = chunks[accelerator.process_index :: accelerator.num_processes]
        for chunk in tqdm(chunks, name, disable=not accelerator.is_main_process):
            start = time.perf_counter()
            counterfactual = method.generate(torch.arange(chunk.start, chunk.stop)).cpu()
            write_chunk(folders[name], chunk, counterfactual, time.perf_counter() - start)
    accelerator.wait_for_everyone()

    samples, summaries = [], {}
    for name, folder in folders.items():
        counterfactual, seconds = read_chunks(folder, len(pairs))
        scores = scorer.score(counterfactual).assign(seconds=seconds.numpy())
        scores.insert(0, "method", name)
        samples.append(scores)
        summaries[name] = {
            "settings": methods[name].settings,
            "scores": summarize(scores, args.seed),
            "realism": scorer.realism(counterfactual),
            "seconds": seconds.mean().item(),
        }
    if accelerator.is_main_process:
        pd.concat(samples).to_csv(output_dir / "samples.csv", index=False, float_format="%.6g")
        summary = {
            "num_pairs": len(pairs),
            "train_split": args.train_split,
            "metric_models": args.metric_models,
            "oracle": args.oracle,
            "methods": summaries,
        }
        (output_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        table = make_table(summaries, {**METHODS, **CONTROLS})
        (output_dir / "table.md").write_text(table)
        print(table)
    accelerator.end_training()
