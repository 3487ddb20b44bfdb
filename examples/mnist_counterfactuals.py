# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Every digit as every other digit (paper, Fig. 6): a row per factual; original, do(0) ... do(9). In a frame, what the
null intervention gives back.

    python examples/mnist_counterfactuals.py
"""

import argparse
import time
from pathlib import Path

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from PIL import Image
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline, DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.evaluation.pipelines import load_pipeline
from diffscm_diffusers.files import written_whole


ROOT = Path(__file__).resolve().parents[1]


def draw(rows: list[list[Image.Image]], titles: list[str], nulls: list[int], path: Path):
    """Draws a row per factual, with a frame around its null intervention, whose column `nulls` says."""
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(0.75 * len(titles), 0.78 * len(rows)))
    for axes_row, images, null in zip(axes, rows, nulls, strict=True):
        for column, (axis, image) in enumerate(zip(axes_row, images, strict=True)):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=column == null, color="C0", linewidth=2)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-mnist-semantic"))
    parser.add_argument("--digits", type=Path, default=ROOT / "examples" / "digits", help="Folder of factual PNGs.")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "mnist_counterfactuals.png")
    parser.add_argument("--num_inference_steps", type=int, help="Default: the checkpoint's.")
    args = parser.parse_args()

    start = time.perf_counter()
    kinds = (DiffSCMSemanticCounterfactualPipeline, DiffSCMCounterfactualPipeline)
    pipe = load_pipeline(args.checkpoint, "checkpoint", pipeline_classes=kinds)
    pipe.set_progress_bar_config(disable=True)
    classes = list(pipe.classifier.id2label.values())
    paths = sorted(args.digits.glob("*.png"))
    factuals = [Image.open(path) for path in paths]

    # One abduction per factual serves all of its counterfactuals.
    calls = tqdm(factuals, "Counterfactuals")
    rows = [pipe(factual, classes, num_inference_steps=args.num_inference_steps).images for factual in calls]

    print("\nTarget probability p(y_cf | counterfactual) under the anti-causal predictor:")
    print("factual  " + "".join(f"do({label})".rjust(8) for label in classes))
    nulls = []
    for path, factual, row in zip(paths, factuals, rows, strict=True):
        with torch.no_grad():
            probabilities = pipe.classifier(pipe.prepare_image([factual, *row]), 0).logits.softmax(dim=1)
        nulls.append(1 + probabilities[0].argmax().item())
        print(path.stem.ljust(9) + "".join(f"{p:8.3f}" for p in probabilities[1:].diagonal().tolist()))

    titles = ["original", *(f"do({label})" for label in classes)]
    draw([[factual, *row] for factual, row in zip(factuals, rows, strict=True)], titles, nulls, args.output)
    print(f"\nWrote {args.output} in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
