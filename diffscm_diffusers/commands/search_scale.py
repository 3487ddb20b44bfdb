# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Searches the guidance scale with the lowest counterfactual latent divergence, CLD (paper, Fig. 4).

    diffscm search-scale --dataset_name ylecun/mnist \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --metric_models outputs/mnist-metrics --output_dir outputs/search

A checkpoint that abducts marginally does so once for all scales, any other once for each, under the factual's class.
Among the scales whose effectiveness is at least `--min_effectiveness`, the chosen one is the smallest whose mean CLD
is within a standard error of the lowest: the curve is flat at its bottom, and a smaller scale keeps more of the
factual. Writes `search.csv` and `search.json`; a run that was interrupted goes on when started anew.
"""

import argparse
import json
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pandas as pd
from accelerate import Accelerator, InitProcessGroupKwargs
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.classes import unique_names
from diffscm_diffusers.data.images import DecodedImages, ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import missing_chunks, read_chunks, record_settings, write_chunk
from diffscm_diffusers.evaluation.pairs import Pairs, load_pairs_and_images
from diffscm_diffusers.evaluation.pipelines import complete_settings, describe_pipeline, load_pipeline
from diffscm_diffusers.evaluation.scores import Scorer
from diffscm_diffusers.evaluation.summary import summarize
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.finite import check_finite_numbers
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_evaluation_arguments,
    fraction,
    non_negative_float,
    value_of,
    value_of_checkpoint,
)
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.refusals import check_evaluation


RULE = (
    "smallest scale whose mean CLD is within a standard error of the lowest, among those whose effectiveness is at "
    "least min_effectiveness"
)


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm search-scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_evaluation_arguments(parser, split="train[55000:]", train_split="train[:55000]", max_samples=200)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--guidance_scales",
        type=non_negative_float,
        nargs="+",
        default=[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0],
        help="Guidance scales to try.",
    )
    search.add_argument(
        "--min_effectiveness",
        type=fraction,
        default=0.99,
        help="How often the oracle must see the target for a scale to be chosen: a fraction of the pairs.",
    )
    search.add_argument(
        "--update_checkpoint",
        action="store_true",
        help="Store the chosen scale as `default_guidance_scale` in the checkpoint, a local folder.",
    )
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    check_evaluation(vars(args))
    if args.update_checkpoint and not Path(args.pretrained_model_name_or_path, "model_index.json").is_file():
        raise ValueError(
            "`--update_checkpoint` expects a local folder as `--pretrained_model_name_or_path`, got "
            f"{args.pretrained_model_name_or_path!r}."
        )
    other_settings = [args.preset, args.num_inference_steps, args.abduction, args.guidance_interval] != [None] * 4
    if args.update_checkpoint and (other_settings or args.scheduler != "checkpoint" or args.mixed_precision != "no"):
        raise ValueError(
            "`--update_checkpoint` expects the checkpoint's own settings, for which the stored scale holds: leave out "
            "`--preset`, `--num_inference_steps`, `--abduction`, `--guidance_interval`, `--scheduler` and "
            "`--mixed_precision`."
        )
    names = [f"{scale:g}" for scale in set(args.guidance_scales)]
    if len(set(names)) < len(names):
        raise ValueError(
            "`--guidance_scales` expects numbers that differ in their first six digits, which name their folders, got "
            f"{args.guidance_scales}."
        )


def choose_scale(summaries: dict[float, dict], min_effectiveness: float) -> float | None:
    """
    The smallest scale whose mean CLD is within a standard error of the lowest (the "one standard error rule" of
    Breiman et al., 1984), among those that are effective enough, if there are any.
    """
    cld = {
        scale: summary["cld"]
        for scale, summary in summaries.items()
        if summary["effectiveness"]["mean"] >= min_effectiveness
    }
    if not cld:
        return None
    best = min(cld.values(), key=lambda score: score["mean"])
    standard_error = (best["high"] - best["low"]) / (2 * 1.96)  # of the 95 % interval's half width
    return min(scale for scale, score in cld.items() if score["mean"] <= best["mean"] + standard_error)


def generate(
    accelerator: Accelerator,
    pipe: DiffSCMCounterfactualPipeline,
    pairs: Pairs,
    factuals: DecodedImages,
    steps: dict,
    folders: dict[float, Path],
    batch_size: int,
):
    """Writes the counterfactuals that are not yet in the scales' folders."""
    steps = dict(steps)
    abduction, is_marginal = steps.pop("abduction", None), pipe.config.default_marginal_abduction
    scales_by_chunk = {}
    for scale, folder in folders.items():
        for chunk in missing_chunks(folder, len(factuals), batch_size):
            scales_by_chunk.setdefault(chunk, []).append(scale)
    accelerator.wait_for_everyone()  # all have looked before the first one writes
    chunks = list(scales_by_chunk)[accelerator.process_index :: accelerator.num_processes]
    num_files = sum(len(scales_by_chunk[chunk]) for chunk in chunks)
    with tqdm(total=num_files, desc="Scales", disable=not accelerator.is_main_process) as progress_bar:
        for chunk in chunks:
            index = slice(chunk.start, chunk.stop)
            images, exogenous_noise = factuals.images(index), None
            factual_class = None if is_marginal else pairs.factual_class[index]
            for scale in scales_by_chunk[chunk]:
                guidance = {"guidance_scale": scale, **steps}
                with accelerator.autocast():
                    # Marginal abduction serves all scales; under the factual's class it climbs the moves of each.
                    if exogenous_noise is None or not is_marginal:
                        start = time.perf_counter()
                        exogenous_noise = pipe.abduct(
                            images, abduction=abduction, factual_class=factual_class, **guidance
                        )
                        abduction_seconds = time.perf_counter() - start
                    start = time.perf_counter()
                    output = pipe.predict(exogenous_noise, pairs.intervention[index], output_type="pt", **guidance)
                    counterfactual = output.images.cpu()
                seconds = abduction_seconds + time.perf_counter() - start
                write_chunk(folders[scale], chunk, counterfactual, seconds)
                progress_bar.update()
    accelerator.wait_for_everyone()


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    output_dir = Path(args.output_dir)
    model_index = Path(args.pretrained_model_name_or_path, "model_index.json")
    folders = {
        scale: output_dir / "counterfactuals" / f"scale-{scale:g}" for scale in sorted(set(args.guidance_scales))
    }
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        # One process may wait for another's last chunk.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )

    # 1. Load models and images
    with value_of_checkpoint(args.pretrained_model_name_or_path):
        pipe = load_pipeline(args.pretrained_model_name_or_path, args.scheduler, args.cache_dir).to(accelerator.device)
    pipe.set_progress_bar_config(leave=False, disable=not accelerator.is_main_process)
    steps = complete_settings(
        pipe,
        args.preset,
        num_inference_steps=args.num_inference_steps,
        guidance_interval=args.guidance_interval,
        abduction=args.abduction,
    )
    del steps["guidance_scale"]  # what is searched
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

    # 2. Generate what is missing
    settings = {
        **data,
        "split": args.split,
        "seed": args.seed,
        "class_names": class_names,
        **describe_pipeline(pipe, args.pretrained_model_name_or_path, args.mixed_precision, steps),
    }
    with locked(output_dir) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            for scale, folder in folders.items():
                record_settings(folder, {**settings, "guidance_scale": scale})
        generate(accelerator, pipe, pairs, factuals, steps, folders, args.batch_size)

        # 3. Score every scale
        samples, summaries = [], {}
        for scale, folder in folders.items():
            counterfactual, seconds = read_chunks(folder, len(pairs))
            scores = scorer.score(counterfactual).assign(seconds=seconds.numpy())
            scores.insert(0, "guidance_scale", scale)
            samples.append(scores)
            summaries[scale] = summarize(scores, args.seed)

        # 4. Choose one
        chosen = choose_scale(summaries, args.min_effectiveness)
        if accelerator.is_main_process:
            search = {
                "chosen": chosen,
                "rule": RULE,
                "min_effectiveness": args.min_effectiveness,
                "num_pairs": len(pairs),
                "metric_models": args.metric_models,
                "oracle": args.oracle,
                "train_split": args.train_split,
                "settings": settings,
                "scales": [{"guidance_scale": scale, **summary} for scale, summary in summaries.items()],
            }
            check_finite_numbers(search["scales"], "scales")
            # An interruption here leaves one of them or none, never a new one beside an old one.
            for name in ("search.json", "search.csv"):
                (output_dir / name).unlink(missing_ok=True)
            with written_whole(output_dir / "search.csv") as path:
                pd.concat(samples).to_csv(path, index=False, float_format="%.6g")
            with written_whole(output_dir / "search.json") as path:
                path.write_text(json.dumps(search, indent=2) + "\n")
            for scale, summary in summaries.items():
                means = ", ".join(f"{name} {summary[name]['mean']:.4f}" for name in ("cld", "effectiveness", "l1"))
                print(f"guidance scale {scale:g}: {means}")
        if chosen is None:
            raise ValueError(
                f"None of the scales reaches `--min_effectiveness` {args.min_effectiveness:g}: try higher ones. "
                f"{str(output_dir / 'search.json')!r} has what they reach."
            )
        if accelerator.is_main_process:
            print(f"Chosen: {chosen:g}, the {RULE} ({args.min_effectiveness:g}).")
            if args.update_checkpoint:
                config = {**json.loads(model_index.read_text()), "default_guidance_scale": chosen}
                with written_whole(model_index) as path:
                    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        accelerator.end_training()
