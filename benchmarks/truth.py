# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures counterfactuals of a world against their truth, beside controls, and the criteria that need no truth.

    python benchmarks/truth.py --pretrained_model_name_or_path checkpoints/diffscm-typeface --output_dir outputs/truth

The samples are drawn with `--seed`, the controls' images and the judge's with the next ones. The judge is a small
classifier that is trained on the world here; it shares nothing with the checkpoint.

The error to the truth is split in two. Of the renderings of the target digit in the factual's own pose and ink, one in
each of the world's typefaces, the one nearest to an image says which typeface the image has. The error to it is that
of the pose; its own error to the truth is that of the typeface, 0 where it is the factual's. Unpaired data tell which
typefaces of two digits belong together only by what they share.
"""

import argparse
import json
from pathlib import Path

import torch
from judges import train_judge
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.evaluation.controls import draw_references, find_nearest_references
from diffscm_diffusers.evaluation.criteria import INK
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_int
from diffscm_diffusers.metrics import probe_accuracy
from diffscm_diffusers.metrics.functional import (
    counterfactual_error,
    coverage,
    crps,
    distance_correlation,
    exogenous_noise_law,
)
from diffscm_diffusers.training.code_mechanism import read_codes
from diffscm_diffusers.worlds import TypefaceWorld, WorldSample


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained_model_name_or_path", default="checkpoints/diffscm-typeface")
    parser.add_argument("--num_samples", type=positive_int, default=2000, help="Factuals, each with one intervention.")
    parser.add_argument("--num_references", type=positive_int, default=60000, help="Real images of the controls.")
    parser.add_argument(
        "--num_codes",
        type=positive_int,
        default=20000,
        help="References whose drawn codes a probe reads, 4/5 to learn.",
    )
    parser.add_argument(
        "--num_noises", type=positive_int, default=1000, help="References whose noise a probe reads, 4/5 to learn."
    )
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default: the checkpoint's.")
    parser.add_argument(
        "--dequantize",
        action=argparse.BooleanOptionalAction,
        help="Whether abduction starts from a draw of the lowest noise level. Default: as the checkpoint says.",
    )
    parser.add_argument(
        "--num_corrections", type=non_negative_int, help="Corrections of the code. Default: the checkpoint's."
    )
    parser.add_argument("--judge_steps", type=positive_int, default=1500, help="Training steps of the judge.")
    parser.add_argument("--num_draws", type=positive_int, default=19, help="Draws of each of some factuals.")
    parser.add_argument("--num_drawn_factuals", type=positive_int, default=100, help="How many they are, the first.")
    parser.add_argument("--batch_size", type=positive_int, default=250)
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True, help="Where `truth.json` is written.")
    args = parser.parse_args(argv)
    for name in ("num_codes", "num_noises"):
        if getattr(args, name) < 10:
            parser.error(f"--{name} expects at least 10, for a probe, got {getattr(args, name)}")
    if args.num_draws < 19:
        parser.error(f"--num_draws expects at least 19 draws for an interval of 90 %, got {args.num_draws}")
    return args


def measure_error(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute difference of pixels in [0, 1]."""
    return counterfactual_error(images, truth).mean().item()


def render_typefaces(world: TypefaceWorld, factual: WorldSample, digit: torch.Tensor) -> torch.Tensor:
    """The factuals' counterfactuals in each of the world's typefaces, first axis, and all else the factuals' own."""
    renderings = []
    for typeface in range(len(world.graph["exogenous_noise"]["typeface"]["labels"])):
        noise = {**factual.exogenous_noise, "typeface": torch.full_like(digit, typeface)}
        sample = WorldSample(factual.variables, noise, factual.images)
        renderings.append(world.counterfactual(sample, {"digit": digit}).images)
    return torch.stack(renderings)


