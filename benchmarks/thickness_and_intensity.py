# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures counterfactuals of thickness and intensity against their truth in the world of Morpho-MNIST.

    python benchmarks/thickness_and_intensity.py --dataset_name ylecun/mnist --output_dir outputs/thickness

The base digits are those of `--split`, and the values of an intervention are those of other samples. Thickness and
intensity are measured in the image and compared with the same measurement of the true counterfactual. Where the values
are less probable together than those of all but 1 % of the data, by the structural causal model, counterfactuals are
extrapolations: those inside that support are measured apart, too. VAEs, as `--baselines`, get the same samples, and
the same structural causal model of the attributes.

No one knows how another digit would have looked. Of `do(digit)`, a judge says whether the digit is seen: a small
classifier that is trained here, on digits of `--train_split` under thickness and intensity of the world. Thickness and
intensity should stay as they are.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset
from judges import train_judge

from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from diffscm_diffusers.baselines import VAECounterfactualPipeline
from diffscm_diffusers.baselines.vae_pipeline import load_vae
from diffscm_diffusers.evaluation.criteria import INK
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_float, positive_int
from diffscm_diffusers.metrics import probe_accuracy, probe_r2
from diffscm_diffusers.metrics.functional import counterfactual_error, coverage, crps, exogenous_noise_law
from diffscm_diffusers.training.code_mechanism import read_codes
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
    parser.add_argument("--train_split", default="train[:10000]", help="Base digits of what the judge is trained on.")
    parser.add_argument("--num_samples", type=positive_int, default=500)
    parser.add_argument(
        "--num_train", type=positive_int, default=10000, help="Images of the judge, and of a probe on codes."
    )
    parser.add_argument("--num_noises", type=positive_int, default=1000, help="Images of a probe on spatial noise.")
    parser.add_argument("--judge_steps", type=positive_int, default=1500, help="Training steps of the judge.")
    parser.add_argument("--num_draws", type=positive_int, default=19, help="Draws of each of some factuals.")
    parser.add_argument("--num_drawn_factuals", type=positive_int, default=50, help="How many they are, the first.")
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default: the checkpoint's.")
    parser.add_argument(
        "--dequantize",
        action=argparse.BooleanOptionalAction,
        help="Whether abduction starts from a draw of the lowest noise level. Default: as the checkpoint says.",
    )
    parser.add_argument(
        "--num_corrections", type=non_negative_int, help="Corrections of the code. Default: the checkpoint's."
    )
    parser.add_argument(
        "--abduction", choices=["source", "destination", "implicit"], help="Default: the checkpoint's."
    )
    parser.add_argument("--tolerance", type=positive_float, help="Of implicit abduction. Default: the checkpoint's.")
    parser.add_argument("--max_iterations", type=positive_int, default=40, help="Of implicit abduction.")
    parser.add_argument("--batch_size", type=positive_int, default=100)
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True, help="Where `thickness_and_intensity.json` is written.")
    args = parser.parse_args(argv)
    for name in ("num_train", "num_noises"):
        if getattr(args, name) < 10:
            parser.error(f"--{name} expects at least 10, for a probe, got {getattr(args, name)}")
    if args.num_draws < 19:
        parser.error(f"--num_draws expects at least 19 draws for an interval of 90 %, got {args.num_draws}")
    return args


