# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures what abduction loses: images go up to their exogenous noise and, without guidance, down again.

    python benchmarks/round_trip.py --dataset_name ylecun/mnist --num_samples 1000 --output_dir outputs/round-trip

Compares the explicit moves, the implicit ones, these also on quadratically spaced timesteps, and O-BELM's, each with
the same number of steps, in full float32. Rows are appended to `round_trip.csv` and not measured again in that folder;
the table is printed as Markdown.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from datasets import load_dataset

from diffscm_diffusers import DiffSCMBELMScheduler, DiffSCMCounterfactualPipeline, DiffSCMDDIMScheduler
from diffscm_diffusers.files import written_whole


METHODS = ("source", "destination", "implicit", "implicit_quadratic", "belm")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/diffscm-mnist")
    parser.add_argument("--dataset_name", default="ylecun/mnist", help="MNIST: a Hub name or a local folder.")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    parser.add_argument("--num_inference_steps", type=int, nargs="+", default=[10, 20, 50, 100, 1000])
    parser.add_argument("--num_samples", type=int, default=1000, help="The first so many test digits.")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="Of the implicit moves.")
    parser.add_argument("--max_iterations", type=int, default=40, help="Of an implicit move.")
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output_dir", type=Path, default="outputs/round-trip")
    args = parser.parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / "round_trip.csv"
    torch.backends.cudnn.allow_tf32 = False  # convolutions on a GPU would round to 10 bits

    pipe = DiffSCMCounterfactualPipeline.from_pretrained(args.checkpoint).to(args.device)
    pipes = dict.fromkeys(METHODS, pipe)
    for method, scheduler in (
        ("implicit_quadratic", DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="quadratic")),
        ("belm", DiffSCMBELMScheduler.from_config(pipe.scheduler.config)),
    ):
        pipes[method] = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, scheduler)
    rows = load_dataset(args.dataset_name, split=f"test[:{args.num_samples}]").with_format("torch")[:]
    images = torch.stack(list(rows["image"])).reshape(-1, *pipe.image_shape).float() / 255

    for steps in args.num_inference_steps:
        for method in args.methods:
            measured = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["method", "steps"])
            if ((measured.method == method) & (measured.steps == steps)).any():
                continue
            pipe = pipes[method]
            abducted = pipe.abduct(
                images,
                steps,
                batch_size=args.batch_size,
                abduction=None if method == "belm" else method.removesuffix("_quadratic"),
                tolerance=args.tolerance,
                max_iterations=args.max_iterations,
                return_dict=True,
                marginal_abduction=True,
            )
            output = pipe.predict(
                abducted.exogenous_noise,
                guidance_scale=0,
                num_inference_steps=steps,
                batch_size=args.batch_size,
                output_type="pt",
            )
            error = (output.images.cpu() - images).abs()
            residual = abducted.residual
            row = {
                "method": method,
                "steps": steps,
                "images": len(images),
                "mean_absolute_error": error.mean().item(),
                # Of all pixels; `torch.quantile` takes at most 16 million of them.
                "quantile_999": error.flatten().kthvalue(round(0.999 * error.numel())).values.item(),
                "evaluations_up": abducted.num_evaluations.float().mean().item(),
                "converged": None if residual is None else (residual <= args.tolerance).float().mean().item(),
            }
            with written_whole(path) as unfinished:
                pd.concat([measured, pd.DataFrame([row])]).to_csv(unfinished, index=False, float_format="%.4g")

    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    for cells in (table.columns, ["---"] * table.shape[1], *table.to_numpy()):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
