# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Draws quality against evaluations of the denoiser, from searches of the guidance scale with different steps.

    python benchmarks/frontier.py outputs/frontier/*/search.json --reference outputs/search-1000/search.json \
        --output_dir outputs/frontier

Each search counts with the scale that it chose, or with the most effective one where none was effective enough. All of
them, and the reference, must have been run on the same pairs.
Writes `frontier.png`, `frontier.pdf` and a Markdown table.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from diffscm_diffusers.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE, save_figure
from diffscm_diffusers.files import written_whole


# What moves a search was made with, and how a line shows them.
LINES = {
    "source": ("DDIM, abduction at the source", BLUE, "o"),
    "destination": ("DDIM, abduction at the destination", ORANGE, "s"),
    "implicit": ("DDIM, implicit abduction", GREY, "D"),
    "belm": ("O-BELM", GREEN, "^"),
    "source_quadratic": ("DDIM, abduction at the source, quadratic timesteps", BLUE, "P"),
    "destination_quadratic": ("DDIM, abduction at the destination, quadratic timesteps", ORANGE, "X"),
    "implicit_quadratic": ("DDIM, implicit abduction, quadratic timesteps", GREY, "v"),
}
PANELS = {
    "cld": "CLD ↓",
    "im1": "IM1 ↓",
    "effectiveness": "effectiveness ↑",
    "reconstruction": "reconstruction error ↓",
}


def read_search(path: str) -> dict:
    """The moves, steps, evaluations and scores of a search's chosen scale."""
    search = json.loads(Path(path).read_text())
    settings = search["settings"]
    scheduler, moves = settings.get("scheduler"), settings.get("abduction") or "destination"
    if scheduler == "DiffSCMBELMScheduler":
        moves = "belm"
    elif scheduler == "DiffSCMDDIMScheduler":
        moves += "_quadratic"
    by_scale = {scale["guidance_scale"]: scale for scale in search["scales"]}
    scale = search["chosen"]
    if scale is None:
        scale = max(by_scale, key=lambda scale: by_scale[scale]["effectiveness"]["mean"])
    steps = settings["num_inference_steps"]
    return {
        "moves": moves,
        "steps": steps,
        # Of O-BELM's moves down, abduction has already made the first. Implicit moves are counted by round_trip.py.
        "evaluations": None if moves.startswith("implicit") else 2 * steps - (moves == "belm"),
        "guidance_scale": scale,
        "pairs": search["num_pairs"],
        "reconstruction": by_scale[0]["l1"] if 0 in by_scale else None,
        **by_scale[scale],
    }


def draw_frontier(rows: list[dict], reference: dict) -> Figure:
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    figure.suptitle(
        f"Quality against evaluations of the denoiser: means of {reference['pairs']} pairs, each at its chosen scale",
        x=0.01,
        ha="left",
    )
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for moves, (label, color, marker) in LINES.items():
            line = [row for row in rows if row["moves"] == moves and row["evaluations"] and row[name] is not None]
            line.sort(key=lambda row: row["evaluations"])
            evaluations, means = [row["evaluations"] for row in line], [row[name]["mean"] for row in line]
            if line:
                axes.plot(evaluations, means, color=color, marker=marker, markersize=3, label=label)
        if reference[name] is not None:
            axes.axhline(
                reference[name]["mean"], color=GREY, linestyle="--", linewidth=1, label="paper: 1000 steps each way"
            )
        axes.set_xscale("log")
        axes.set_xticks([10, 20, 50, 100], ["10", "20", "50", "100"])
        if name == "reconstruction":
            axes.set_yscale("log")
        axes.minorticks_off()
        axes.margins(y=0.15)
        axes.set_title(title, loc="left")
        axes.set_xlabel("evaluations")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=7)
    return figure


def make_table(rows: list[dict]) -> str:
    lines = ["| moves | steps | evaluations | scale | CLD | IM1 | IM2 | effectiveness | L1 | reconstruction error |"]
    lines.append("| --- " * 10 + "|")
    for row in sorted(rows, key=lambda row: (row["moves"], row["steps"])):
        scores = [f"{row[name]['mean']:.4g}" for name in ("cld", "im1", "im2", "effectiveness", "l1")]
        reconstruction = "" if row["reconstruction"] is None else f"{row['reconstruction']['mean']:.2g}"
        cells = [LINES[row["moves"]][0], row["steps"], row["evaluations"] or "", f"{row['guidance_scale']:g}"]
        lines.append("| " + " | ".join(map(str, [*cells, *scores, reconstruction])) + " |")
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", nargs="+", help="`search.json` files that search_guidance_scale.py wrote.")
    parser.add_argument("--reference", required=True, help="The `search.json` of the paper's protocol.")
    parser.add_argument("--output_dir", type=Path, default="outputs/frontier")
    args = parser.parse_args(argv)

    rows, reference = [read_search(path) for path in args.searches], read_search(args.reference)
    if any(row["pairs"] != reference["pairs"] or row["cld_floor"] != reference["cld_floor"] for row in rows):
        raise ValueError("`searches` takes searches of the reference's pairs, got other pairs.")
    with matplotlib.rc_context(STYLE):
        save_figure(draw_frontier(rows, reference), args.output_dir, "frontier")
    table = make_table([*rows, reference])
    with written_whole(args.output_dir / "frontier.md") as unfinished:
        unfinished.write_text(table)
    print(table)


if __name__ == "__main__":
    main()
