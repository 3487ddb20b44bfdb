# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Compares counterfactual methods on the same pairs of factual and intervention (paper, Sec. 5, Table 1).

They are compared with the truth, where the data set knows it, by criteria that need no truth, and by how typical
images are of their class.

    diffscm evaluate --dataset_name outputs/typeface --pretrained_model_name_or_path checkpoints/diffscm-typeface \
        --metric_models none --methods diff-scm factual random-real nearest-real-in-pixels truth \
        --output_dir outputs/typeface-evaluation
    diffscm evaluate --dataset_name ylecun/mnist --pretrained_model_name_or_path checkpoints/diffscm-mnist \
        --metric_models outputs/mnist-metrics --baselines outputs/mnist-baselines --output_dir outputs/evaluation

Images are generated first, in chunks that are written whole to `counterfactuals/<method>` and `criteria/<method>`: a
run that was interrupted goes on when started anew. Then all of them are scored: `samples.csv`, `summary.json` and
`table.md`. A method is one file in `diffscm_diffusers/evaluation/methods`.
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

from diffscm_diffusers import DiffSCMCounterfactualPipeline, DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.data.classes import unique_names
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.data.splits import select_rows
from diffscm_diffusers.evaluation.counterfactual_files import missing_chunks, read_chunks, record_settings, write_chunk
from diffscm_diffusers.evaluation.criteria import list_criteria, score_criteria
from diffscm_diffusers.evaluation.measuring import MeasuringNetwork
from diffscm_diffusers.evaluation.methods import METHODS
from diffscm_diffusers.evaluation.pairs import INTERVENTION_COLUMN, load_pairs_and_images, read_classes
from diffscm_diffusers.evaluation.pipelines import complete_settings, load_pipeline
from diffscm_diffusers.evaluation.scores import Scorer
from diffscm_diffusers.evaluation.summary import make_table, summarize
from diffscm_diffusers.evaluation.truth import has_truth, load_truth
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.finite import check_finite_numbers
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_evaluation_arguments,
    non_negative_float,
    non_negative_int,
    positive_int,
    value_of,
    value_of_checkpoint,
)
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.refusals import check_evaluation, check_name_or_path


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_evaluation_arguments(parser, split="test", train_split="train")
    methods = parser.add_argument_group("methods")
    methods.add_argument(
        "--methods",
        nargs="+",
        choices=list_methods(),
        help="What to compare. Default: all that the data set and `--metric_models` allow.",
    )
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
    methods.add_argument(
        "--conditional_vae", help="Folder that `train_vae.py` wrote, of a VAE that is told the class alone."
    )
    criteria = parser.add_argument_group("criteria")
    criteria.add_argument(
        "--criteria_samples",
        type=positive_int,
        default=1000,
        help="How many of the factuals the null intervention, there and back and the noise of one draw are taken of.",
    )
    criteria.add_argument(
        "--repeated_samples",
        type=positive_int,
        default=100,
        help="How many of them are taken ten times there and back, and get `--num_draws`.",
    )
    criteria.add_argument(
        "--num_draws",
        type=positive_int,
        default=19,
        help="Draws of each counterfactual, 19 or more: their 90 %% interval should hold the truth nine times in ten.",
    )
    criteria.add_argument(
        "--measuring_steps",
        type=non_negative_int,
        default=2000,
        help="Training steps of the network that measures the attributes of a world's images. 0: none are measured.",
    )
    return parser.parse_args(argv)


