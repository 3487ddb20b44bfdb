# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Draws handwritten digits under `do(thickness)`, whose intensity follows, and under `do(intensity)`, beside the truth.

    python examples/thickness_and_intensity.py

The shipped digits become factuals of a world that knows its true counterfactuals, `MorphoMNISTWorld`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.figures import draw_truth
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.worlds import MorphoMNISTWorld


ROOT = Path(__file__).resolve().parents[1]
INTERVENTIONS = ({"thickness": 1.5}, {"thickness": 4.0}, {"intensity": 120.0})


def load_world(folder: Path) -> MorphoMNISTWorld:
    """The world of the digits in a folder, whose names begin with the digit that each shows."""
    paths = sorted(folder.glob("*.png"))
    images = np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])
    return MorphoMNISTWorld(images, np.array([int(path.stem[0]) for path in paths]))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-morphomnist-graph"))
    parser.add_argument("--digits", type=Path, default=ROOT / "examples" / "digits", help="Folder of base digits.")
    parser.add_argument("--num_samples", type=int, default=8, help="Number of factuals.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the factuals.")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "thickness_and_intensity.png")
    args = parser.parse_args(argv)

    # 1. Factuals with their attributes
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(args.checkpoint)
    world = load_world(args.digits)
    factual = world.sample(args.num_samples, torch.Generator().manual_seed(args.seed))

    # 2. Counterfactuals beside the truth
    pairs, errors = {}, []
    for do in INTERVENTIONS:
        counterfactual = pipe(factual.images, attributes=factual.variables, do=do, output_type="pt").images
        truth = world.counterfactual(factual, do).images
        ((name, value),) = do.items()
        pairs[f"{name} {value:g}"] = (counterfactual, truth)
        errors.append((counterfactual - truth).abs().mean().item())

    # 3. The picture
    figure = draw_truth(factual.images, pairs)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(args.output) as path:
        figure.savefig(path, dpi=150, format="png")
    print(f"\nWrote {args.output}. Mean error to the truth, pixels in [0, 1]: {sum(errors) / len(errors):.4f}.")


if __name__ == "__main__":
    main()
