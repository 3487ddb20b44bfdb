# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The rows of pictures that a counterfactual, or several draws of it, are shown by."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from .drawing import Cell, Row, difference, pixels, to_image


def counterfactual_rows(
    factual: Image.Image,
    output: Any,
    names: Sequence[str],
    read: Callable[[Sequence[Image.Image]], Sequence[str]],
    truths: Sequence[Image.Image] | None = None,
) -> list[Row]:
    """
    Factual; counterfactuals, or their mean and spread; difference; truth; and the draws themselves.

    Args:
        factual (`PIL.Image.Image`): What was intervened on.
        output (`Any`): A pipeline's, whose images are counterfactuals, or with `num_draws` a list for each draw.
        names (`Sequence[str]`): Of the interventions.
        read (`Callable`): What to write below each of several images.
        truths (`Sequence[PIL.Image.Image]`, *optional*): The true counterfactuals, where a world knows them.

    Returns:
        `list[Row]`: in the order of the page.
    """
    rows = [Row("Factual", _cells([factual], ["factual"], read([factual])))]
    draws = output.images if isinstance(output.images[0], list) else []
    if draws:
        means, spreads = output.mean_and_std()
        shown = [to_image(mean) for mean in means]
        rows.append(Row(f"Mean of {len(draws)} draws", _cells(shown, names, read(shown))))
        details = [f"up to {spread.max():.2f}" for spread in spreads]
        spreads = [to_image(spread / max(spread.max(), 1e-6)) for spread in spreads]
        rows.append(Row("Spread: standard deviation (white: largest)", _cells(spreads, names, details)))
    else:
        shown = output.images
        rows.append(Row("Counterfactual", _cells(shown, names, read(shown))))
    changes = [difference(image, factual) for image in shown]
    details = [f"mean {abs(pixels(image) - pixels(factual)).mean():.3f}" for image in shown]
    rows.append(Row("Difference (red: brighter, blue: darker)", _cells(changes, names, details)))
    if truths is not None:
        errors = [
            f"error {abs(pixels(image) - pixels(truth)).mean():.3f}"
            for image, truth in zip(shown, truths, strict=True)
        ]
        rows.append(Row("Truth: the world's own counterfactual", _cells(truths, names, errors)))
    return rows + [Row(f"Draw {i}", _cells(images, names, read(images))) for i, images in enumerate(draws, 1)]


def _cells(images, names, details) -> list[Cell]:
    return [Cell(*parts) for parts in zip(images, names, details, strict=True)]