def list_methods() -> list[str]:
    """The names of the methods, which are those of their files."""
    folder = Path(__file__).resolve().parents[1] / "evaluation" / "methods"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "registry"}
    return sorted(name.replace("_", "-") for name in files)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    check_evaluation(vars(args))
    if args.guidance_scale is not None and args.search_scale is not None:
        raise ValueError("`--guidance_scale` and `--search_scale` exclude each other, got both.")
    if args.num_draws < 19:
        raise ValueError(f"`--num_draws` expects at least 19, for an interval of 90 %, got {args.num_draws}.")
    if args.posterior_mean is not None and (args.posterior_mean[1] < 2 or args.posterior_mean[1] % 2):
        raise ValueError(
            f"`--posterior_mean` expects a timestep and an even number of draws, got {args.posterior_mean}."
        )
    if args.oracle is not None and args.metric_models == "none":
        raise ValueError("`--oracle` is expected with `--metric_models`, got it with none.")
    if args.search_scale not in (None, ["pixels"]):
        for folder in args.search_scale:
            if folder == "pixels" or not Path(folder).is_dir():
                raise ValueError(
                    "`--search_scale` expects the word pixels alone, or folders that hold a VAE, such as "
                    f"outputs/metrics/vae, got {folder!r}."
                )
    for method, flag in (
        ("schut", "baselines"),
        ("van-looveren-klaise", "baselines"),
        ("conditional-vae", "conditional_vae"),
    ):
        if method in (args.methods or ()) and getattr(args, flag) is None:
            raise ValueError(f"`--{flag}` is needed for the method {method!r}.")
    check_name_or_path("conditional_vae", args.conditional_vae, "the folder of a VAE of images given their class")
    if args.baselines is not None and not Path(args.baselines).is_dir():
        raise ValueError(f"`--baselines` expects a folder that train_baselines.py wrote, got {args.baselines!r}.")


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        # One process may wait for another's last chunk.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )

    # 1. Load models and images
    pipeline_classes = (DiffSCMCounterfactualPipeline, DiffSCMSemanticCounterfactualPipeline)
    with value_of_checkpoint(args.pretrained_model_name_or_path):
        pipe = load_pipeline(args.pretrained_model_name_or_path, args.scheduler, args.cache_dir, pipeline_classes)
    pipe.to(accelerator.device)
    if isinstance(pipe, DiffSCMSemanticCounterfactualPipeline) and (args.search_scale or args.posterior_mean):
        raise ValueError(
            "`--search_scale` and `--posterior_mean` are expected with a DiffSCMCounterfactualPipeline, got one of "
            f"them with {type(pipe).__name__}."
        )
    pipe.set_progress_bar_config(leave=False, disable=not accelerator.is_main_process)
    settings = complete_settings(
        pipe, args.preset, args.num_inference_steps, args.guidance_scale, args.guidance_interval, args.abduction
    )
    class_names = unique_names(pipe.classifier.id2label)
    models = None
    if args.metric_models != "none":
        with value_of("metric_models", args.metric_models, "what train_metric_models.py wrote, or none"):
            models = MetricModels.from_pretrained(args.metric_models, oracle=args.oracle, cache_dir=args.cache_dir)
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
    collate = ImageCollator(height, channels, args.image_column, args.label_column)
    factual_rows, interventions, truth = select_rows(splits, args.split), None, None
    if has_truth(factual_rows):
        interventions = read_classes(factual_rows, collate, class_names, INTERVENTION_COLUMN)
    pairs, factuals, reference = load_pairs_and_images(
        splits,
        args.split,
        args.train_split,
        collate,
        class_names,
        args.seed,
        args.max_samples,
        accelerator.is_main_process,
        interventions,
    )
    if interventions is not None:
        reference_rows = select_rows(splits, args.train_split)
        rows = factual_rows, reference_rows
        truth = load_truth(args.dataset_name, *rows, pairs, collate, class_names, accelerator.is_main_process)
    scorer = Scorer(accelerator, models, pairs, factuals, reference, args.batch_size)

    # 2. Create the methods. Each uses what it needs
    guidance_scale = settings.pop("guidance_scale", None)
    inputs = {
        "pairs": pairs,
        "factuals": factuals,
        "reference": reference,
        "truth": truth,
        "scorer": scorer,
        "accelerator": accelerator,
        "seed": args.seed,
        "train_split": args.train_split,
        "metric_models": None if models is None else args.metric_models,
        "baselines": args.baselines,
        "conditional_vae": args.conditional_vae,
        "class_names": class_names,
        "pipe": pipe,
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "steps": settings,
        "guidance_scale": guidance_scale,
        "search_scale": args.search_scale,
        "posterior_mean": args.posterior_mean,
    }
    names = args.methods
    if names is None:
        names = [
            name
            for name in sorted(METHODS, key=lambda name: METHODS[name].is_control)
            if METHODS[name].needs is None or inputs[METHODS[name].needs] is not None
        ]
    methods = {name: METHODS[name].create(**inputs) for name in dict.fromkeys(names)}
    output_dir = Path(args.output_dir)
    folders = {name: output_dir / "counterfactuals" / name for name in methods}
    criteria = {
        name: list_criteria(
            method,
            output_dir / "criteria" / name,
            folders[name],
            pairs,
            factuals,
            args.criteria_samples,
            args.repeated_samples,
            args.num_draws,
            args.seed,
            with_draws=truth is not None,
        )
        for name, method in methods.items()
    }
    data |= {"split": args.split, "seed": args.seed, "class_names": class_names}
    if truth is not None:
        data["interventions"] = INTERVENTION_COLUMN
    with locked(output_dir) if accelerator.is_main_process else nullcontext():
        with accelerator.main_process_first():
            for name, method in methods.items():
                record_settings(folders[name], {**data, **method.settings})
                for criterion in criteria[name]:
                    record_settings(criterion.folder, {**data, **method.settings, **criterion.settings})

        # 3. Generate what is missing
        tasks = [
            (name, folders[name], len(pairs), lambda index, method=method: {"counterfactual": method.generate(index)})
            for name, method in methods.items()
        ]
        for name in methods:
            for criterion in criteria[name]:
                description = f"{name}, {criterion.folder.name}"
                tasks.append((description, criterion.folder, criterion.num_pairs, criterion.generate))
        for description, folder, num_pairs, generate in tasks:
            chunks = missing_chunks(folder, num_pairs, args.batch_size)
            accelerator.wait_for_everyone()  # all have looked before the first one writes, and have written the last
            chunks = chunks[accelerator.process_index :: accelerator.num_processes]
            for chunk in tqdm(chunks, description, disable=not accelerator.is_main_process):
                start = time.perf_counter()
                parts = {name: part.cpu() for name, part in generate(torch.arange(chunk.start, chunk.stop)).items()}
                write_chunk(folder, chunk, seconds=time.perf_counter() - start, **parts)
        accelerator.wait_for_everyone()

        # 4. Score everything
        network = None
        if truth is not None and truth.graph is not None and args.measuring_steps > 0 and accelerator.is_main_process:
            folder = output_dir / "measuring_network"
            training = {"train_split": args.train_split, "num_steps": args.measuring_steps, "seed": args.seed}
            network = MeasuringNetwork.load(truth.graph, folder, {**data, **training})
            if network is None:
                network = MeasuringNetwork.train(
                    truth.graph, reference, truth.reference_attributes, args.measuring_steps, args.seed
                )
                network.save(folder, {**data, **training})
        samples, summaries = [], {}
        for name, folder in folders.items():
            counterfactual, seconds = read_chunks(folder, len(pairs))
            scores = scorer.score(counterfactual).assign(seconds=seconds.numpy())
            scores.insert(0, "method", name)
            realism = {} if models is None else {"realism": scorer.realism(counterfactual)}
            if not accelerator.is_main_process:
                continue
            if truth is not None:
                errors = truth.score(counterfactual, network)
                scores = scores.assign(**{score: error.numpy() for score, error in errors.items()})
            samples.append(scores)
            means = summarize(scores, args.seed)
            by_criteria, noise = score_criteria(criteria[name], pairs, factuals, truth, args.seed)
            for score, values in by_criteria.items():
                if len(values) > 1:  # of how many there are, each has its own number
                    means |= summarize(pd.DataFrame({score: values.numpy()}), args.seed)
            summaries[name] = {
                "settings": {**data, **methods[name].settings},
                "scores": means,
                "noise": noise,
                **realism,
                "seconds": seconds.mean().item(),
            }
        if accelerator.is_main_process:
            summary = {
                "num_pairs": len(pairs),
                "class_names": class_names,
                "train_split": args.train_split,
                "metric_models": args.metric_models,
                "oracle": args.oracle,
                "criteria": {
                    "criteria_samples": min(args.criteria_samples, len(pairs)),
                    "repeated_samples": min(args.repeated_samples, len(pairs)),
                    "num_draws": None if truth is None else args.num_draws,
                },
                "methods": summaries,
            }
            check_finite_numbers(summaries, "methods")
            attributes = None if truth is None else truth.attribute_labels
            table = make_table(summaries, {name: METHODS[name].label for name in methods}, attributes)
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
