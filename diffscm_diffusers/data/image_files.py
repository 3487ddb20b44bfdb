# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What becomes of an image file: how each kind is read, and what is said of one that cannot be."""

import logging

import PIL.Image
from accelerate import PartialState
from datasets import Dataset, Features, Image, Value
from PIL import ImageOps


logger = logging.getLogger(__name__)


class NumberedRow(dict):
    """
    A row that says where it comes from in the error about a broken image.

    Args:
        row (`dict`): Values by column.
        position (`str`): Where the row is, such as `"row 7"`.
    """

    def __init__(self, row: dict, position: str):
        super().__init__(row)
        self.position = position


class NumberedRows:
    """
    The rows of a map-style data set as [`NumberedRow`]s, for a `DataLoader`.

    Args:
        dataset (`datasets.Dataset`): The rows.
        numbers (`list[int]`, *optional*): Their numbers, which are named in errors. Default: they are counted.
    """

    def __init__(self, dataset: Dataset, numbers: list[int] | None = None):
        self.dataset = dataset
        self.numbers = range(len(dataset)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> NumberedRow:
        return NumberedRow(self.dataset[index], f"row {self.numbers[index]}")

    def __getitems__(self, indices: list[int]) -> list[NumberedRow]:
        return [self[index] for index in indices]


def decode_image(value: PIL.Image.Image | dict, mode: str) -> PIL.Image.Image:
    """
    Reads an image as it is meant to be seen: turned upright by its EXIF orientation, and transparent pixels on white.

    Colours are converted by Pillow, without colour profiles. Palettes are resolved first.

    Args:
        value (`PIL.Image.Image` or `dict`): An image, or what `datasets` holds of one: `path` and `bytes`.
        mode (`str`): Pillow's mode of the result, `"L"` or `"RGB"`.

    Raises:
        ValueError: if the image has several frames or more than 8 bits per channel, or if Pillow cannot convert it.
        Exception: whatever Pillow raises for a file that is broken.
    """
    image = Image().decode_example(value)
    # Photos of some cameras (MPO) hold smaller copies of themselves as further frames.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError(f"it has {image.n_frames} frames: save the one that is meant as an image of its own")
    # Pillow would cut such values off at 255.
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has more than 8 bits per channel (mode {image.mode!r}): rescale it to [0, 255] first")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


class BrokenImageError(ValueError):
    """
    An image that cannot be used.

    Args:
        problem (`str`): Where it is and why it cannot be used.
    """

    def __init__(self, problem: str):
        super().__init__(
            f"`image_column` expects images that can be used, got one {problem}. Replace it, or leave out all such "
            "images with `--skip_broken`."
        )
        self.problem = problem


def read_image(row: dict, column: str, mode: str) -> PIL.Image.Image:
    """
    Reads the image of a row; see [`decode_image`].

    Raises:
        BrokenImageError: if there is none, or if it cannot be used. It names the row, if that is a [`NumberedRow`],
            the file and the reason.
    """
    value = row[column]
    try:
        if value is None:
            raise ValueError("there is none")
        return decode_image(value, mode)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds
        path = value["path"] if isinstance(value, dict) else getattr(value, "filename", None)
        places = [f"in {row.position}"] if isinstance(row, NumberedRow) else []
        places += [f"of the file {path!r}"] if path else []
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, PIL.UnidentifiedImageError):
            reason = "no kind of image that Pillow knows"  # its own text has an address in memory
        raise BrokenImageError(f"{' '.join(places) or 'in a row'}: {reason}") from error


def _find_problem(row: dict, index: int, column: str) -> dict[str, str | None]:
    try:
        read_image(NumberedRow(row, f"row {index}"), column, "RGB")
    except BrokenImageError as error:
        return {"problem": error.problem}
    return {"problem": None}


def leave_out_broken(dataset: Dataset, column: str, name: str) -> Dataset:
    """
    Leaves out the rows whose images cannot be used, and logs a warning that counts and lists them. Every image is
    decoded once to find them; the result is cached, as `datasets` caches it, until a file changes.

    Args:
        dataset (`datasets.Dataset`): A split, whose images are not decoded.
        column (`str`): Its column of images.
        name (`str`): What to call the split.

    Raises:
        ValueError: if no image is left.
    """
    problems = dataset.select_columns([column]).map(
        _find_problem,
        with_indices=True,
        fn_kwargs={"column": column},
        remove_columns=[column],
        features=Features({"problem": Value("string")}),
        desc=f"Looking for broken images in {name!r}",
    )["problem"][:]
    broken = {index: problem for index, problem in enumerate(problems) if problem is not None}
    if not broken:
        return dataset
    if len(broken) == len(dataset):
        raise ValueError(f"`skip_broken` expects images that can be used in {name!r}, got none: one {broken[0]}.")
    if PartialState().is_main_process:
        report_left_out(list(broken.values()), f"{len(dataset)} images of {name!r}")
    return dataset.select([index for index in range(len(dataset)) if index not in broken])


def report_left_out(problems: list[str], whole: str):
    """Logs a warning that counts and lists the images that were left out."""
    logger.warning("Left out %d of the %s:%s", len(problems), whole, "".join(f"\n- {problem}" for problem in problems))