def split_error(images: torch.Tensor, renderings: torch.Tensor, typeface: torch.Tensor) -> dict[str, float]:
    """Splits the error of images to the truth, which is the rendering in `typeface`, into pose and typeface."""
    errors = torch.stack([counterfactual_error(images, rendering) for rendering in renderings])
    error, nearest = errors.min(dim=0)
    rows = torch.arange(len(images))
    return {
        "pose": error.mean().item(),
        "typeface": measure_error(renderings[nearest, rows], renderings[typeface, rows]),
        "typeface identified": (nearest == typeface).double().mean().item(),
    }


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained(args.pretrained_model_name_or_path)
    pipe.set_progress_bar_config(disable=True)
    if args.dequantize is not None:
        pipe.register_to_config(dequantize=args.dequantize)
    if args.num_corrections is not None:
        pipe.encoder.register_to_config(num_corrections=args.num_corrections)

    # 1. Factuals, interventions and their truth
    world = TypefaceWorld()
    generator = torch.Generator().manual_seed(args.seed)
    factual = world.sample(args.num_samples, generator)
    digit = factual.variables["digit"]
    intervention = (digit + torch.randint(1, 10, digit.shape, generator=generator)) % 10
    truth = world.counterfactual(factual, {"digit": intervention}).images

    # 2. Controls
    reference = world.sample(args.num_references, torch.Generator().manual_seed(args.seed + 1))
    reference_class = reference.variables["digit"]
    index = torch.arange(args.num_samples)
    drawn = draw_references(index, intervention, reference_class, args.seed)
    nearest = find_nearest_references(
        factual.images.flatten(1), intervention, reference.images.flatten(1), reference_class
    )
    renderings = render_typefaces(world, factual, intervention)
    typeface = factual.exogenous_noise["typeface"]
    results = {
        "factual itself": measure_error(factual.images, truth),
        "random image of the class": measure_error(reference.images[drawn], truth),
        "nearest image of the class": measure_error(reference.images[nearest], truth),
    }

    # 3. Counterfactuals, there and back, and the null intervention
    settings = {"num_inference_steps": args.num_inference_steps, "output_type": "pt", "batch_size": args.batch_size}

    def estimate(images, target, factual_class, **kwargs):
        parts = zip(images.split(250), target.split(250), factual_class.split(250), strict=True)
        outputs = [pipe(*part, **settings, **kwargs) for part in tqdm(list(parts), "Counterfactuals")]
        return torch.cat([output.images for output in outputs], dim=-4), outputs

    counterfactual, _ = estimate(factual.images, intervention, digit)
    drawn_once, outputs = estimate(factual.images, intervention, digit, num_draws=1, generator=generator)
    noise = torch.cat([output.exogenous_noise for output in outputs], dim=1)[0]

    def encode(images, classes):
        return read_codes(
            pipe.encoder, zip((2 * images - 1).split(250), pipe.condition(classes).split(250), strict=True)
        )

    code, _, condition = encode(factual.images, digit)
    parts = zip(pipe.encoder.abduct(code, condition).split(250), intervention.split(250), strict=True)
    decoded = (torch.cat([pipe.decode(*part) for part in parts]) / 2 + 0.5).clamp(0, 1)
    results |= {
        "counterfactual": measure_error(counterfactual, truth),
        "counterfactual, one draw": measure_error(drawn_once[0], truth),
        "encoder and decoder alone": measure_error(decoded, truth),
        "error of the counterfactual, split": split_error(counterfactual, renderings, typeface),
        "error of encoder and decoder alone, split": split_error(decoded, renderings, typeface),
        "error of the nearest image, split": split_error(reference.images[nearest], renderings, typeface),
    }
    judge = train_judge(reference.images, reference_class, args.judge_steps, args.seed)
    mean, std, condition = encode(reference.images[: args.num_codes], reference_class[: args.num_codes])
    code_noise = pipe.encoder.abduct(mean + std * torch.randn(mean.shape, generator=generator), condition)
    results |= {
        "target seen by the judge": (judge(counterfactual).argmax(1) == intervention).double().mean().item(),
        "target seen by the judge in the truth": (judge(truth).argmax(1) == intervention).double().mean().item(),
        "null intervention": measure_error(estimate(factual.images, digit, digit)[0], factual.images),
        "there and back": measure_error(estimate(counterfactual, digit, intervention)[0], factual.images),
        "exogenous noise of a draw": {name: value.item() for name, value in exogenous_noise_law(noise).items()},
        "class that a probe reads from the noise of a drawn code": probe_accuracy(
            code_noise, reference_class[: args.num_codes], seed=args.seed
        ),
    }

    # 4. Draws
    first = slice(args.num_drawn_factuals)
    draws, _ = estimate(
        factual.images[first], intervention[first], digit[first], num_draws=args.num_draws, generator=generator
    )
    results |= {
        "mean of the draws": measure_error(draws.mean(0), truth[first]),
        "coverage of the 90 % interval, where draws or truth differ": coverage(draws, truth[first]).nanmean().item(),
        "coverage of the 90 % interval, where there is ink": (
            coverage(draws, truth[first], threshold=INK).nanmean().item()
        ),
        "CRPS of the draws": crps(draws, truth[first]).mean().item(),
    }

    # 5. What the spatial noise tells of the class: abduction alone, of more images
    scheduler, inverse_scheduler = pipe.prepare_schedulers(args.num_inference_steps)
    classes = reference_class[: args.num_noises]
    images = (2 * reference.images[: args.num_noises] - 1).split(250)
    for start, num_draws in (("of a draw", 1), ("without draws", None)):
        generator = torch.Generator().manual_seed(args.seed + 2)
        noises = [
            pipe._abduct(*part, scheduler, inverse_scheduler, num_draws, generator, args.batch_size, None)[0]
            for part in tqdm(list(zip(images, classes.split(250), strict=True)), f"Noise {start}")
        ]
        noise = torch.cat(noises)
        results |= {
            f"class that a probe reads from the noise {start}": probe_accuracy(noise, classes, args.seed),
            f"distance correlation of the noise {start} and the class": {
                name: value.item() for name, value in distance_correlation(noise, classes, seed=args.seed).items()
            },
        }

    print(json.dumps(results, indent=2))
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "truth.json") as path:
        path.write_text(json.dumps({"settings": vars(args), **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
