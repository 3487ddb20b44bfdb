# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures what each choice of abduction and prediction is worth by truth: the timesteps, how moves are made, where
abduction starts, and the spatial noise beside the code.

    python benchmarks/combinations.py --output_dir outputs/combinations

Each row differs in one choice from 25 quadratic timesteps, moves from the clean image, evaluated at their source; the
numbers of steps are tried with both spacings. Each seed draws samples and interventions of its own, the same for all
rows. Writes `combinations.json`, after each seed, and `combinations.md`, a table with the mean and the standard
deviation over the seeds, and with the difference of each row's error from that of 25 quadratic timesteps.
"""

import argparse
import json
import statistics
import warnings
from pathlib import Path

import torch
from judges import train_judge
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMDDIMInverseScheduler, DiffSCMDDIMScheduler, DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error, exogenous_noise_law
from diffscm_diffusers.worlds import TypefaceWorld


SPACINGS = {"quadratic": "quadratic", "even": "leading"}
# Spacing, steps, abduction, draws (0: from the clean image).
ROWS = {
    **{f"{steps} {spacing}": (spacing, steps, "source", 0) for spacing in SPACINGS for steps in (10, 20, 25, 50)},
    "25 quadratic, at the destination": ("quadratic", 25, "destination", 0),
    "25 quadratic, implicit": ("quadratic", 25, "implicit", 0),
    "25 even, one draw": ("even", 25, "source", 1),
    "25 quadratic, draws": ("quadratic", 25, "source", 3),
}
BASE = "25 quadratic"
MEASURES = {
    "error": "error to the truth",
    "seen": "target seen",
    "null": "null intervention",
    "std": "std of u",
    "kurtosis": "kurtosis of u",
}
SOLVER = {"tolerance": 1e-4, "max_iterations": 5}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", default="checkpoints/diffscm-typeface")
    parser.add_argument("--num_samples", type=positive_int, default=200, help="Factuals of each seed.")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num_train", type=positive_int, default=20000, help="Images that the judge is trained on.")
    parser.add_argument("--judge_steps", type=positive_int, default=1500, help="Training steps of the judge.")
    parser.add_argument("--batch_size", type=positive_int, default=100)
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args(argv)


def make_pipes(name_or_path: str) -> dict[str, DiffSCMSemanticCounterfactualPipeline]:
    """The checkpoint's networks, with both spacings of timesteps."""
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(name_or_path)
    pipes = {}
    for name, spacing in SPACINGS.items():
        pipes[name] = DiffSCMSemanticCounterfactualPipeline(
            pipe.unet,
            pipe.encoder,
            pipe.classifier,
            DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing=spacing),
            DiffSCMDDIMInverseScheduler.from_config(pipe.inverse_scheduler.config, timestep_spacing=spacing),
        )
        pipes[name].set_progress_bar_config(disable=True)
    return pipes


def measure_row(
    pipe: DiffSCMSemanticCounterfactualPipeline,
    images: torch.Tensor,
    digit: torch.Tensor,
    target: torch.Tensor,
    row: tuple,
    batch_size: int,
    generator: torch.Generator,
) -> dict[str, tuple]:
    """Counterfactuals, images under the null intervention and noise, with a first axis of draws, by name."""
    _, steps, abduction, num_draws = row
    scheduler, inverse_scheduler = pipe.prepare_schedulers(steps, abduction)
    solver = SOLVER if abduction == "implicit" else None
    # The parts of a call, so that one abduction serves both interventions.
    factual = pipe.prepare_image(images)
    noise, code, remainder, _ = pipe._abduct(
        factual, digit, scheduler, inverse_scheduler, num_draws or None, generator, batch_size, solver
    )

    def predict(noise, intervention):
        repeated = intervention.repeat(num_draws or 1)
        predicted = pipe._predict(noise, code, remainder, repeated, scheduler, batch_size)
        return (predicted / 2 + 0.5).unflatten(0, (num_draws or 1, len(images)))

    result = {"": (predict(noise, target), predict(noise, digit), noise)}
    if row == ROWS[BASE]:
        fresh = torch.randn(noise.shape, generator=generator)
        result["fresh noise"] = (predict(fresh, target), predict(fresh, digit), fresh)
        decoded = [(pipe.decode(code, classes) / 2 + 0.5).clamp(0, 1)[None] for classes in (target, digit)]
        result["the decoder alone"] = (*decoded, None)
    return result


def draw_table(results: dict[str, dict[str, dict]]) -> list[str]:
    """The lines of a table in Markdown: the mean over the seeds and their standard deviation."""
    columns = {"error": MEASURES["error"], "difference": f"minus that of {BASE}", **MEASURES}
    lines = [f"| | {' | '.join(columns.values())} |", "| --- |" + " --- |" * len(columns)]
    for label in next(iter(results.values())):
        cells = []
        for column in columns:
            if column == "difference":  # of the same samples, so that what they differ in drops out
                values = [measured[label]["error"] - measured[BASE]["error"] for measured in results.values()]
            else:
                values = [measured[label][column] for measured in results.values()]
            if None in values:
                cells.append("")
            else:
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.4f}{spread}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    pipes = make_pipes(args.pretrained_model_name_or_path)
    world = TypefaceWorld()
    # Its seed is none of the samples'.
    train = world.sample(args.num_train, torch.Generator().manual_seed(10**6))
    judge = train_judge(train.images, train.variables["digit"], args.judge_steps, seed=0)

    results = {}
    for seed in args.seeds:
        generator = torch.Generator().manual_seed(seed)
        factual = world.sample(args.num_samples, generator)
        digit = factual.variables["digit"]
        target = (digit + torch.randint(1, 10, digit.shape, generator=generator)) % 10
        truth = world.counterfactual(factual, {"digit": target}).images

        def measure(counterfactual, null, noise, target=target, truth=truth, factual=factual):
            law = {} if noise is None else exogenous_noise_law(noise)
            return {
                "error": counterfactual_error(counterfactual, truth).mean().item(),
                "seen": (judge(counterfactual).argmax(dim=1) == target).double().mean().item(),
                "null": None if null is None else counterfactual_error(null, factual.images).mean().item(),
                "std": law["std"].item() if law else None,
                "kurtosis": law["kurtosis"].item() if law else None,
            }

        measured = {
            "the truth itself": measure(truth, factual.images, None),
            "the factual itself": measure(factual.images, factual.images, None),
        }
        for name, row in tqdm(ROWS.items(), f"Rows of seed {seed}"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Implicit abduction of")
                parts = measure_row(pipes[row[0]], factual.images, digit, target, row, args.batch_size, generator)
            for part, (counterfactual, null, noise) in parts.items():
                label = f"{name}, {part}" if part else name
                if len(counterfactual) == 1:
                    measured[label] = measure(counterfactual[0], null[0], noise)
                else:
                    measured[label.replace("draws", "one draw")] = measure(counterfactual[0], null[0], noise)
                    measured[label.replace("draws", f"mean of {len(counterfactual)} draws")] = measure(
                        counterfactual.mean(dim=0), null.mean(dim=0), None
                    )
        results[str(seed)] = measured
        summary = {"settings": vars(args), "solver of implicit abduction": SOLVER, "seeds": results}
        with written_whole(Path(args.output_dir, "combinations.json")) as unfinished:
            unfinished.write_text(json.dumps(summary, indent=2) + "\n")

    lines = draw_table(results)
    print("\n".join(lines))
    with written_whole(Path(args.output_dir, "combinations.md")) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
