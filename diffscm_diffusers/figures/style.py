# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What all figures have in common: one typography, one palette, two files."""

from pathlib import Path

from matplotlib.figure import Figure

from diffscm_diffusers.files import written_whole


# Okabe and Ito's colours, which stay apart with any colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY = "#808080"

# Sizes are for a column of 6.5 inches, in print or in a README. To be used as `with matplotlib.rc_context(STYLE):`.
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 9,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "image.composite_image": False,  # pixels of images in a PDF stay what they are
    "text.parse_math": False,  # a dollar in the name of a class is a dollar
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
    "pdf.fonttype": 42,  # text stays text
}


def save_figure(figure: Figure, folder: str | Path, name: str):
    """
    Writes `<name>.png` and `<name>.pdf`.

    Raises:
        ValueError: if `name` is no name of a file.
        TypeError: if an argument is of another type.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"`figure` expects a Figure of matplotlib, got {figure!r}.")
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"`folder` expects a path, got {folder!r}.")
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"`name` expects the name of a file, without folders, got {name!r}.")
    with written_whole(Path(folder, f"{name}.png")) as unfinished:
        figure.savefig(unfinished)
    with written_whole(Path(folder, f"{name}.pdf")) as unfinished:
        # Without the time, the same figure is the same file.
        figure.savefig(unfinished, metadata={"CreationDate": None})
