# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures how far do(digit) drags the hue where a confounder made digit and hue go together in training.

    python benchmarks/confounding.py --output_dir outputs/confounding

or, on two cores,

    OMP_NUM_THREADS=2 python benchmarks/confounding.py --strengths 0.9 --train_batch_size 64 --mixed_precision bf16 \
        --denoiser_steps 3000 --predictor_steps 2000 --encoder_steps 1500 --output_dir outputs/confounding

Printed digits in colour: at each strength, networks are trained on confounded images and tested on unconfounded ones,
whose true counterfactuals keep the hue. The methods are

- the naive predictor: an unconditional denoiser, and a predictor of digit and hue, each without the other;
- the class-conditional denoiser: told the digit alone;
- the joint predictor: the same by the chain rule, the hue told the digit;
- the conditional denoiser: told digit and hue;
- the two denoisers with a semantic code, whose encoder is told what the denoiser is.

One denoiser, whose parents are dropped at random, serves all methods without a code. Every network lies in a folder of
its own in `--output_dir`: one that is complete is never trained again, and one that is not goes on from its last
checkpoint. Writes `confounding.json` and the figure `confounding.png`.
"""

import argparse
import copy
import importlib
import json
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import torch
from diffusers import DDPMScheduler
from diffusers.configuration_utils import FrozenDict
from diffusers.utils.torch_utils import get_device
from judges import train_judge
from matplotlib.figure import Figure

from diffscm_diffusers import (
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMDDIMScheduler,
    DiffSCMGraphCounterfactualPipeline,
    SemanticEncoder2DModel,
)
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.commands import make_world
from diffscm_diffusers.figures import STYLE
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import fraction, non_negative_int, positive_int, rate
from diffscm_diffusers.metrics.functional import exogenous_noise_law
from diffscm_diffusers.models import StructuralCausalModel
from diffscm_diffusers.worlds import TypefaceWorld, WorldSample


ROOT = Path(__file__).resolve().parents[1]
NODES = {
    "digit": {"kind": "categorical", "labels": [str(digit) for digit in range(10)]},
    "hue": {"kind": "continuous", "range": [0.0, 1.0], "unit": "turns"},
}
# What each network is trained by, and what it is told: the script, the graph and further flags.
NETWORKS = {
    "denoiser": ("train_diffusion", ("digit", "hue"), ["--parent_dropout", "0.3"]),
    "joint-predictor": ("train_classifier", ("digit", "hue"), []),
    "naive-predictor": ("train_classifier", ("digit", "hue"), ["--not_chained"]),
    "encoder": ("train_semantic_encoder", ("digit", "hue"), []),
    "digit-encoder": ("train_semantic_encoder", ("digit",), []),
    "denoiser-of-code": ("train_diffusion", ("digit", "hue"), ["--parent_dropout", "0"]),
    "digit-denoiser-of-code": ("train_diffusion", ("digit",), ["--parent_dropout", "0"]),
}
# The denoiser of each method, and what is beside it. `told` leaves it some parents only: digit and hue.
METHODS = {
    "naive predictor": {"unet": "denoiser", "told": [False, False], "predictor": "naive-predictor"},
    "class-conditional denoiser": {"unet": "denoiser", "told": [True, False]},
    "class-conditional denoiser, code": {
        "unet": "digit-denoiser-of-code",
        "parents": ("digit",),
        "encoder": "digit-encoder",
    },
    "joint predictor": {"unet": "denoiser", "told": [False, False], "predictor": "joint-predictor"},
    "conditional denoiser": {"unet": "denoiser"},
    "conditional denoiser, code": {"unet": "denoiser-of-code", "encoder": "encoder"},
}
ENCODERS = {method["unet"]: method["encoder"] for method in METHODS.values() if "encoder" in method}
SIZES = {
    "train_diffusion": {"block_out_channels": [32, 64, 96], "layers_per_block": 1},
    "train_classifier": {"block_out_channels": [32, 64, 128, 128], "layers_per_block": 1},
    "train_semantic_encoder": {"block_out_channels": [32, 64, 96], "hidden_features": 256, "code_dim": 24},
}
# The flag that says how long each script trains.
STEPS = {
    "train_diffusion": "denoiser_steps",
    "train_classifier": "predictor_steps",
    "train_semantic_encoder": "encoder_steps",
}
QUICK_SIZES = {
    "train_diffusion": {"block_out_channels": [8, 8, 8], "layers_per_block": 1},
    "train_classifier": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1},
    "train_semantic_encoder": {"block_out_channels": [4, 4, 4], "hidden_features": 8, "code_dim": 7},
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strengths", type=rate, nargs="+", default=[0.0, 0.5, 0.9, 0.95], help="Of the confounder.")
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="Train for these, and measure them."
    )
    parser.add_argument(
        "--pretrained_model_name_or_path", help="Measure this checkpoint of digit and hue instead, and train nothing."
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="Train these only, and measure nothing.")
    parser.add_argument("--num_train", type=positive_int, default=20000, help="Training images of each strength.")
    parser.add_argument("--denoiser_steps", type=positive_int, default=6000, help="Training steps of each denoiser.")
    parser.add_argument("--predictor_steps", type=positive_int, default=6000, help="Of each predictor.")
    parser.add_argument(
        "--num_components", type=positive_int, default=8, help="Gaussians in the mixture of a predictor's hue."
    )
    parser.add_argument("--encoder_steps", type=positive_int, default=6000, help="Of each encoder.")
    parser.add_argument("--train_batch_size", type=positive_int, default=128)
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no", help="In training.")
    parser.add_argument(
        "--balance_causes",
        type=fraction,
        help="Share of the training rows that is drawn as if digit and hue were independent.",
    )
    parser.add_argument("--num_samples", type=positive_int, default=500, help="Factuals, each with one intervention.")
    parser.add_argument("--num_inference_steps", type=positive_int, default=50, help="Of the methods trained here.")
    parser.add_argument("--judge_steps", type=positive_int, default=1500, help="Training steps of the judge.")
    parser.add_argument("--batch_size", type=positive_int, default=125, help="Images that the networks see at once.")
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--quick", action="store_true", help="Tiny networks, to see that everything runs.")
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args(argv)


def get_graph(parents: tuple[str, ...]) -> CausalGraph:
    return CausalGraph({name: NODES[name] for name in parents}, [[name, "image"] for name in parents])


def train(name: str, folder: Path, data: Path, args) -> Path:
    """Trains one network, unless it is there, and returns its folder."""
    script, parents, flags = NETWORKS[name]
    num_steps = getattr(args, STEPS[script])
    output = folder / name
    if (output / "README.md").exists():  # the last file that a script writes
        return output
    sizes = (QUICK_SIZES if args.quick else SIZES)[script]
    config = {"sample_size": 28, "in_channels": 3, **sizes}
    if script == "train_semantic_encoder":
        config["condition_dim"] = sum(get_graph(parents).condition_widths.values())
    else:
        if script == "train_classifier":
            config["num_components"] = args.num_components
        levels = len(sizes["block_out_channels"])
        config |= {"norm_num_groups": 8, "add_attention": False, "resnet_time_scale_shift": "scale_shift"}
        config["down_block_types"] = ["DownBlock2D"] * levels
    if script == "train_diffusion":
        config |= {"out_channels": 3, "up_block_types": ["UpBlock2D"] * levels}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in (("config", config), ("graph", get_graph(parents).to_dict())):
        with written_whole(folder / f"{name}-{path}.json") as unfinished:
            unfinished.write_text(json.dumps(text))
    flags = [
        *("--dataset_name", str(data), "--cache_dir", str(folder / "cache"), "--output_dir", str(output)),
        *("--graph", str(folder / f"{name}-graph.json"), *flags, "--report_to", "none", "--seed", str(args.seed)),
        *("--model_config_name_or_path", str(folder / f"{name}-config.json"), "--use_ema", "--cache_images"),
        *("--max_train_steps", str(num_steps), "--train_batch_size", str(args.train_batch_size)),
        *("--lr_scheduler", "cosine", "--lr_warmup_steps", str(num_steps // 20)),
        *("--mixed_precision", args.mixed_precision),
        *("--checkpointing_steps", "500", "--checkpoints_total_limit", "1", "--validation_steps", "1000000"),
    ]
    if script == "train_diffusion":
        # Brightness is learned sooner than from the noise.
        flags += ["--prediction_type", "v_prediction"]
    if args.balance_causes is not None and len(parents) > 1:
        flags += ["--balance_causes", str(args.balance_causes)]
    if name in ENCODERS:
        flags += ["--encoder", str(folder / ENCODERS[name])]
    if script != "train_semantic_encoder":  # which has its own
        flags += ["--learning_rate", "5e-4"]
    if any(output.glob("checkpoint-*")):
        flags += ["--resume_from_checkpoint", "latest"]
    sys.path.insert(0, str(ROOT / "train_scripts"))
    importlib.import_module(script).main(flags)
    return output


def restrict(unet: CausalUNet2DModel, told: list[bool]) -> CausalUNet2DModel:
    """A denoiser that is told some parents only, or none, with the weights of one whose parents were dropped."""
    restricted = copy.copy(unet)

    def forward(sample, timestep, condition=None, keep=None):
        if condition is None:
            condition = sample.new_zeros(len(sample), sum(unet.condition_widths.values()))
        return unet(sample, timestep, condition, torch.tensor(told, device=sample.device).expand(len(sample), -1))

    restricted.forward = forward
    if not any(told):
        config = {name: value for name, value in unet.config.items() if name != "condition_widths"}
        restricted._internal_dict = FrozenDict(config)
    return restricted


def get_pipes(
    folder: Path, columns: dict, scm_steps: int, methods: list[str]
) -> dict[str, DiffSCMGraphCounterfactualPipeline]:
    """The methods, by name."""
    scms = {}
    for parents in (("digit", "hue"), ("digit",)):
        table = pd.DataFrame({name: columns[name] for name in parents})
        scm = StructuralCausalModel(get_graph(parents))
        scms[parents] = scm.fit(table, num_steps=scm_steps, progress_bar=False)

    unets = {}

    def make(unet, told=None, parents=("digit", "hue"), predictor=None, encoder=None):
        noise_scheduler = DDPMScheduler.from_pretrained(folder / unet, subfolder="scheduler")
        if unet not in unets:
            unets[unet] = CausalUNet2DModel.from_pretrained(folder / unet, subfolder="unet")
        unet = unets[unet] if told is None else restrict(unets[unet], told)
        scheduler = DiffSCMDDIMScheduler.from_config(
            noise_scheduler.config, timestep_spacing="quadratic", clip_sample=False
        )
        if predictor is not None:
            predictor = CausalPredictor2DModel.from_pretrained(folder / predictor)
        if encoder is not None:
            encoder = SemanticEncoder2DModel.from_pretrained(folder / encoder)
        pipe = DiffSCMGraphCounterfactualPipeline(unet, scheduler, None, scms[parents], predictor, encoder)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(get_device())

    return {method: make(**METHODS[method]) for method in methods}


def measure_hue(images: torch.Tensor) -> torch.Tensor:
    """The hue of the ink in RGB images in [0, 1], in turns."""
    red, green, blue = images.clamp(0, 1).sum(dim=(2, 3)).unbind(dim=1)
    return torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi) % 1


def turns_between(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How far two hues are apart on the circle, in turns from 0 to 0.5."""
    return ((second - first + 0.5) % 1 - 0.5).abs()


