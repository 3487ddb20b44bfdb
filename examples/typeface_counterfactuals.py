# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Printed digits as other digits, beside the truth: a row per factual; for each intervention the counterfactual, the true
one, and their difference (red: too much ink, blue: too little).

    python examples/typeface_counterfactuals.py
"""

import argparse
from pathlib import Path

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.worlds import TypefaceWorld


ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-typeface"))
    parser.add_argument("--interventions", nargs="+", default=["2", "4", "7", "8"], help="Digits to intervene with.")
    parser.add_argument("--num_samples", type=int, default=8, help="Number of factuals.")
    parser.add_argument("--seed", type=int, default=2, help="Seed of the factuals.")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "typeface_counterfactuals.png")
    args = parser.parse_args()

    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(args.checkpoint)
    world = TypefaceWorld()
    factual = world.sample(args.num_samples, torch.Generator().manual_seed(args.seed))
    columns, titles = [factual.images], ["factual"]
    errors = []
    for digit in args.interventions:
        counterfactual = pipe(factual.images, digit, factual.variables["digit"], output_type="pt").images
        truth = world.counterfactual(factual, {"digit": int(digit)}).images
        columns += [counterfactual, truth, counterfactual - truth]
        titles += [f"do({digit})", "truth", "difference"]
        errors.append((counterfactual - truth).abs().mean().item())

    figure, axes = plt.subplots(
        args.num_samples, len(columns), figsize=(0.75 * len(columns), 0.78 * args.num_samples), squeeze=False
    )
    for column, title, axes_column in zip(columns, titles, axes.T, strict=True):
        axes_column[0].set_title(title, fontsize=9)
        style = {"cmap": "seismic", "vmin": -1} if title == "difference" else {"cmap": "gray", "vmin": 0}
        for image, axis in zip(column, axes_column, strict=True):
            axis.imshow(image[0], vmax=1, **style)
            axis.set_axis_off()
    figure.tight_layout(pad=0.3)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.output, dpi=150)
    print(f"\nWrote {args.output}. Mean error to the truth, pixels in [0, 1]: {sum(errors) / len(errors):.4f}.")


if __name__ == "__main__":
    main()
