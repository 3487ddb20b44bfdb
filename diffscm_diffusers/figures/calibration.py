# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from matplotlib.figure import Figure

from .style import BLUE, GREY, ORANGE


def draw_calibration(calibration: dict) -> Figure:
    """
    How reliable the anti-causal predictor is, with and without its temperatures: the reliability diagram of all noise
    levels together, and over the levels the expected calibration error, the negative log likelihood, and the
    temperature.

    Args:
        calibration (`dict`): What `diffscm calibrate` wrote to `calibration.json`.

    Returns:
        `matplotlib.figure.Figure`
    """
    levels = calibration["levels"]
    timesteps = [level["timestep"] for level in levels]
    figure = Figure(figsize=(6.5, 2.1), layout="constrained")
    figure.suptitle(
        f"The predictor's reliability: {calibration['num_measured']} held-out images at each noise level",
        x=0.01,
        ha="left",
    )
    diagram, errors, likelihoods, temperatures = figure.subplots(1, 4)
    diagram.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=0)
    for state, color in (("before", ORANGE), ("after", BLUE)):
        # A bin of all levels has one point, the mean of its samples.
        sums = {}
        for level in levels:
            for part in level[state]["bins"]:
                total = sums.setdefault(part["bin"], [0, 0, 0])
                total[0] += part["count"]
                total[1] += part["count"] * part["confidence"]
                total[2] += part["count"] * part["accuracy"]
        points = [(confidence / n, accuracy / n) for _, (n, confidence, accuracy) in sorted(sums.items())]
        diagram.plot(*zip(*points, strict=True), color=color, marker="o", markersize=2.5, label=state)
        for axes, measure in ((errors, "ece"), (likelihoods, "nll")):
            values = [level[state][measure] for level in levels]
            axes.plot(timesteps, values, color=color, marker="o", markersize=2.5)
    temperatures.plot(timesteps, [level["temperature"] for level in levels], color=BLUE, marker="o", markersize=2.5)
    temperatures.set_yscale("log", base=2)
    temperatures.yaxis.set_major_formatter("{x:g}")
    temperatures.axhline(1, color=GREY, linewidth=1, linestyle="--", zorder=0)
    diagram.legend(frameon=False, loc="upper left")
    diagram.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    for axes, title in (
        (diagram, "accuracy"),
        (errors, "calibration error ↓"),
        (likelihoods, "NLL, nats ↓"),
        (temperatures, "temperature"),
    ):
        axes.set_title(title, loc="left")
    for axes in (errors, likelihoods, temperatures):
        axes.set_xlabel("timestep")
    errors.set_ylim(bottom=0)
    likelihoods.set_ylim(bottom=0)
    return figure
