# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Shows what a confounder does to counterfactuals: how far `do(digit)` drags the hue along.

    python benchmarks/confounding.py --output_dir outputs/confounding

In the world of coloured typefaces a hidden variable causes both the digit and the hue. All networks are trained where
it does, with each strength, and their counterfactuals are measured where it doesn't. A naive mechanism knows the digit
alone; one of all parents knows the hue as well. Each is given in two ways, by an anti-causal predictor and by a
denoiser that is told the causes. Trained networks are kept in `--output_dir` and used again.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, ModelMixin, UNet2DModel
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from diffscm_diffusers import (
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMGraphCounterfactualPipeline,
    StructuralCausalModel,
)
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import fraction, non_negative_int, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error
from diffscm_diffusers.worlds import TypefaceWorld, WorldSample


NUM_CLASSES = 10
# What each method is made of: its denoiser, its predictor, and the image's parents that they know.
METHODS = {
    "naive predictor": ("unconditional denoiser", "naive predictor", ("digit",)),
    "joint predictor": ("unconditional denoiser", "joint predictor", ("digit", "hue")),
    "naive denoiser": ("denoiser told the digit", None, ("digit",)),
    "denoiser of all parents": ("denoiser told all parents", None, ("digit", "hue")),
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strengths", type=fraction, nargs="+", default=[0.0, 0.6, 0.9], help="Of the confounder.")
    parser.add_argument("--num_train", type=positive_int, default=30000, help="Training images of each strength.")
    parser.add_argument("--train_steps", type=positive_int, default=1500, help="Training steps of each network.")
    parser.add_argument("--train_batch_size", type=positive_int, default=64)
    parser.add_argument("--block_out_channels", type=positive_int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--num_samples", type=positive_int, default=200, help="Factuals, each with one intervention.")
    parser.add_argument("--num_inference_steps", type=positive_int, default=25)
    parser.add_argument("--judge_steps", type=positive_int, default=1500, help="Training steps of the judge.")
    parser.add_argument("--mixed_precision", choices=["no", "bf16"], default="no", help="While training.")
    parser.add_argument("--batch_size", type=positive_int, default=100)
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--train_only", action="store_true", help="Train the networks, and measure nothing.")
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args(argv)


def make_graph(world: TypefaceWorld, parents: tuple[str, ...]) -> CausalGraph:
    """The graph of someone who knows these parents of the image, and no confounder."""
    return CausalGraph(
        nodes={name: world.graph["nodes"][name] for name in parents}, edges=[(name, "image") for name in parents]
    )


def make_network(name: str, graph: CausalGraph, block_out_channels: list[int]) -> ModelMixin:
    """One of the networks that the methods are made of."""
    levels = len(block_out_channels)
    settings = {
        "sample_size": 28,
        "in_channels": 3,
        "block_out_channels": tuple(block_out_channels),
        "down_block_types": ("DownBlock2D",) * levels,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "add_attention": False,
    }
    if "predictor" in name:
        return CausalPredictor2DModel(condition_widths=graph.condition_widths, **settings)
    settings |= {"out_channels": 3, "up_block_types": ("UpBlock2D",) * levels}
    if name == "unconditional denoiser":
        return UNet2DModel(**settings)
    return CausalUNet2DModel(condition_widths=graph.condition_widths, **settings)


def train_network(
    network: ModelMixin, images: torch.Tensor, condition: torch.Tensor, noise_scheduler: DDIMScheduler, args, name: str
) -> ModelMixin:
    """Trains a denoiser or a predictor on noisy images, and returns its average over the training."""
    optimizer = torch.optim.AdamW(network.parameters(), args.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, args.train_steps)
    ema = EMAModel(network.parameters(), decay=0.995)
    for _ in tqdm(range(args.train_steps), f"Training the {name}"):
        rows = torch.randint(len(images), (args.train_batch_size,))
        clean, noise = 2 * images[rows] - 1, torch.randn(args.train_batch_size, *images.shape[1:])
        timesteps = torch.randint(noise_scheduler.config.num_train_timesteps, (args.train_batch_size,))
        noisy = noise_scheduler.add_noise(clean, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.mixed_precision == "bf16"):
            if isinstance(network, CausalPredictor2DModel):
                loss = -network(noisy, timesteps, condition[rows]).float().sum(dim=1).mean()
            else:
                told = [condition[rows]] if isinstance(network, CausalUNet2DModel) else []
                loss = F.mse_loss(network(noisy, timesteps, *told).sample.float(), noise)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.step(network.parameters())
    ema.copy_to(network.parameters())
    return network.eval()


def prepare_networks(
    world: TypefaceWorld, noise_scheduler: DDIMScheduler, args, folder: Path
) -> dict[str, ModelMixin]:
    """Loads the networks of one strength, or trains them."""
    parents = {name: METHODS[method][2] for method in METHODS for name in METHODS[method][:2] if name is not None}
    networks, sample = {}, None
    for index, (name, known) in enumerate(parents.items()):
        path, graph = folder / name.replace(" ", "-"), make_graph(world, known)
        torch.manual_seed(args.seed + index)
        network = make_network(name, graph, args.block_out_channels)
        if path.exists():
            network = type(network).from_pretrained(path)
        else:
            sample = sample or world.sample(args.num_train, torch.Generator().manual_seed(args.seed + 1))
            condition = graph.condition({parent: sample.variables[parent] for parent in known})
            network = train_network(network, sample.images, condition, noise_scheduler, args, name)
            with written_whole(path) as unfinished:
                network.save_pretrained(unfinished)
        networks[name] = network.eval()
    return networks


def train_judge(sample: WorldSample, num_steps: int, seed: int) -> torch.nn.Module:
    """A classifier of digits that sees no colours."""
    torch.manual_seed(seed)
    judge = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 24, 5, 2, 2), torch.nn.ReLU(), torch.nn.Conv2d(24, 48, 3, 2, 1), torch.nn.ReLU()),
        *(torch.nn.Flatten(), torch.nn.Linear(48 * 7 * 7, 128), torch.nn.ReLU(), torch.nn.Linear(128, NUM_CLASSES)),
    )
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3)
    for _ in tqdm(range(num_steps), "Training the judge"):
        rows = torch.randint(len(sample), (128,))
        loss = F.cross_entropy(judge(to_grey(sample.images[rows])), sample.variables["digit"][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return judge.eval()


def to_grey(images: torch.Tensor) -> torch.Tensor:
    """The ink of coloured images: a hue of full saturation and value has one channel of 1."""
    return images.amax(dim=1, keepdim=True)


def measure_hue(images: torch.Tensor) -> torch.Tensor:
    """The hue of the mean colour of each image, in turns."""
    red, green, blue = images.mean(dim=(2, 3)).unbind(1)
    return torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi) % 1


def circular_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """From `b` to `a` the shorter way, in turns."""
    return (a - b + 0.5) % 1 - 0.5


def measure(
    images: torch.Tensor, factual: WorldSample, truth: WorldSample, judge: torch.nn.Module
) -> dict[str, float]:
    """What counterfactuals reach under `do(digit)`."""
    target = truth.variables["digit"]
    moved = circular_difference(measure_hue(images), measure_hue(factual.images))
    # Where the confounded data have the target's hue.
    pull = circular_difference(target / NUM_CLASSES + 0.05, factual.variables["hue"])
    return {
        "hue moved, in turns": moved.abs().mean().item(),
        "hue dragged to the target's, in turns": (moved * pull.sign()).mean().item(),
        "error to truth": counterfactual_error(images, truth.images).mean().item(),
        "target seen by the judge": (judge(to_grey(images)).argmax(1) == target).double().mean().item(),
    }


def draw_figure(results: dict[str, dict[str, dict[str, float]]], path: Path):
    """Strength across, hue dragged upwards."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    strengths = sorted(results, key=float)
    for panel, quantity in zip(axes, ("hue dragged to the target's, in turns", "error to truth"), strict=True):
        for method in METHODS:
            values = [results[strength][method][quantity] for strength in strengths]
            panel.plot([float(strength) for strength in strengths], values, marker="o", label=method)
        panel.set_xlabel("strength of the confounder in training")
        panel.set_ylabel(quantity)
    axes[0].axhline(0, color="grey", linewidth=0.8)
    axes[0].legend()
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")
    plt.close(figure)


def main(argv=None):
    args = parse_args(argv)
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    noise_scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)

    # 1. Factuals, interventions and truth without the confounder
    fair = TypefaceWorld(color=True, confounding=0.0)
    generator = torch.Generator().manual_seed(args.seed)
    factual = fair.sample(args.num_samples, generator)
    digit = factual.variables["digit"]
    target = (digit + torch.randint(1, NUM_CLASSES, digit.shape, generator=generator)) % NUM_CLASSES
    truth = fair.counterfactual(factual, {"digit": target})
    judge = None

    # 2. Each strength: networks, counterfactuals, measures
    results = {}
    for strength in args.strengths:
        world = TypefaceWorld(color=True, confounding=strength)
        networks = prepare_networks(world, noise_scheduler, args, folder / f"strength-{strength:g}")
        if args.train_only:
            continue
        if judge is None:
            judge = train_judge(fair.sample(20000, torch.Generator().manual_seed(args.seed + 2)), args.judge_steps, 0)
        measures = {}
        for method, (denoiser, predictor, known) in METHODS.items():
            scm = StructuralCausalModel(make_graph(world, known).to_dict())
            seen = world.sample(5000, torch.Generator().manual_seed(args.seed + 1))
            scm.fit({name: seen.variables[name] for name in known})
            pipe = DiffSCMGraphCounterfactualPipeline(
                networks[denoiser], noise_scheduler, None, scm, predictor=networks.get(predictor)
            )
            counterfactual = pipe(
                factual.images,
                attributes={name: factual.variables[name] for name in known},
                do={"digit": target},
                num_inference_steps=args.num_inference_steps,
                batch_size=args.batch_size,
                output_type="pt",
            )
            with torch.no_grad():
                measures[method] = measure(counterfactual.images, factual, truth, judge)
        with torch.no_grad():
            measures["the factual itself"] = measure(factual.images, factual, truth, judge)
            measures["the truth"] = measure(truth.images, factual, truth, judge)
        results[f"{strength:g}"] = measures
        print(json.dumps({f"{strength:g}": measures}, indent=2))
    if args.train_only:
        return

    # 3. Table and figure
    with written_whole(folder / "confounding.json") as path:
        path.write_text(json.dumps({"settings": vars(args), "results": results}, indent=2) + "\n")
    draw_figure(results, folder / "confounding.png")


if __name__ == "__main__":
    main()
