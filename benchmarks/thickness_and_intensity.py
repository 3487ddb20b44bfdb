# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures counterfactuals of thickness and intensity against their truth in the world of Morpho-MNIST.

    python benchmarks/thickness_and_intensity.py --dataset_name ylecun/mnist --output_dir outputs/thickness

The base digits are those of `--split`, and the values of an intervention are those of other samples. Thickness and
intensity are measured in the image and compared with the same measurement of the true counterfactual. VAEs, as
`--baselines`, get the same samples, and the same structural causal model of the attributes.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.baselines import ConditionalVAE2DModel, HierarchicalVAE2DModel, VAECounterfactualPipeline
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_float, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error, exogenous_noise_law
from diffscm_diffusers.worlds import MorphoMNISTWorld, WorldSample
from diffscm_diffusers.worlds.morpho_mnist import measure_intensity, measure_thickness


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", default="checkpoints/diffscm-morphomnist-graph")
    parser.add_argument(
        "--baselines",
        nargs="+",
        default=[],
        help="Folders of VAEs, from `train_vae.py`, measured on the same samples.",
    )
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


def load_vae(folder: str) -> ConditionalVAE2DModel | HierarchicalVAE2DModel:
    models = {model.__name__: model for model in (ConditionalVAE2DModel, HierarchicalVAE2DModel)}
    class_name = ConditionalVAE2DModel.load_config(folder).get("_class_name")
    if class_name not in models:
        raise ValueError(f"`--baselines` expects one of {list(models)}, got {folder!r}, a {class_name}.")
    return models[class_name].from_pretrained(folder, use_safetensors=True)


def measure_intervention(pipe, factual: WorldSample, truth: WorldSample, do: dict, settings: dict) -> dict:
    """Measures of one intervention on each sample, beside the truth, and of the way back from there."""
    output = pipe(factual.images, attributes=factual.variables, do=do, **settings)
    back = {node: factual.variables[node] for node in do}
    returned = pipe(output.images, attributes=output.counterfactual_attributes, do=back, **settings).images
    measures = {
        "error to the truth": measure_error(output.images, truth.images),
        "the factual itself": measure_error(factual.images, truth.images),
        "error of the thickness": (measure_thickness(output.images) - measure_thickness(truth.images)).abs(),
        "error of the intensity": (measure_intensity(output.images) - measure_intensity(truth.images)).abs(),
        "error of the intensity that the structural causal model predicts": (
            output.counterfactual_attributes["intensity"] - truth.variables["intensity"]
        ).abs(),
        "there and back": measure_error(returned, factual.images),
    }
    # What a code or latents mean, without any noise of pixels.
    decoded, condition = None, pipe.scm.graph.condition(output.counterfactual_attributes)
    if isinstance(pipe, VAECounterfactualPipeline):
        decoded = pipe.vae.decode(output.latents, condition)[0].clamp(-1, 1)
    elif pipe.encoder is not None:
        decoded = pipe.encoder.decode(output.code, condition)
    if decoded is not None:
        measures["encoder and decoder alone"] = measure_error((decoded + 1) / 2, truth.images)
    return measures


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
    methods = {"diffusion causal model": (pipe, settings)}
    for folder in args.baselines:
        call = {"batch_size": args.batch_size, "output_type": "pt"}
        methods[folder] = (VAECounterfactualPipeline(load_vae(folder), pipe.scm), call)
    results = {}
    for node in ("thickness", "intensity"):
        do = {node: other.variables[node]}
        truth = world.counterfactual(factual, do)
        for method, (estimator, call) in methods.items():
            results[f"do({node}), {method}"] = measure_intervention(estimator, factual, truth, do, call)

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
