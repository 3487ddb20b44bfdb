# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures the time and memory of a counterfactual, side by side in one run: our pipeline against a loop over stock
diffusers and against the bare calls of its networks, the pipeline of causal graphs against it on networks of the same
size, and the checkpoint's preset "fast" against its preset "paper".

    python benchmarks/pipeline_speed.py --checkpoint checkpoints/diffscm-mnist --output_dir outputs/pipeline-speed

Runs of what is compared take turns, and ratios are those of neighbouring runs, by elapsed time and by the processor
time of this process, on which other processes weigh less. Writes `results.json` and prints tables in Markdown. Memory
is the process's as Linux reports it or, on a GPU, what torch allocated there.
"""

import argparse
import inspect
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMInverseScheduler, DDIMScheduler
from PIL import Image

from diffscm_diffusers import (
    CausalGraph,
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMCounterfactualPipeline,
    DiffSCMGraphCounterfactualPipeline,
    StructuralCausalModel,
)
from diffscm_diffusers.causal_graphs import Node
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import positive_int


ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-mnist"))
    parser.add_argument("--dataset", type=Path, default=ROOT / "examples" / "digits", help="Folder of factual PNGs.")
    parser.add_argument(
        "--batch_size", type=positive_int, default=10, help="How many factuals; those of the folder, over and over."
    )
    parser.add_argument("--repeats", type=positive_int, default=3, help="Timed runs of each but the paper's.")
    parser.add_argument("--paper_steps", type=positive_int, default=1000, help="Each way, run once.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--skip_compile", action="store_true", help="Measure nothing with compiled networks.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/pipeline-speed"))
    parser.add_argument("--memory_of", choices=list(MEMORY), help="Only run this once and print its memory as JSON.")
    return parser.parse_args(argv)


def load_pipeline(args) -> tuple[DiffSCMCounterfactualPipeline, torch.Tensor, torch.Tensor]:
    """Returns the pipeline, factuals in [0, 1], and for each the class after the one that it is taken for."""
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(args.checkpoint).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    paths = sorted(args.dataset.glob("*.png"))
    if not paths:
        raise ValueError(f"`--dataset` takes a folder of PNG files, got {str(args.dataset)!r}, which has none.")
    mode = "L" if pipe.unet.config.in_channels == 1 else "RGB"
    images = [Image.open(path).convert(mode) for path in itertools.islice(itertools.cycle(paths), args.batch_size)]
    sample = pipe.prepare_image(images)
    with torch.no_grad():
        classes = pipe.classifier(sample, 0).logits.argmax(1)
    return pipe, sample / 2 + 0.5, (classes + 1) % pipe.classifier.config.num_classes


def run_stock(pipe, factuals, targets, num_inference_steps: int, guidance_scale: float) -> torch.Tensor:
    """Diff-SCM as it is written with diffusers' own schedulers: inversion, then classifier guidance."""
    inverse_scheduler = DDIMInverseScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    inverse_scheduler.set_timesteps(num_inference_steps)
    scheduler.set_timesteps(num_inference_steps)

    sample = factuals * 2 - 1
    for t in inverse_scheduler.timesteps:
        with torch.no_grad():
            noise_pred = pipe.unet(sample, t).sample
        sample = inverse_scheduler.step(noise_pred, t, sample).prev_sample
    for t in scheduler.timesteps:
        with torch.no_grad():
            noise_pred = pipe.unet(sample, t).sample
        if guidance_scale > 0:
            sample = sample.requires_grad_()
            log_probs = F.log_softmax(pipe.classifier(sample, t).logits, dim=-1)
            selected = log_probs[range(len(targets)), targets]
            gradient = torch.autograd.grad(selected.sum(), sample)[0]
            sample = sample.detach()
            noise_pred = noise_pred - guidance_scale * (1 - scheduler.alphas_cumprod[t]).sqrt() * gradient
        sample = scheduler.step(noise_pred, t, sample).prev_sample
    return (sample / 2 + 0.5).clamp(0, 1)