def measure_error(images: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute difference of pixels in [0, 1]."""
    return counterfactual_error(images, truth).mean().item()


def measure_differences(images: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
    """How far apart the attributes are that are measured in each image and in the other one."""
    return {
        "thickness": (measure_thickness(images) - measure_thickness(others)).abs(),
        "intensity": (measure_intensity(images) - measure_intensity(others)).abs(),
    }


def measure_images(images: torch.Tensor, truth: WorldSample) -> dict[str, torch.Tensor]:
    """Errors of each image, and of what is measured in it, beside the truth."""
    return {
        "error to the truth": counterfactual_error(images, truth.images),
        **{f"error of the {name}": error for name, error in measure_differences(images, truth.images).items()},
    }


def measure_intervention(
    pipe, factual: WorldSample, truth: WorldSample, do: dict, is_inside: torch.Tensor, settings: dict
) -> dict:
    """
    Measures of one intervention on each sample, beside the truth, and of the way back from there. Those whose
    attributes are probable together, as `is_inside` says, are measured apart, too: the others are extrapolations.
    """
    output = pipe(factual.images, attributes=factual.variables, do=do, **settings)
    back = {node: factual.variables[node] for node in do}
    returned = pipe(output.images, attributes=output.counterfactual_attributes, do=back, **settings).images
    errors = measure_images(output.images, truth)
    measures = {
        **errors,
        "the factual itself": measure_error(factual.images, truth.images),
        "error of the intensity that the structural causal model predicts": (
            output.counterfactual_attributes["intensity"] - truth.variables["intensity"]
        ).abs(),
        "there and back": measure_error(returned, factual.images),
    }
    for name in errors if is_inside.any() else ():
        measures[f"{name}, inside the support"] = errors[name][is_inside]
    # What a code or latents mean, without any noise of pixels.
    alone, condition = {}, pipe.scm.graph.condition(output.counterfactual_attributes)
    if isinstance(pipe, VAECounterfactualPipeline):
        decoded = pipe.vae.decode(output.latents, condition)[0].clamp(-1, 1)
        alone["error to the truth"] = counterfactual_error((decoded + 1) / 2, truth.images)
    elif pipe.encoder is not None:
        decoded = pipe.encoder.decode(pipe.encoder.predict(output.code, condition), condition)
        alone = measure_images((decoded + 1) / 2, truth)
    measures.update({f"{name}, encoder and decoder alone": value for name, value in alone.items()})
    return measures


def read_noise(pipe, test: WorldSample, train: WorldSample, generator: torch.Generator, settings: dict) -> list[tuple]:
    """The parts of the exogenous noise, drawn, each with its name and the attributes of its images."""
    settings = {name: value for name, value in settings.items() if name != "output_type"}
    draw = pipe.abduct(test.images, test.variables, num_draws=1, generator=generator, **settings)
    parts = [("the noise of a draw", draw.exogenous_noise, test.variables)]
    if pipe.encoder is not None:
        conditions = pipe.scm.graph.condition(train.variables)
        batches = zip((2 * train.images - 1).split(250), conditions.split(250), strict=True)
        mean, std, _ = read_codes(pipe.encoder, batches)
        code = mean + std * torch.randn(mean.shape, generator=generator)
        parts.append(("the noise of a drawn code", pipe.encoder.abduct(code, conditions), train.variables))
    return parts


def measure_digit(pipe, judge: torch.nn.Module, factual: WorldSample, digit: torch.Tensor, settings: dict) -> dict:
    """Measures of `do(digit)` that need no truth."""
    output = pipe(factual.images, attributes=factual.variables, do={"digit": digit}, **settings)
    back = {"digit": factual.variables["digit"]}
    returned = pipe(output.images, attributes=output.counterfactual_attributes, do=back, **settings).images
    changes = measure_differences(output.images, factual.images)
    return {
        "digit seen by the judge": judge(output.images).argmax(dim=1) == digit,
        "digit seen by the judge in the factual": judge(factual.images).argmax(dim=1) == factual.variables["digit"],
        **{f"change of the {name}": change for name, change in changes.items()},
        "there and back": measure_error(returned, factual.images),
    }


def measure_same_attributes(world: MorphoMNISTWorld, sample: WorldSample) -> dict[str, torch.Tensor]:
    """Differences between each digit and another one of the same thickness and intensity, as the world renders it."""
    do = {name: sample.variables[name].roll(1) for name in ("thickness", "intensity")}
    return measure_differences(world.counterfactual(sample, do).images, sample.images.roll(1, dims=0))


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(args.pretrained_model_name_or_path)
    if args.dequantize is not None:
        pipe.register_to_config(dequantize=args.dequantize)
    if args.num_corrections is not None:
        pipe.encoder.register_to_config(num_corrections=args.num_corrections)
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
        is_inside = pipe.scm.log_prob(truth.variables) >= pipe.scm.log_prob_quantile
        results[f"inside the support under do({node})"] = {"samples": is_inside.sum().item()}
        for method, (estimator, call) in methods.items():
            results[f"do({node}), {method}"] = measure_intervention(estimator, factual, truth, do, is_inside, call)

    train = MorphoMNISTWorld.from_dataset(load_dataset(args.dataset_name, split=args.train_split))
    train = train.sample(args.num_train, generator)
    judge = train_judge(train.images, train.variables["digit"], args.judge_steps, args.seed)
    factual_digit = factual.variables["digit"]
    digit = (factual_digit + torch.randint(1, 10, factual_digit.shape, generator=generator)) % 10
    for method, (estimator, call) in methods.items():
        results[f"do(digit), {method}"] = measure_digit(estimator, judge, factual, digit, call)

    # 2. The null intervention, and a draw of the noise
    null = {"digit": factual.variables["digit"]}
    images = pipe(factual.images, attributes=factual.variables, do=null, **settings).images
    draw = pipe(factual.images, attributes=factual.variables, do=null, num_draws=1, generator=generator, **settings)
    results["null intervention"] = {
        "difference from the factual": measure_error(images, factual.images),
        "difference of a draw": measure_error(draw.images[0], factual.images),
        **exogenous_noise_law(draw.exogenous_noise[0]),
    }

    # 3. Draws
    first = slice(args.num_drawn_factuals)
    some = {name: value[first] for name, value in factual.variables.items()}
    for node in ("thickness", "intensity"):
        truth = world.counterfactual(factual, {node: other.variables[node]}).images[first]
        do = {node: other.variables[node][first]}
        draws = pipe(
            factual.images[first],
            attributes=some,
            do=do,
            num_draws=args.num_draws,
            generator=generator,
            **settings,
        ).images
        results[f"draws of do({node})"] = {
            "coverage of the 90 % interval, where draws or truth differ": coverage(draws, truth).nanmean(),
            "coverage of the 90 % interval, where there is ink": coverage(draws, truth, threshold=INK).nanmean(),
            "CRPS": crps(draws, truth),
            "error of the mean": measure_error(draws.mean(dim=0), truth),
        }

    # 4. What the noise tells of its causes
    test = world.sample(args.num_noises, generator)
    for part, noise, causes in read_noise(pipe, test, train, generator, settings):
        digit_read = probe_accuracy(noise, causes["digit"])
        results[f"what a probe reads from {part}"] = {
            "digit": digit_read["accuracy"],
            "digit, chance": digit_read["chance"],
            "thickness, R2": probe_r2(noise, causes["thickness"]),
            "intensity, R2": probe_r2(noise, causes["intensity"]),
        }

    # 5. How far an attribute decides what is measured
    results["two samples of the same attributes"] = measure_same_attributes(world, test)

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
