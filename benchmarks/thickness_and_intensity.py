# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures counterfactuals of thickness and intensity against their truth in the world of Morpho-MNIST.

    python benchmarks/thickness_and_intensity.py --dataset_name ylecun/mnist --output_dir outputs/thickness

The base digits are those of `--split`, and the values of an intervention are those of other samples. Thickness and
intensity are measured in the image and compared with the same measurement of the true counterfactual.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_float, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error, exogenous_noise_law
from diffscm_diffusers.worlds import MorphoMNISTWorld
from diffscm_diffusers.worlds.morpho_mnist import measure_intensity, measure_thickness


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", default="checkpoints/diffscm-morphomnist-graph")
    parser.add_argument("--dataset_name", default="ylecun/mnist", help="Base digits: grey images of 28 x 28 pixels.")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num_samples", type=positive_int, default=500)
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default: the checkpoint's.")
    parser.add_argument(
        "--abduction", choices=["source", "destination", "implicit"], help="Default: the checkpoint's."
    )
    parser.add_argument("--tolerance", type=positive_float, default=1e-6, help="Of implicit abduction.")
    parser.add_argument("--max_iterations", type=positive_int, default=40, help="Of implicit abduction.")
    parser.add_argument("--batch_size", type=positive_int, default=100)
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True, help="Where `thickness_and_intensity.json` is written.")
    return parser.parse_args(argv)


def measure_error(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute difference of pixels in [0, 1]."""
    return counterfactual_error(images, truth).mean().item()


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(args.pretrained_model_name_or_path)
    world = MorphoMNISTWorld.from_dataset(load_dataset(args.dataset_name, split=args.split))
    generator = torch.Generator().manual_seed(args.seed)
    factual, other = world.sample(args.num_samples, generator), world.sample(args.num_samples, generator)
    settings = {
        "num_inference_steps": args.num_inference_steps,
        "abduction": args.abduction,
        "tolerance": args.tolerance,
        "max_iterations": args.max_iterations,
        "batch_size": args.batch_size,
        "output_type": "pt",
    }

    # 1. Interventions beside the truth, and back from there
    results = {}
    for node in ("thickness", "intensity"):
        do = {node: other.variables[node]}
        truth = world.counterfactual(factual, do)
        output = pipe(factual.images, attributes=factual.variables, do=do, **settings)
        back = {node: factual.variables[node]}
        returned = pipe(output.images, attributes=output.counterfactual_attributes, do=back, **settings).images
        results[f"do({node})"] = {
            "error to the truth": measure_error(output.images, truth.images),
            "the factual itself": measure_error(factual.images, truth.images),
            "error of the thickness": (measure_thickness(output.images) - measure_thickness(truth.images)).abs(),
            "error of the intensity": (measure_intensity(output.images) - measure_intensity(truth.images)).abs(),
            "error of the intensity that the structural causal model predicts": (
                output.counterfactual_attributes["intensity"] - truth.variables["intensity"]
            ).abs(),
            "there and back": measure_error(returned, factual.images),
        }
        if pipe.encoder is not None:
            graph = pipe.scm.graph
            code = pipe.encoder.encode(2 * factual.images - 1, graph.condition(factual.variables)).mean
            decoded = pipe.encoder.decode(code, graph.condition(output.counterfactual_attributes))
            results[f"do({node})"]["encoder and decoder alone"] = measure_error((decoded + 1) / 2, truth.images)

    # 2. The null intervention, and a draw of the noise
    null = {"digit": factual.variables["digit"]}
    images = pipe(factual.images, attributes=factual.variables, do=null, **settings).images
    draw = pipe(factual.images, attributes=factual.variables, do=null, num_draws=1, generator=generator, **settings)
    results["null intervention"] = {
        "difference from the factual": measure_error(images, factual.images),
        "difference of a draw": measure_error(draw.images[0], factual.images),
        **exogenous_noise_law(draw.exogenous_noise[0]),
    }

    for measures in results.values():
        for name, value in measures.items():
            measures[name] = value.double().mean().item() if torch.is_tensor(value) else value
    print(json.dumps(results, indent=2))
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "thickness_and_intensity.json") as path:
        path.write_text(json.dumps({"settings": vars(args), **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