def run_networks(pipe, factuals, targets, num_inference_steps: int) -> None:
    """The calls of the networks in a guided counterfactual, at their least, and nothing between them."""
    pipe.classifier.requires_grad_(False)  # the gradient is towards the image only
    stride = pipe.scheduler.config.num_train_timesteps // num_inference_steps
    timesteps = range(0, num_inference_steps * stride, stride)
    with torch.no_grad():
        for t in timesteps:  # abduction
            pipe.unet(factuals, t)
        for t in reversed(timesteps):  # prediction
            pipe.unet(factuals, t)
            with torch.enable_grad():
                sample = factuals.detach().requires_grad_()
                log_probs = F.log_softmax(pipe.classifier(sample, t).logits, dim=-1)
                torch.autograd.grad(log_probs.gather(1, targets[:, None]).sum(), sample)
        pipe.classifier(factuals, 0)  # the counterfactuals' log-probability
    pipe.classifier.requires_grad_(True)


def run_fast(pipe, factuals, targets):
    return pipe(factuals, targets, **pipe.presets["fast"], output_type="pt")


def run_fast_bf16(pipe, factuals, targets):
    with torch.autocast(pipe.device.type, dtype=torch.bfloat16):
        return run_fast(pipe, factuals, targets)


def run_steps(num_inference_steps: int) -> Callable:
    return lambda *inputs: inputs[0](*inputs[1:], num_inference_steps=num_inference_steps, output_type="pt")


# What memory is measured of, each in a process of its own.
MEMORY = {
    "pipeline, 10 steps": run_steps(10),
    "pipeline, 100 steps": run_steps(100),
    "stock diffusers, 10 steps": lambda *inputs: run_stock(*inputs, 10, inputs[0].config.default_guidance_scale),
    "fast": run_fast,
    "fast, bf16": run_fast_bf16,
}


