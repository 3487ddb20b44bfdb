# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import functools
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageDraw

from .world import World


# The upright digit faces that come with matplotlib and are easy to read. A slanted cut of one of them would be no
# typeface of its own here: shear makes it from the upright one.
TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmr10",
    "cmss10",
    "cmtt10",
)

# Pixels below are those of a 28x28 image; other sizes are scaled.
EM = 25.0  # size of the type: digits are some 17 pixels high
OVERSAMPLING = 4  # sampling points per pixel and axis
RENDER_BATCH = 128  # small enough for the sampled points to stay in the processor's cache

STYLE = {
    "rotation": {"kind": "continuous", "range": [-0.35, 0.35], "unit": "rad"},
    "shear": {"kind": "continuous", "range": [-0.3, 0.3], "unit": "1"},
    "size": {"kind": "continuous", "range": [0.8, 1.2], "unit": "1"},
    "offset_x": {"kind": "continuous", "range": [-2.0, 2.0], "unit": "pixels of 28"},
    "offset_y": {"kind": "continuous", "range": [-2.0, 2.0], "unit": "pixels of 28"},
    "ink": {"kind": "continuous", "range": [0.5, 1.0], "unit": "1"},
}


class TypefaceWorld(World):
    """
    Printed digits: `image = render(digit, style)`, where the style is exogenous.

    The style is a typeface, a rotation, a shear, a size, an offset and an amount of ink, all independent and uniform.
    The truth of `do(digit)` is another digit in the same style. `graph["exogenous_noise"]` has their ranges.

    In colour, the image depends on a hue as well, with saturation and value 1. Without a confounder the digit causes
    it: `hue = digit / 10 + 0.05 + 0.05 e`, with `e` uniform in [-1, 1], so that each digit has a tenth of the colour
    circle. With one, a variable `confounder`, uniform in 0 to 9, takes the digit's place in that formula, and the
    digit equals the confounder with probability `confounding`, else is drawn uniformly. So digit and confounder agree
    with probability `confounding + (1 - confounding) / 10`, digit and hue are each uniform at every strength, and
    `do(digit)` leaves the hue as it is.

    Pixels are multiples of 1/255, so that images saved with 8 bits are the same. Needs matplotlib, for its fonts.

    Args:
        image_size (`int`, *optional*, defaults to 28): 28 or 64.
        color (`bool`, *optional*, defaults to `False`): Three channels and a variable `hue`, instead of one channel.
        confounding (`float`, *optional*): Strength of the confounder, in [0, 1). Needs `color`.

    Raises:
        `ValueError`: If `image_size` is another one, or `confounding` is out of its range or without `color`.
    """

    def __init__(self, image_size: int = 28, color: bool = False, confounding: float | None = None):
        if image_size not in (28, 64):
            raise ValueError(f"`image_size` expects 28 or 64, got {image_size!r}.")
        if not isinstance(color, bool):
            raise TypeError(f"`color` expects True or False, got {color!r}.")
        is_number = isinstance(confounding, (int, float)) and not isinstance(confounding, bool)
        if confounding is not None and not (is_number and 0 <= confounding < 1):
            raise ValueError(f"`confounding` expects a number in [0, 1), got {confounding!r}.")
        if confounding is not None and not color:
            raise ValueError(
                f"`confounding` expects `color=True`, for it is seen in the hue, got {confounding!r} without."
            )
        self.image_size = image_size
        self.color = color
        self.confounding = confounding

        digit = {"kind": "categorical", "labels": [str(digit) for digit in range(10)]}
        hue = {"kind": "continuous", "range": [0.0, 1.0], "unit": "turns"}
        nodes, edges = {"digit": digit}, [["digit", "image"]]
        if color and confounding is None:
            nodes, edges = {**nodes, "hue": hue}, [["digit", "hue"], ["hue", "image"], *edges]
        elif color:
            nodes = {"confounder": dict(digit), **nodes, "hue": hue}
            edges = [["confounder", "digit"], ["confounder", "hue"], ["hue", "image"], *edges]
        self.graph = {
            "nodes": nodes,
            "edges": edges,
            "image": "image",
            "exogenous_noise": {"typeface": {"kind": "categorical", "labels": list(TYPEFACES)}, **STYLE},
        }

    def _sample_exogenous_noise(self, num_samples, generator):
        # The same columns in every variant of the world: with one seed, they differ in what they say they differ in.
        names = ("typeface", *STYLE, "digit_noise", "hue_noise", "confounder_noise", "confounding_noise")
        columns = torch.rand(num_samples, len(names), generator=generator).unbind(1)
        uniform = dict(zip(names, columns, strict=True))

        noise = {"typeface": (uniform["typeface"] * len(TYPEFACES)).long()}
        for name, node in STYLE.items():
            low, high = node["range"]
            noise[name] = low + (high - low) * uniform[name]
        noise["digit_noise"] = (uniform["digit_noise"] * 10).long()
        if self.color:
            noise["hue_noise"] = 2 * uniform["hue_noise"] - 1
        if self.confounding is not None:
            noise["confounder_noise"] = (uniform["confounder_noise"] * 10).long()
            noise["confounding_noise"] = uniform["confounding_noise"]
        return noise

    def _compute_variable(self, name, variables, exogenous_noise):
        if name == "confounder":
            return exogenous_noise["confounder_noise"]
        if name == "digit":
            if self.confounding is None:
                return exogenous_noise["digit_noise"]
            follows = exogenous_noise["confounding_noise"] < self.confounding
            return torch.where(follows, variables["confounder"], exogenous_noise["digit_noise"])
        cause = variables["digit" if self.confounding is None else "confounder"]
        return cause / 10 + 0.05 + 0.05 * exogenous_noise["hue_noise"]

    def _render(self, variables, exogenous_noise):
        glyphs = _glyphs(self.image_size * OVERSAMPLING)
        theta = self._image_to_glyph(exogenous_noise)
        batches = []
        for rows in torch.arange(len(theta)).split(RENDER_BATCH):
            glyph = glyphs[exogenous_noise["typeface"][rows], variables["digit"][rows]]
            grid = F.affine_grid(theta[rows], [len(rows), 1, *glyph.shape[-2:]], align_corners=False)
            drawn = F.grid_sample(glyph[:, None], grid, mode="bilinear", align_corners=False)
            batches.append(F.avg_pool2d(drawn, OVERSAMPLING))
        images = torch.cat(batches) * exogenous_noise["ink"][:, None, None, None]
        if self.color:
            images = images * _hue_to_rgb(variables["hue"])[:, :, None, None]
        return (images * 255).round() / 255

    @staticmethod
    def _image_to_glyph(noise):
        """
        The affine map from a point of the image to the point of the glyph drawn there, as `F.affine_grid` takes it.

        The style shears the glyph, scales it, rotates it and moves it; this is the inverse. The y axis points down.
        """
        cos, sin = noise["rotation"].cos(), noise["rotation"].sin()
        size, shear = noise["size"], noise["shear"]
        # Rotation is anticlockwise, and a positive shear leans to the right, as italics do.
        matrix = torch.stack([cos + shear * sin, -sin + shear * cos, sin, cos], dim=1).view(-1, 2, 2)
        matrix = matrix / size[:, None, None]
        offset = torch.stack([noise["offset_x"], noise["offset_y"]], dim=1) / 14
        return torch.cat([matrix, -matrix @ offset[:, :, None]], dim=2)