def draw(results: dict[str, dict[str, dict]]) -> Figure:
    """Hue dragged, effectiveness and error of each method, over the strength of the confounder."""
    panels = (
        ("hue dragged", "hue changed by do(digit), turns"),
        ("error to the truth", "error to the truth, L1"),
        ("effectiveness", "digit seen by the judge"),
    )
    strengths = [float(strength) for strength in results]
    figure = Figure(figsize=(6.5, 2.4), layout="constrained")
    for axes, (measure, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for i, method in enumerate(next(iter(results.values()))):
            values = [methods[method][measure] for methods in results.values()]
            axes.plot(strengths, values, "o-" if i < 3 else "s--", color=f"C{i}", label=method, markersize=3)
        axes.set(xlabel="strength of the confounder", ylabel=label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def measure_checkpoint(path: str, factual: WorldSample, digit: torch.Tensor, batch_size: int, measure) -> dict:
    """Measures of a checkpoint as it ships, beside the truth and by the criteria that need none."""
    pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained(path).to(get_device())
    attributes = {name: factual.variables[name] for name in pipe.scm.graph.attributes}

    def estimate(images, attributes, do, **draws):
        return pipe(images, attributes, do, batch_size=batch_size, output_type="pt", **draws)

    factual_digit = {"digit": attributes["digit"]}
    output = estimate(factual.images, attributes, {"digit": digit})
    returned = estimate(output.images, output.counterfactual_attributes, factual_digit)
    null = estimate(factual.images, attributes, factual_digit)
    draw = estimate(factual.images, attributes, factual_digit, num_draws=1, generator=torch.Generator().manual_seed(0))
    return {
        **measure(output.images.cpu()),
        "there and back": (returned.images.cpu() - factual.images).abs().mean().item(),
        "null intervention": (null.images.cpu() - factual.images).abs().mean().item(),
        "exogenous noise of a draw": {
            name: value.item() for name, value in exogenous_noise_law(draw.exogenous_noise[0]).items()
        },
    }


def write(output: Path, summary: dict) -> None:
    with written_whole(output / "confounding.json") as unfinished:
        unfinished.write_text(json.dumps(summary, indent=2) + "\n")


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    if args.quick:
        args.num_train, args.train_batch_size, args.judge_steps = 40, 8, 2
        args.denoiser_steps = args.predictor_steps = args.encoder_steps = 2
        args.num_samples, args.num_inference_steps = 4, 2
    output = Path(args.output_dir)

    # 1. Networks
    worlds = {}
    for strength in args.strengths if args.pretrained_model_name_or_path is None else ():
        folder = output / f"strength-{strength:g}"
        data = folder / "data"
        if not (data / "README.md").exists():
            make_world.main(
                [
                    *("typeface", "--color", "--confounding", str(strength), "--num_train", str(args.num_train)),
                    *("--num_test", "40", "--seed", str(args.seed), "--output_dir", str(data)),
                ]
            )
        with torch.enable_grad():
            parts = ("unet", "predictor", "encoder")
            needed = {METHODS[method].get(part) for method in args.methods for part in parts}
            for name in args.networks or [name for name in NETWORKS if name in needed]:
                train(name, folder, data, args)
        worlds[strength] = TypefaceWorld(color=True, confounding=strength)
    if args.networks:
        return

    # 2. Factuals without confounding, their truth, and a judge
    world, generator = TypefaceWorld(color=True, confounding=0.0), torch.Generator().manual_seed(args.seed + 1)
    factual = world.sample(args.num_samples, generator)
    digit = (factual.variables["digit"] + torch.randint(1, 10, (args.num_samples,), generator=generator)) % 10
    truth = world.counterfactual(factual, {"digit": digit})
    real = world.sample(args.num_train, generator)
    # The judge does not see the colour.
    judge = train_judge(real.images.amax(dim=1, keepdim=True), real.variables["digit"], args.judge_steps, args.seed)

    def measure(images):
        seen = judge(images.amax(dim=1, keepdim=True)).argmax(dim=1)
        return {
            "hue dragged": turns_between(measure_hue(factual.images), measure_hue(images)).mean().item(),
            "error to the truth": (images - truth.images).abs().mean().item(),
            "effectiveness": (seen == digit).float().mean().item(),
        }

    # 3. A checkpoint, or the methods
    results = {}
    if args.pretrained_model_name_or_path is not None:
        checkpoint = measure_checkpoint(args.pretrained_model_name_or_path, factual, digit, args.batch_size, measure)
        write(output, {"settings": vars(args), "truth": measure(truth.images), "checkpoint": checkpoint})
        print(json.dumps(checkpoint, indent=2))
        return
    for strength, confounded in worlds.items():
        columns = confounded.sample(args.num_train, torch.Generator().manual_seed(args.seed + 2)).variables
        columns = {name: value.numpy() for name, value in columns.items()}
        results[f"{strength:g}"], folder = {}, output / f"strength-{strength:g}"
        for name, pipe in get_pipes(folder, columns, 5 if args.quick else 300, args.methods).items():
            attributes = {node: factual.variables[node] for node in pipe.scm.graph.attributes}
            images = pipe(
                factual.images,
                attributes,
                {"digit": digit},
                num_inference_steps=args.num_inference_steps,
                abduction="source",
                batch_size=args.batch_size,
                output_type="pt",
            ).images.cpu()
            results[f"{strength:g}"][name] = measure(images)
            print(f"strength {strength:g}, {name}: {results[f'{strength:g}'][name]}")

    summary = {
        "settings": {name: value for name, value in vars(args).items() if name not in ("output_dir", "networks")},
        "truth": measure(truth.images),
        "factual": measure(factual.images),
        "methods": results,
    }
    write(output, summary)
    with matplotlib.rc_context(STYLE), written_whole(output / "confounding.png") as unfinished:
        draw(results).savefig(unfinished, format="png")


if __name__ == "__main__":
    main()