def read_peak_memory(device: str) -> float:
    """The most memory that this process has held, on a GPU what torch allocated there, in MiB."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # `getrusage` would count the parent's in
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_memory(args) -> dict[str, dict[str, float]]:
    memory = {}
    for name in MEMORY:
        flags = ["--checkpoint", args.checkpoint, "--dataset", args.dataset, "--batch_size", str(args.batch_size)]
        command = [sys.executable, __file__, *flags, "--device", args.device, "--memory_of", name]
        memory[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return memory


def read_clocks() -> np.ndarray:
    """Returns the time, once the GPU has nothing left to do, and the processor time of this process."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def time_in_turns(runs: dict[str, Callable], repeats: int) -> dict[str, np.ndarray]:
    """Returns the seconds of each repeat by both clocks, shape `(repeats, 2)`."""
    seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = read_clocks()
            run()
            seconds[name].append(read_clocks() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def summarise(values: np.ndarray) -> dict[str, dict[str, float]]:
    """Median and spread over the repeats, by clock."""
    return {
        clock: {"median": statistics.median(column), "min": min(column), "max": max(column)}
        for clock, column in zip(("elapsed", "processor"), values.T.tolist(), strict=True)
    }


def cells(summary: dict[str, dict[str, float]]) -> list[str]:
    return [f"{s['median']:.3g} ({s['min']:.3g} to {s['max']:.3g})" for s in summary.values()]


def print_table(columns: list[str], rows: list[list[str]]):
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def compare_with_stock(args, pipe, factuals, targets) -> dict:
    steps = pipe.config.default_num_inference_steps
    scale = pipe.config.default_guidance_scale
    inputs = (pipe, factuals, targets)

    def error(images: torch.Tensor) -> float:
        return (images - factuals).abs().mean().item()

    def log_prob(images: torch.Tensor) -> float:
        with torch.no_grad():
            return pipe.classifier.log_prob(images * 2 - 1, 0, targets).mean().item()

    def run_pipeline(**settings) -> torch.Tensor:
        settings = {"abduction": "destination", "guidance_scale": scale, **settings}
        return pipe(factuals, targets, num_inference_steps=steps, output_type="pt", **settings).images

    runs = {
        "stock": lambda: run_stock(*inputs, steps, scale),
        "pipeline": run_pipeline,
        "networks": lambda: run_networks(*inputs, steps),
    }
    quality = {
        "stock": {
            "reconstruction_error": error(run_stock(*inputs, steps, 0)),
            "target_log_prob": log_prob(runs["stock"]()),
        },
        "pipeline": {
            "reconstruction_error": error(run_pipeline(guidance_scale=0)),
            "target_log_prob": log_prob(run_pipeline()),
        },
        "pipeline, implicit": {
            "reconstruction_error": error(run_pipeline(guidance_scale=0, abduction="implicit")),
            "target_log_prob": log_prob(run_pipeline(abduction="implicit")),
        },
    }
    seconds = time_in_turns(runs, args.repeats)
    results = {
        "num_inference_steps": steps,
        "guidance_scale": scale,
        "seconds_per_counterfactual": {name: summarise(value / len(factuals)) for name, value in seconds.items()},
        "stock_over_pipeline": summarise(seconds["stock"] / seconds["pipeline"]),
        "pipeline_over_networks": summarise(seconds["pipeline"] / seconds["networks"]),
        "quality": quality,
    }
    print(f"Against stock diffusers and the bare networks: {steps} steps each way, scale {scale:g}\n")
    rows = [[name, *cells(value)] for name, value in results["seconds_per_counterfactual"].items()]
    rows += [[name, *cells(results[name])] for name in ("stock_over_pipeline", "pipeline_over_networks")]
    print_table(["seconds per counterfactual", "elapsed", "processor"], rows)
    print_table(
        ["quality", "reconstruction error", "target log-probability"],
        [[name, f"{q['reconstruction_error']:.3g}", f"{q['target_log_prob']:.4g}"] for name, q in quality.items()],
    )
    return results


def make_graph_pipes(pipe) -> dict[str, DiffSCMGraphCounterfactualPipeline]:
    """The same networks, with the class as the only attribute: guided by a predictor, and told the class."""
    names = list(pipe.classifier.id2label.values())
    widths = [("class", len(names))]
    scm = StructuralCausalModel(CausalGraph({"class": Node("categorical", labels=names)}, [("class", "image")]))

    def make(model_class, config):
        known = inspect.signature(model_class.__init__).parameters
        return model_class(widths, **{name: value for name, value in config.items() if name in known})

    predictor = make(CausalPredictor2DModel, pipe.classifier.config)
    told = make(CausalUNet2DModel, pipe.unet.config)
    schedulers = (pipe.scheduler, pipe.inverse_scheduler)
    pipes = {
        "graph, guided": DiffSCMGraphCounterfactualPipeline(pipe.unet, *schedulers, scm, predictor),
        "graph, told": DiffSCMGraphCounterfactualPipeline(told, *schedulers, scm),
    }
    for graph_pipe in pipes.values():
        graph_pipe.set_progress_bar_config(disable=True)
        graph_pipe.to(pipe.device)
    return pipes


def compare_with_graph(args, pipe, factuals, targets) -> dict:
    steps, factual_class = pipe.config.default_num_inference_steps, targets.roll(1)
    settings = {"num_inference_steps": steps, "guidance_scale": 1.0, "output_type": "pt"}
    under_cause = {"factual_class": factual_class, "marginal_abduction": False}
    runs = {"class": lambda: pipe(factuals, targets, **under_cause, **settings)}
    for name, graph_pipe in make_graph_pipes(pipe).items():
        call = {"attributes": {"class": factual_class}, "do": {"class": targets}, **settings}
        runs[name] = partial(graph_pipe, factuals, **call)
    seconds = time_in_turns(runs, args.repeats)
    results = {
        "num_inference_steps": steps,
        "seconds_per_counterfactual": {name: summarise(value / len(factuals)) for name, value in seconds.items()},
        "class_over": {name: summarise(seconds["class"] / seconds[name]) for name in seconds if name != "class"},
    }
    print(f"Counterfactuals per second of a graph's pipeline over the class pipeline's: {steps} steps each way\n")
    print_table(["", "elapsed", "processor"], [[name, *cells(ratio)] for name, ratio in results["class_over"].items()])
    return results


def compare_with_paper(args, pipe, factuals, targets) -> dict:
    inputs = (pipe, factuals, targets)
    runs = {
        "default": lambda: pipe(factuals, targets, output_type="pt"),
        "fast": lambda: run_fast(*inputs),
        "fast, bf16": lambda: run_fast_bf16(*inputs),
    }
    if not args.skip_compile:
        compiled, _, _ = load_pipeline(args)
        compiled.unet.compile()
        compiled.classifier.compile()
        runs["fast, compiled"] = lambda: run_fast(compiled, factuals, targets)
        runs["fast, compiled, bf16"] = lambda: run_fast_bf16(compiled, factuals, targets)

    first = time_in_turns(runs, 1)
    seconds = time_in_turns(runs, args.repeats)
    settings = {**pipe.presets["paper"], "num_inference_steps": args.paper_steps, "output_type": "pt"}
    paper = time_in_turns({"paper": lambda: pipe(factuals, targets, **settings)}, 1)["paper"]
    results = {
        "presets": pipe.presets,
        "paper_steps": args.paper_steps,
        "seconds_per_counterfactual": {
            name: summarise(value / len(factuals)) for name, value in {"paper": paper, **seconds}.items()
        },
        "paper_over": {name: summarise(paper / value) for name, value in seconds.items()},
        "float32_over_bf16": summarise(seconds["fast"] / seconds["fast, bf16"]),
        "seconds_of_first_call": {name: summarise(value) for name, value in first.items()},
    }
    print(f"Against the paper's protocol, {args.paper_steps} steps each way\n")
    rows = [["paper", *cells(results["seconds_per_counterfactual"]["paper"]), "", "", ""]]
    for name, ratio in results["paper_over"].items():
        _, first_call = results["seconds_of_first_call"][name].values()
        seconds_per_counterfactual = results["seconds_per_counterfactual"][name]
        rows.append([name, *cells(seconds_per_counterfactual), *cells(ratio), f"{first_call['median']:.3g}"])
    print_table(
        [
            "",
            "seconds, elapsed",
            "seconds, processor",
            "paper's / this, elapsed",
            "processor",
            "first call, processor",
        ],
        rows,
    )
    print_table(["", "elapsed", "processor"], [["float32_over_bf16", *cells(results["float32_over_bf16"])]])
    return results


def main(argv=None):
    args = parse_args(argv)
    pipe, factuals, targets = load_pipeline(args)
    if args.memory_of is not None:
        loaded = read_peak_memory(args.device)
        MEMORY[args.memory_of](pipe, factuals, targets)
        print(json.dumps({"loaded": loaded, "peak": read_peak_memory(args.device)}))
        return
    args.output_dir.mkdir(parents=True, exist_ok=True)

    results = {
        "checkpoint": args.checkpoint,
        "batch_size": args.batch_size,
        "repeats": args.repeats,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.device(args.device).type == "cuda" else None,
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "stock": compare_with_stock(args, pipe, factuals, targets),
        "graph": compare_with_graph(args, pipe, factuals, targets),
        "paper": compare_with_paper(args, pipe, factuals, targets),
        "memory": measure_memory(args),
    }
    print_table(
        ["memory, MiB", "with the networks loaded", "peak"],
        [[name, f"{value['loaded']:.0f}", f"{value['peak']:.0f}"] for name, value in results["memory"].items()],
    )
    with written_whole(args.output_dir / "results.json") as unfinished:
        unfinished.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
