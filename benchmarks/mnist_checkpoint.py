# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures an MNIST checkpoint on test digits: how well it reconstructs, and how often an oracle sees the target.

    python benchmarks/mnist_checkpoint.py --checkpoint checkpoints/diffscm-mnist --output_dir outputs/mnist-benchmark

The oracle is a plain convolutional network that `train_scripts/train_metric_models.py` trains on clean digits of the
training set only. Writes `results.json` and, for each guidance scale, a grid with some factuals above their
counterfactuals.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import load_dataset
from diffusers.utils import make_image_grid, pt_to_pil

from diffscm_diffusers import DiffSCMCounterfactualPipeline, DiffSCMDDIMInverseScheduler, ImageClassifier


def load_digits(dataset_name: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images in [0, 1], shape `(n, 1, 28, 28)`, and labels."""
    rows = load_dataset(dataset_name, split=split).with_format("torch")[:]
    images, labels = rows["image"], rows["label"]
    return torch.stack(list(images)).reshape(-1, 1, 28, 28).float() / 255, torch.as_tensor(labels)


def draw_targets(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Draws for each factual one of the nine other classes, uniformly."""
    shift = torch.randint(1, 10, labels.shape, generator=torch.Generator().manual_seed(seed))
    return (labels + shift) % 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/diffscm-mnist")
    parser.add_argument("--dataset_name", default="ylecun/mnist", help="MNIST: a Hub name or a local folder.")
    parser.add_argument("--output_dir", default="outputs/mnist-benchmark", type=Path)
    parser.add_argument("--oracle", default="checkpoints/diffscm-mnist-metrics/oracle", help="An `ImageClassifier`.")
    parser.add_argument("--first_sample", type=int, default=0, help="First test digit to use.")
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--guidance_scale", type=float, nargs="*", help="Default: the checkpoint's.")
    parser.add_argument("--num_inference_steps", type=int, help="Default: the checkpoint's.")
    parser.add_argument("--evaluate_at", choices=["source", "destination"], help="Default: the checkpoint's.")
    parser.add_argument("--reconstruction_samples", type=int, default=100)
    parser.add_argument("--reconstruction_steps", type=int, nargs="*", default=[1000], help="Empty: not measured.")
    parser.add_argument("--batch_size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    pipe = DiffSCMCounterfactualPipeline.from_pretrained(args.checkpoint)
    if args.evaluate_at is not None:
        pipe.inverse_scheduler = DiffSCMDDIMInverseScheduler.from_config(
            pipe.scheduler.config, evaluate_at=args.evaluate_at
        )
    steps = args.num_inference_steps or pipe.config.default_num_inference_steps
    images, labels = load_digits(args.dataset_name, "test")
    oracle = ImageClassifier.from_pretrained(args.oracle)
    results = {"checkpoint": args.checkpoint, "reconstruction": {}, "counterfactuals": {}}
    with torch.no_grad():
        predictions = torch.cat([oracle(batch).argmax(1) for batch in images.split(1000)])
    results["oracle_test_accuracy"] = (predictions == labels).float().mean().item()

    factuals, labels = (x[args.first_sample : args.first_sample + args.num_samples] for x in (images, labels))
    targets = draw_targets(labels, args.seed)
    for reconstruction_steps in args.reconstruction_steps:
        subset = factuals[: args.reconstruction_samples]
        reconstruction = pipe(
            subset,
            guidance_scale=0,
            num_inference_steps=reconstruction_steps,
            batch_size=args.batch_size,
            output_type="pt",
        ).images
        results["reconstruction"][reconstruction_steps] = {
            "samples": len(subset),
            "mean_absolute_error": (reconstruction - subset).abs().mean().item(),
        }

    noise = pipe.abduct(factuals, steps, batch_size=args.batch_size)
    for guidance_scale in args.guidance_scale or [pipe.config.default_guidance_scale]:
        start = time.perf_counter()
        output = pipe.predict(noise, targets, guidance_scale, steps, batch_size=args.batch_size, output_type="pt")
        seconds = time.perf_counter() - start
        with torch.no_grad():
            seen = oracle(output.images).argmax(1)
        results["counterfactuals"][guidance_scale] = {
            "samples": len(factuals),
            "steps": steps,
            "effectiveness": (seen == targets).float().mean().item(),
            "mean_absolute_difference": (output.images - factuals).abs().mean().item(),
            "mean_target_log_prob": output.log_probs.mean().item(),
            "prediction_seconds": seconds / len(factuals),
        }
        shown = pt_to_pil(pipe.image_processor.normalize(torch.cat([factuals[:20], output.images[:20]])))
        make_image_grid(shown, 2, len(shown) // 2, resize=56).save(
            args.output_dir / f"counterfactuals-{guidance_scale:g}.png"
        )

    (args.output_dir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
