# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The rows of pictures that a counterfactual, or several draws of it, are shown by."""

from collections.abc import Callable, Sequence

from PIL import Image

from .drawing import Cell, Row, difference, mean_and_spread, pixels


def counterfactual_rows(
    factual: Image.Image,
    draws: Sequence[Sequence[Image.Image]],
    names: Sequence[str],
    read: Callable[[Sequence[Image.Image]], Sequence[str]],
    truths: Sequence[Image.Image] | None = None,
) -> list[Row]:
    """
    Factual; counterfactuals, or their mean and spread; difference; truth; and the draws themselves.

    Args:
        factual (`PIL.Image.Image`): What was intervened on.
        draws (`Sequence[Sequence[PIL.Image.Image]]`): The counterfactuals of each draw, one for each intervention.
        names (`Sequence[str]`): Of the interventions.
        read (`Callable`): What to write below each of several images.
        truths (`Sequence[PIL.Image.Image]`, *optional*): The true counterfactuals, where a world knows them.

    Returns:
        `list[Row]`: in the order of the page.
    """
    rows = [Row("Factual", _cells([factual], ["factual"], read([factual])))]
    if len(draws) == 1:
        shown = draws[0]
        rows.append(Row("Counterfactual", _cells(shown, names, read(shown))))
    else:
        shown, spreads, largest = map(list, zip(*map(mean_and_spread, zip(*draws, strict=True)), strict=True))
        rows.append(Row(f"Mean of {len(draws)} draws", _cells(shown, names, read(shown))))
        details = [f"up to {value:.2f}" for value in largest]
        rows.append(Row("Spread of the draws (white: where they differ most)", _cells(spreads, names, details)))
    changes = [difference(image, factual) for image in shown]
    details = [f"mean {abs(pixels(image) - pixels(factual)).mean():.3f}" for image in shown]
    rows.append(Row("Difference from the factual (red: brighter, blue: darker)", _cells(changes, names, details)))
    if truths is not None:
        errors = [
            f"error {abs(pixels(image) - pixels(truth)).mean():.3f}"
            for image, truth in zip(shown, truths, strict=True)
        ]
        rows.append(Row("Truth: the world's own counterfactual", _cells(truths, names, errors)))
    if len(draws) > 1:
        rows += [Row(f"Draw {i}", _cells(images, names, read(images))) for i, images in enumerate(draws, 1)]
    return rows


def _cells(images, names, details) -> list[Cell]:
    return [Cell(*parts) for parts in zip(images, names, details, strict=True)]