@functools.lru_cache(maxsize=2)
def _glyphs(canvas_size: int) -> torch.Tensor:
    """
    The digits of all typefaces, shape `(num_typefaces, 10, canvas_size, canvas_size)`, in [0, 1].

    Outlines are filled here rather than by a font renderer, whose hinting depends on its version. Each digit is
    centred on its own box.
    """
    try:
        from matplotlib import get_data_path
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath
    except ImportError as error:
        raise ImportError("`TypefaceWorld` needs the fonts of matplotlib: `pip install matplotlib`.") from error

    fine_size = canvas_size * OVERSAMPLING
    glyphs = torch.empty(len(TYPEFACES), 10, canvas_size, canvas_size)
    for index, typeface in enumerate(TYPEFACES):
        font = FontProperties(fname=str(Path(get_data_path(), "fonts", "ttf", f"{typeface}.ttf")))
        for digit in range(10):
            path = TextPath((0, 0), str(digit), size=EM / 28 * fine_size, prop=font)
            box = path.get_extents()
            # The inside is what an odd number of outlines surrounds. Fonts have the y axis point up, images down.
            inside = Image.new("1", (fine_size, fine_size))
            for outline in path.to_polygons():
                points = (outline - [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]) * [1, -1] + fine_size / 2
                filled = Image.new("1", inside.size)
                ImageDraw.Draw(filled).polygon([tuple(point) for point in points.tolist()], fill=1)
                inside = ImageChops.logical_xor(inside, filled)
            pixels = torch.frombuffer(bytearray(inside.convert("L").tobytes()), dtype=torch.uint8) / 255
            glyphs[index, digit] = F.avg_pool2d(pixels.view(1, fine_size, fine_size), OVERSAMPLING)[0]
    return glyphs


def _hue_to_rgb(hue: torch.Tensor) -> torch.Tensor:
    """The colour of a hue in turns, shape `(num_samples,)`, at saturation and value 1: shape `(num_samples, 3)`."""
    sector = (6 * hue[:, None] + torch.tensor([5.0, 3.0, 1.0])) % 6
    return 1 - torch.minimum(sector, 4 - sector).clamp(0, 1)
