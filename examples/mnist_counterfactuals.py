# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Every digit as every other digit (paper, Fig. 6): a row per factual; original, reconstruction, do(0) ... do(9).

    python examples/mnist_counterfactuals.py
"""

import argparse
import time
from pathlib import Path

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.files import written_whole


ROOT = Path(__file__).resolve().parents[1]


def draw(rows: list[list[Image.Image]], titles: list[str], path: Path):
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(0.75 * len(titles), 0.78 * len(rows)))
    for axes_row, images in zip(axes, rows, strict=True):
        for axis, image in zip(axes_row, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.3)
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-mnist"))
    parser.add_argument("--digits", type=Path, default=ROOT / "examples" / "digits", help="Folder of factual PNGs.")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "mnist_counterfactuals.png")
    parser.add_argument("--num_inference_steps", type=int, help="Default: the checkpoint's.")
    args = parser.parse_args()

    start = time.perf_counter()
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(args.checkpoint)
    classes = list(pipe.classifier.id2label.values())
    paths = sorted(args.digits.glob("*.png"))
    factuals = [Image.open(path) for path in paths]

    # One abduction per factual serves its reconstruction and all of its counterfactuals.
    noise = pipe.abduct(factuals, args.num_inference_steps)
    reconstructions = pipe.predict(noise, guidance_scale=0, num_inference_steps=args.num_inference_steps).images
    output = pipe.predict(
        noise.repeat_interleave(len(classes), dim=0),
        classes * len(factuals),
        num_inference_steps=args.num_inference_steps,
    )
    counterfactuals = [output.images[i : i + len(classes)] for i in range(0, len(output.images), len(classes))]
    probabilities = output.log_probs.exp().view(len(factuals), len(classes))

    print("\nTarget probability p(y_cf | counterfactual) under the anti-causal predictor:")
    print("factual  " + "".join(f"do({label})".rjust(8) for label in classes))
    for path, row in zip(paths, probabilities.tolist(), strict=True):
        print(path.stem.ljust(9) + "".join(f"{p:8.3f}" for p in row))

    draw(
        [[f, r, *c] for f, r, c in zip(factuals, reconstructions, counterfactuals, strict=True)],
        ["original", "reconstr.", *(f"do({label})" for label in classes)],
        args.output,
    )
    print(f"\nWrote {args.output} in {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
