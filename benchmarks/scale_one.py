# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures what guidance at scale 1, the causal mechanism itself, reaches by different ways of abduction.

    python benchmarks/scale_one.py --dataset_name ylecun/mnist --split "test[2000:2048]" \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist outputs/diffscm-mnist-calibrated \
        --metric_models checkpoints/diffscm-mnist-metrics --output_dir outputs/scale-one

Abduction is under the factual's class. Each image gets a random target, and the oracle says whether it is seen.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.images import DecodedImages, ImageCollator
from diffscm_diffusers.evaluation.pairs import draw_pairs, read_classes
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_int
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.metrics.functional import effectiveness


# How abduction is made: where moves are evaluated, and the number of draws of the lowest noise level.
WAYS = {"destination, from the clean image": ("destination", None), "source, one draw": ("source", 1)}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", nargs="+", required=True, help="Checkpoints to compare.")
    parser.add_argument("--metric_models", required=True, help="Folder with the oracle.")
    parser.add_argument("--dataset_name", default="ylecun/mnist")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num_inference_steps", type=positive_int, default=25, help="Steps each way.")
    parser.add_argument("--batch_size", type=positive_int, default=100, help="Images that the networks see at once.")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="Seed of targets and draws.")
    parser.add_argument("--output_dir", required=True, help="Where `scale_one.json` is written.")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    rows = load_dataset(args.dataset_name, split=args.split)
    results = {}
    for name in args.pretrained_model_name_or_path:
        pipe = DiffSCMCounterfactualPipeline.from_pretrained(name)
        class_names = list(pipe.classifier.id2label.values())
        oracle = MetricModels.from_pretrained(args.metric_models).order_classes(class_names).oracle
        channels, size, _ = pipe.image_shape
        collate = ImageCollator(size, channels, "image", "label")
        pairs = draw_pairs(read_classes(rows, collate, class_names), len(class_names), args.seed)
        images = DecodedImages(rows.select(pairs.row), collate, "Reading images").images(slice(None))
        results[name] = {}
        for way, (abduction, num_draws) in WAYS.items():
            output = pipe(
                images,
                pairs.intervention,
                guidance_scale=1.0,
                num_inference_steps=args.num_inference_steps,
                factual_class=pairs.factual_class,
                marginal_abduction=False,
                abduction=abduction,
                num_draws=num_draws,
                generator=torch.Generator().manual_seed(args.seed),
                batch_size=args.batch_size,
                output_type="pt",
            )
            counterfactual = output.images if num_draws is None else output.images[0]
            with torch.no_grad():
                seen = effectiveness(counterfactual, pairs.intervention, oracle)
            results[name][way] = {
                "std of the noise": output.exogenous_noise.std().item(),
                "target seen": seen.float().mean().item(),
            }
    print(json.dumps(results, indent=2))
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "scale_one.json") as path:
        path.write_text(json.dumps({"settings": vars(args), **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
