# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Printed digits as other digits in their own colour, beside the truth, by a model that was trained where digit and hue
go together: a row per factual; for each intervention the counterfactual, the true one, and their difference.

    python examples/confounded_colour.py
"""

import argparse
from pathlib import Path

import torch

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.figures import draw_truth
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.worlds import TypefaceWorld


ROOT = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-typeface-confounded"))
    parser.add_argument("--interventions", nargs="+", default=["2", "4", "7", "8"], help="Digits to intervene with.")
    parser.add_argument("--num_samples", type=int, default=8, help="Number of factuals.")
    parser.add_argument("--seed", type=int, default=2, help="Seed of the factuals.")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "confounded_colour.png")
    args = parser.parse_args()

    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(args.checkpoint)
    world = TypefaceWorld(color=True, confounding=0.0)
    factual = world.sample(args.num_samples, torch.Generator().manual_seed(args.seed))
    attributes = {name: factual.variables[name] for name in pipe.scm.graph.attributes}
    noise = pipe.abduct(factual.images, attributes, ["digit"])
    pairs, errors = {}, []
    for digit in args.interventions:
        counterfactual = pipe.predict(noise, {"digit": digit}, output_type="pt").images
        truth = world.counterfactual(factual, {"digit": int(digit)}).images
        pairs[f"do({digit})"] = (counterfactual, truth)
        errors.append((counterfactual - truth).abs().mean().item())

    figure = draw_truth(factual.images, pairs)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(args.output) as path:
        figure.savefig(path, dpi=150, format="png")
    print(f"\nWrote {args.output}. Mean error to the truth, pixels in [0, 1]: {sum(errors) / len(errors):.4f}.")


if __name__ == "__main__":
    main()
