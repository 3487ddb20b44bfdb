# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures how far images drift that are taken there and back again and again, and which part of abduction is to blame.

    python benchmarks/there_and_back.py --output_dir outputs/there-and-back
    python benchmarks/there_and_back.py --pretrained_model_name_or_path checkpoints/diffscm-mnist-semantic \
        --dataset_name ylecun/mnist --output_dir outputs/there-and-back-mnist

A cycle is a counterfactual under another digit, and one of that under the factual's own. Both abduct code and spatial
noise anew from the image that they are given. Each row keeps all but one thing: moves are implicit instead of
explicit, or those of BELM, which are their own inverse and start from the clean image; the code is the factual's
throughout; or there is no spatial noise, but encoder and decoder alone. Writes the mean absolute difference of pixels
from the factual after each cycle to `there-and-back.json` and `there-and-back.md`.
"""

import argparse
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from combinations import SOLVER
from datasets import load_dataset
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.evaluation.pipelines import load_pipeline
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error
from diffscm_diffusers.worlds import TypefaceWorld


# How the moves up are made (`None`: there are none), and whether the code is the factual's.
ROWS = {
    "explicit moves": ("source", False),
    "explicit moves, the factual's code": ("source", True),
    "encoder and decoder alone": (None, False),
    "implicit moves": ("implicit", False),
    "moves of BELM": ("belm", False),
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", default="checkpoints/diffscm-typeface")
    parser.add_argument("--dataset_name", help="Of labelled digits, on the Hub or a folder. Default: printed ones.")
    parser.add_argument("--split", default="test", help="Of the data set.")
    parser.add_argument("--num_samples", type=positive_int, default=100, help="Factuals, each with one intervention.")
    parser.add_argument("--num_cycles", type=positive_int, default=10)
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default: the checkpoint's.")
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args(argv)


def encode(pipe: DiffSCMSemanticCounterfactualPipeline, images: torch.Tensor, digit: torch.Tensor) -> torch.Tensor:
    """The exogenous noise of the mean code of images in [0, 1]."""
    condition = pipe.condition(digit)
    return pipe.encoder.abduct(pipe.encoder.encode(2 * images - 1, condition).mean, condition)


def estimate(
    pipe: DiffSCMSemanticCounterfactualPipeline,
    images: torch.Tensor,
    digit: torch.Tensor,
    target: torch.Tensor,
    num_inference_steps: int | None,
    abduction: str | None,
    code: torch.Tensor | None,
) -> torch.Tensor:
    """Counterfactuals in [0, 1], with a code that is given or, as a call does, read from the images."""
    if abduction is None:
        return (pipe.decode(encode(pipe, images, digit), target) / 2 + 0.5).clamp(0, 1)
    schedulers = pipe.prepare_schedulers(num_inference_steps, None if abduction == "belm" else abduction)
    solver = SOLVER if abduction == "implicit" else None
    given = None if code is None else SimpleNamespace(mean=pipe.encoder.predict(code, pipe.condition(digit)))
    with nullcontext() if code is None else mock.patch.object(pipe.encoder, "encode", lambda *unused: given):
        *parts, _ = pipe._abduct(pipe.prepare_image(images), digit, *schedulers, None, None, len(images), solver)
    return pipe._predict(*parts, target, schedulers[0], len(images)) / 2 + 0.5


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(args.pretrained_model_name_or_path)
    belm_pipe = load_pipeline(args.pretrained_model_name_or_path, "belm", pipeline_classes=(type(pipe),))
    for each in (pipe, belm_pipe):
        each.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(args.seed)
    if args.dataset_name is None:
        sample = TypefaceWorld().sample(args.num_samples, generator)
        factuals, digit = sample.images, sample.variables["digit"]
    else:
        rows = load_dataset(args.dataset_name, split=args.split)[: args.num_samples]
        factuals, digit = pipe.prepare_image(rows["image"]) / 2 + 0.5, torch.tensor(rows["label"])
    target = (digit + torch.randint(1, 10, digit.shape, generator=generator)) % 10
    factual_code = encode(pipe, factuals, digit)

    results = {}
    for name, (abduction, keeps_code) in ROWS.items():
        used = belm_pipe if abduction == "belm" else pipe
        images, code, results[name] = factuals, factual_code if keeps_code else None, []
        for _ in tqdm(range(args.num_cycles), name):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Implicit abduction of")
                for start, end in ((digit, target), (target, digit)):
                    images = estimate(used, images, start, end, args.num_inference_steps, abduction, code)
            results[name].append(counterfactual_error(images, factuals).mean().item())
        summary = {"settings": vars(args), "solver of implicit abduction": SOLVER, "cycles": results}
        with written_whole(Path(args.output_dir, "there-and-back.json")) as unfinished:
            unfinished.write_text(json.dumps(summary, indent=2) + "\n")

    columns = sorted({1, *range(5, args.num_cycles, 5), args.num_cycles})
    lines = ["| cycles | " + " | ".join(map(str, columns)) + " |"]
    lines.append("| --- |" + " --- |" * len(columns))
    for name, errors in results.items():
        lines.append(f"| {name} | {' | '.join(f'{errors[column - 1]:.4f}' for column in columns)} |")
    print("\n".join(lines))
    with written_whole(Path(args.output_dir, "there-and-back.md")) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
