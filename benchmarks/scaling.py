# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures how the time of counterfactuals grows with the batch, the steps, the resolution, the number of targets of one
image and the number of classes, and draws it.

    python benchmarks/scaling.py --checkpoint checkpoints/diffscm-mnist --figure docs/images/scaling.png

The networks are the checkpoint's; for other resolutions and numbers of classes, networks of its architecture with
random weights. Time is the processor time of this process, on which other processes weigh less. Writes
`results.json` and the figure.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import diffusers
import matplotlib
import torch
from matplotlib.figure import Figure

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.figures.style import BLUE, GREY, ORANGE, STYLE
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import positive_int


ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(ROOT / "checkpoints" / "diffscm-mnist"))
    parser.add_argument("--batch_sizes", type=positive_int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--steps", type=positive_int, nargs="+", default=[2, 5, 10, 20, 50], help="Each way.")
    parser.add_argument("--resolutions", type=positive_int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--num_targets", type=positive_int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--num_classes", type=positive_int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--num_inference_steps", type=positive_int, default=5, help="Where steps do not vary.")
    parser.add_argument("--repeats", type=positive_int, default=3)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/scaling"))
    parser.add_argument("--figure", type=Path, help="Default: `scaling.png` in `--output_dir`.")
    return parser.parse_args(argv)


def vary_networks(pipe, resolution: int | None = None, num_classes: int | None = None):
    """A pipeline with networks of the same architecture and random weights."""
    torch.manual_seed(0)
    size = {} if resolution is None else {"sample_size": resolution}
    classes = {} if num_classes is None else {"num_classes": num_classes, "id2label": None}
    unet = type(pipe.unet).from_config(pipe.unet.config, **size)
    classifier = type(pipe.classifier).from_config(pipe.classifier.config, **size, **classes)
    varied = DiffSCMCounterfactualPipeline(unet.eval(), classifier.eval(), pipe.scheduler)
    varied.set_progress_bar_config(disable=True)
    return varied


def measure(pipe, num_images: int, num_targets: int, num_inference_steps: int) -> float:
    """Returns the processor seconds of one call with random images."""
    images = torch.rand(num_images, *pipe.image_shape, generator=torch.Generator().manual_seed(0))
    targets = [i % pipe.classifier.config.num_classes for i in range(num_targets)]
    start = time.process_time()
    pipe(images, targets, guidance_scale=1, num_inference_steps=num_inference_steps, output_type="pt")
    return time.process_time() - start


def measure_all(args, pipe) -> dict[str, dict[int, float]]:
    """Returns for each thing that varies the median seconds at each of its values."""
    steps = args.num_inference_steps
    by_resolution = {value: vary_networks(pipe, resolution=value) for value in args.resolutions}
    by_classes = {value: vary_networks(pipe, num_classes=value) for value in args.num_classes}
    measurements = {
        "batch": {n: (pipe, n, n, steps) for n in args.batch_sizes},
        "steps": {n: (pipe, 1, 1, n) for n in args.steps},
        "resolution": {n: (varied, 1, 1, steps) for n, varied in by_resolution.items()},
        "targets": {n: (pipe, 1, n, steps) for n in args.num_targets},
        "targets, each with its own abduction": {n: (pipe, n, n, steps) for n in args.num_targets},
        "classes": {n: (varied, 1, 1, steps) for n, varied in by_classes.items()},
    }
    measure(pipe, 1, 1, steps)  # what is slow once
    seconds = {name: {n: [] for n in values} for name, values in measurements.items()}
    for _ in range(args.repeats):
        for name, values in measurements.items():
            for n, arguments in values.items():
                seconds[name][n].append(measure(*arguments))
    return seconds


def draw(seconds: dict[str, dict[int, list[float]]], num_inference_steps: int) -> Figure:
    """A panel for each thing that varies: medians, the spread over repeats, and what proportional growth would be."""
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    threads = torch.get_num_threads()
    figure.suptitle(f"How the time of a call grows, {threads} thread{'s' * (threads > 1)}", x=0.01, ha="left")
    panels = figure.subplots(2, 3).flatten()
    titles = {
        "batch": "images in the batch",
        "steps": "steps each way, one image",
        "resolution": "pixels along a side, one image",
        "targets": "targets of one image",
        "classes": "classes, one image",
    }

    def plot(axes, values: dict[int, list[float]], color: str, label: str | None):
        x = list(values)
        median = [statistics.median(v) for v in values.values()]
        spread = [[m - min(v) for m, v in zip(median, values.values(), strict=True)]]
        spread.append([max(v) - m for m, v in zip(median, values.values(), strict=True)])
        axes.errorbar(x, median, spread, color=color, marker="o", markersize=2.5, elinewidth=0.8, label=label)
        return x, median

    for axes, (name, title) in zip(panels, titles.items(), strict=False):
        x, median = plot(axes, seconds[name], BLUE, "one abduction for all" if name == "targets" else None)
        if name == "targets":
            plot(axes, seconds["targets, each with its own abduction"], ORANGE, "one abduction each")
            axes.legend(frameon=False, loc="upper left")
            axes.set_ymargin(0.6)  # room for the legend
        elif name != "classes":
            power = 2 if name == "resolution" else 1
            grid = [x[-1] * i / 50 for i in range(51)]
            proportional = [median[-1] * (value / x[-1]) ** power for value in grid]
            axes.plot(grid, proportional, color=GREY, linewidth=1, linestyle="--", zorder=0)
        if name == "classes":
            axes.set_xscale("log")
        axes.set_xticks(x, [str(value) for value in x])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_ylabel("processor seconds" if axes in (panels[0], panels[3]) else None)
        axes.set_title(title, loc="left")
    panels[-1].set_axis_off()
    panels[-1].text(
        0,
        0.9,
        f"{num_inference_steps} steps each way, unless they vary;\nguidance at all of them.\n\n"
        "Medians and spread over repeats.\n\n"
        "Dashed: proportional to the number,\nor to the number of pixels, through\nthe last point.",
        va="top",
    )
    return figure


def main(argv=None):
    args = parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(args.checkpoint)
    pipe.set_progress_bar_config(disable=True)
    seconds = measure_all(args, pipe)
    results = {
        "checkpoint": args.checkpoint,
        "num_inference_steps": args.num_inference_steps,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "processor_seconds": seconds,
    }
    with written_whole(args.output_dir / "results.json") as unfinished:
        unfinished.write_text(json.dumps(results, indent=2) + "\n")
    for name, values in seconds.items():
        print(f"{name}: " + ", ".join(f"{n}: {statistics.median(v):.3g} s" for n, v in values.items()))
    with matplotlib.rc_context(STYLE):
        figure = draw(seconds, args.num_inference_steps)
        path = args.figure or args.output_dir / "scaling.png"
        with written_whole(path) as unfinished:
            figure.savefig(unfinished)
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
