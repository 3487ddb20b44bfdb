# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures whether draws of counterfactuals are as uncertain as they should be, with codes and spatial noise that are
less and less certain to carry over to other causes.

    python benchmarks/draws.py --output_dir outputs/draws
    python benchmarks/draws.py --pretrained_model_name_or_path checkpoints/diffscm-morphomnist-graph \
        --do intensity --output_dir outputs/draws-intensity

The truth should lie in the 90 % interval of the draws nine times in ten. The encoder's posterior knows how well a code
explains the factual, and not how well it carries over to other causes: so draws are too sure, and `transfer_scale` of
the encoder and `noise_decay` of the pipeline are chosen by this table. It needs a world, which knows the truth; its
samples are not those that a checkpoint is judged by, if `--seed` and `--split` differ.
"""

import argparse
from itertools import product

import torch
from datasets import load_dataset
from diffusers import DiffusionPipeline
from results import write_results

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline, DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.evaluation.criteria import INK
from diffscm_diffusers.flags import non_negative_float, non_negative_int, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error, coverage, crps, exogenous_noise_law
from diffscm_diffusers.worlds import MorphoMNISTWorld, TypefaceWorld


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pretrained_model_name_or_path",
        default="checkpoints/diffscm-typeface",
        help="Of printed digits in grey, or of handwritten ones with thickness and intensity.",
    )
    parser.add_argument("--dataset_name", default="ylecun/mnist", help="Base digits of handwritten ones.")
    parser.add_argument("--split", default="test[5000:]", help="Their split.")
    parser.add_argument("--do", choices=["thickness", "intensity"], default="thickness", help="Of handwritten digits.")
    parser.add_argument("--transfer_scales", type=non_negative_float, nargs="+", default=[0.0, 1.0, 2.0])
    parser.add_argument("--noise_decays", type=non_negative_float, nargs="+", default=[0.0, 0.05, 0.1])
    parser.add_argument("--num_samples", type=positive_int, default=100, help="Factuals, each with one intervention.")
    parser.add_argument("--num_draws", type=positive_int, default=19)
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default: the checkpoint's.")
    parser.add_argument("--batch_size", type=positive_int, default=250)
    parser.add_argument("--seed", type=non_negative_int, default=555)
    parser.add_argument("--output_dir", required=True, help="Where `draws.json` and the table `draws.md` are written.")
    args = parser.parse_args(argv)
    if args.num_draws < 19:
        parser.error(f"--num_draws expects at least 19 draws for an interval of 90 %, got {args.num_draws}")
    return args


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    generator = torch.Generator().manual_seed(args.seed)
    settings = {
        "num_inference_steps": args.num_inference_steps,
        "num_draws": args.num_draws,
        "batch_size": args.batch_size,
        "output_type": "pt",
    }

    # 1. Factuals, interventions and their truth
    kind = DiffusionPipeline.load_config(args.pretrained_model_name_or_path)["_class_name"]
    if kind == "DiffSCMGraphCounterfactualPipeline":
        pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(args.pretrained_model_name_or_path)
        world = MorphoMNISTWorld.from_dataset(load_dataset(args.dataset_name, split=args.split))
        factual, other = (world.sample(args.num_samples, generator) for _ in range(2))
        do = {args.do: other.variables[args.do]}
        call = {"attributes": factual.variables, "do": do}
    else:
        pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(args.pretrained_model_name_or_path)
        world = TypefaceWorld()
        factual = world.sample(args.num_samples, generator)
        digit = factual.variables["digit"]
        do = {"digit": (digit + torch.randint(1, 10, digit.shape, generator=generator)) % 10}
        call = {"intervention": do["digit"], "factual_class": digit}
    truth = world.counterfactual(factual, do).images

    # 2. Draws with each scale and decay, from the same noise
    lines = [
        "| transfer scale | noise decay | one draw | mean of the draws | CRPS | coverage "
        "| coverage where there is ink | std of u | kurtosis of u |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    results = []
    for scale, decay in product(args.transfer_scales, args.noise_decays):
        pipe.encoder.register_to_config(transfer_scale=scale)
        pipe.register_to_config(noise_decay=decay)
        generator = torch.Generator().manual_seed(args.seed)
        output = pipe(factual.images, generator=generator, **call, **settings)
        draws, law = output.images, exogenous_noise_law(output.exogenous_noise.flatten(0, 1))
        measures = {
            "error of one draw": counterfactual_error(draws[0], truth).mean().item(),
            "error of the mean": counterfactual_error(draws.mean(dim=0), truth).mean().item(),
            "CRPS": crps(draws, truth).mean().item(),
            "coverage of the 90 % interval, where draws or truth differ": coverage(draws, truth).nanmean().item(),
            "coverage of the 90 % interval, where there is ink": (
                coverage(draws, truth, threshold=INK).nanmean().item()
            ),
            "std of u": law["std"].item(),
            "kurtosis of u": law["kurtosis"].item(),
        }
        results.append({"transfer scale": scale, "noise decay": decay, **measures})
        lines.append(f"| {scale:g} | {decay:g} | " + " | ".join(f"{value:.4f}" for value in measures.values()) + " |")
        print(lines[-1])

    write_results(args.output_dir, "draws", {"settings": vars(args), "draws": results}, lines)


if __name__ == "__main__":
    main()
