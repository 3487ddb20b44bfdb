# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffscm_diffusers.finite import check_finite_numbers

from .style import BLUE, GREY, ORANGE


def draw_scale_search(search: dict) -> Figure:
    """
    CLD against the guidance scale (paper, Fig. 4), and beside it effectiveness and L1, without which CLD says little.
    Lines are means, bands their 95 % intervals.

    Args:
        search (`dict`): What `diffscm search-scale` wrote to `search.json`.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if `search` lacks what is drawn, or has a number that is not finite.
        TypeError: if it is no dictionary.
    """
    if not isinstance(search, dict):
        raise TypeError(f"`search` expects what `diffscm search-scale` wrote, got {type(search).__name__}.")
    missing = [key for key in ("chosen", "scales", "num_pairs", "min_effectiveness") if key not in search]
    if missing or not search["scales"]:
        raise ValueError(f"`search` expects what `diffscm search-scale` wrote, got one without {missing or 'scales'}.")
    check_finite_numbers(search, "search")
    for number, scale in enumerate(search["scales"]):
        for name in ("cld", "effectiveness", "l1", "cld_floor"):
            score = scale.get(name, {}) if isinstance(scale, dict) else {}
            if not all(isinstance(score.get(key), (int, float)) for key in ("mean", "low", "high")):
                raise ValueError(
                    f"`search['scales'][{number}][{name!r}]` expects the numbers mean, low and high, got {score!r}."
                )
        if not isinstance(scale.get("guidance_scale"), (int, float)):
            got = scale.get("guidance_scale")
            raise ValueError(f"`search['scales'][{number}]['guidance_scale']` expects a number, got {got!r}.")
    chosen, summaries = search["chosen"], search["scales"]
    scales = [summary["guidance_scale"] for summary in summaries]
    figure = Figure(figsize=(6.5, 2.3), layout="constrained")
    figure.suptitle(
        f"What the guidance scale does: mean of {search['num_pairs']} pairs with 95 % interval", x=0.01, ha="left"
    )
    panels = figure.subplots(1, 3)
    titles = {
        "cld": "CLD ↓ (dashed: its floor)",
        "effectiveness": "effectiveness ↑ (dashed: required)",
        "l1": "L1 to the factual ↓",
    }
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        mean, low, high = ([summary[name][key] for summary in summaries] for key in ("mean", "low", "high"))
        axes.fill_between(scales, low, high, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(scales, mean, color=BLUE, marker="o", markersize=2.5)
        if chosen is not None:
            axes.axvline(chosen, color=ORANGE, linewidth=1, zorder=0)
        axes.margins(y=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_title(title, loc="left")
        axes.set_xlabel("guidance scale")

    # The floor depends on the pairs alone: it is the same at every scale.
    panels[0].axhline(summaries[0]["cld_floor"]["mean"], color=GREY, linewidth=1, linestyle="--", zorder=0)
    panels[1].axhline(search["min_effectiveness"], color=GREY, linewidth=1, linestyle="--", zorder=0)
    if chosen is not None:
        on_the_left = chosen < (min(scales) + max(scales)) / 2
        panels[0].annotate(
            f"chosen: {chosen:g}",
            (chosen, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3 if on_the_left else -3, 0),
            textcoords="offset points",
            color=ORANGE,
            ha="left" if on_the_left else "right",
            va="top",
        )
    return figure
