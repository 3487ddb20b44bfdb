# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skimage.color import hsv2rgb, rgb2hsv
from skimage.morphology import isotropic_dilation, isotropic_erosion, medial_axis

from .world import World


if TYPE_CHECKING:
    from datasets import Dataset


SIZE = 28
UPSAMPLING = 16
# The medial axis of the base digits is taken at half of that, which is three times as fast.
BASE_UPSAMPLING = UPSAMPLING // 2
# How many images share one call of `medial_axis`, whose tables take longer than a small image.
CHUNK_SIZE = 32


class MorphoMNISTWorld(World):
    r"""
    Handwritten digits whose thickness and intensity are set by image morphology:

    - thickness `t = 0.5 + u_t` pixels, `u_t ~ Gamma(10, rate 5)`,
    - intensity `i = 64 + 191 * sigmoid(2 t - 5 + 0.5 u_i)` grey levels of 0 to 255, `u_i ~ N(0, 1)`,
    - optionally slant `s = 6 d - 27 + 3 u_s` degrees of the digit `d`, `u_s ~ N(0, 1)`; to the right is positive; it
      is that of the base digit's second moments before its thickness is set,
    - optionally, in colour, hue `h = d / 10 + 0.05 + 0.05 u_h` turns, `u_h ~ N(0, 1)`; 0 and 1 are red.

    The image is made from a base digit, which is exogenous noise and drawn uniformly from `images`. It is up-sampled
    16 times (cubic convolution), sheared to the slant, binarised at half its range, dilated or eroded by a disc to the
    thickness, averaged down, and multiplied so that the median of its bright pixels, which have at least half its
    range, is the intensity. What would be brighter than white is white. Pixels are multiples of 1/255, so that images
    saved with 8 bits are the same.

    A counterfactual is made from the base digit as well, not from the factual, which has lost what erosion removed.
    The base digit's thickness is measured at 8 times its size, that of an image in [`measure_thickness`] at 16 times.

    The shape of one digit says nothing about the shape that another would have had: the world has no true
    counterfactual under `do(digit)`, and refuses it.

    Source: [Castro et al. (2019)](https://huggingface.co/papers/1809.10780), with the mechanisms of
    [Pawlowski et al. (2020)](https://huggingface.co/papers/2006.06485).

    Args:
        images (`np.ndarray` of shape `(num_base_digits, 28, 28)`): The base digits, `uint8`, bright on dark.
        labels (`np.ndarray` of shape `(num_base_digits,)`): The digit that each shows, integers from 0 to 9.
        slant (`bool`, *optional*, defaults to `False`): Whether the digit causes a slant.
        color (`bool`, *optional*, defaults to `False`): Three channels and a variable `hue`, instead of one channel.

    Raises:
        `TypeError`: If `images` is not an array of `uint8`, or `labels` not one of integers.
        `ValueError`: If either has another shape, a label is not a digit, or an image is of one grey level.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, slant: bool = False, color: bool = False):
        for name, flag in (("slant", slant), ("color", color)):
            if not isinstance(flag, bool):
                raise TypeError(f"`{name}` expects True or False, got {flag!r}.")
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8:
            raise TypeError(f"`images` expects `uint8`, got {images.dtype}.")
        if images.ndim != 3 or images.shape[1:] != (SIZE, SIZE) or len(images) == 0:
            raise ValueError(f"`images` expects shape (num_base_digits, {SIZE}, {SIZE}), got {images.shape}.")
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"`labels` expects integers, got {labels.dtype}.")
        if labels.shape != (len(images),):
            raise ValueError(f"`labels` expects one digit for each of the {len(images)} images, got {labels.shape}.")
        if labels.min() < 0 or labels.max() > 9:
            wrong = labels[(labels < 0) | (labels > 9)][0]
            raise ValueError(f"`labels` expects digits from 0 to 9, got {wrong}.")
        blank = np.flatnonzero(images.min(axis=(1, 2)) == images.max(axis=(1, 2)))
        if len(blank) > 0:
            raise ValueError(f"`images` expects a digit in each image, got one grey level in image {blank[0]}.")

        self.images, self.labels, self.slant, self.color = images, labels.astype(np.int64), slant, color
        # The ranges of slant and hue reach six standard deviations from the outermost digits' means. The thickest
        # digits that fit in the image have some 8 pixels.
        nodes = {
            "digit": {"kind": "categorical", "labels": [str(digit) for digit in range(10)]},
            "thickness": {"kind": "continuous", "range": [0.5, 8.0], "unit": "pixels"},
            "intensity": {"kind": "continuous", "range": [64.0, 255.0], "unit": "grey levels"},
        }
        edges = [["thickness", "intensity"]]
        noise = {
            "base_digit": {"kind": "index", "range": [0, len(images) - 1]},
            "thickness_noise": {"kind": "continuous", "range": [0.0, 7.5], "unit": "pixels"},
            "intensity_noise": {"kind": "continuous", "range": [-6.0, 6.0], "unit": "standard deviations"},
        }
        if slant:
            nodes["slant"] = {"kind": "continuous", "range": [-45.0, 45.0], "unit": "degrees"}
        if color:
            nodes["hue"] = {"kind": "continuous", "range": [-0.25, 1.25], "unit": "turns"}
        for name in list(nodes)[3:]:
            edges.append(["digit", name])
            noise[f"{name}_noise"] = dict(noise["intensity_noise"])
        edges += [[name, "image"] for name in nodes]
        self.graph = {"nodes": nodes, "edges": edges, "image": "image", "exogenous_noise": noise}

    @classmethod
    def from_dataset(
        cls, dataset: "Dataset", image_column: str = "image", label_column: str = "label", **kwargs: Any
    ) -> "MorphoMNISTWorld":
        """
        Take the base digits from a data set.

        Args:
            dataset (`datasets.Dataset`): With grey images of 28x28 pixels, as MNIST has them.
            image_column (`str`, *optional*, defaults to `"image"`): Name of the column with the images.
            label_column (`str`, *optional*, defaults to `"label"`): Name of the column with the digits.
            kwargs: Further arguments of the world.

        Raises:
            `ValueError`:
                If a column is missing, if classes have names that are no digits, or if an image is not grey or has
                another size.
        """
        from datasets import ClassLabel, Dataset, Image  # not above: it takes long to import

        if not isinstance(dataset, Dataset) or len(dataset) == 0:
            got = f"{len(dataset)} rows" if isinstance(dataset, Dataset) else repr(dataset)
            raise ValueError(f"`dataset` expects a `datasets.Dataset` with at least one row, got {got}.")
        for argument, column in (("image_column", image_column), ("label_column", label_column)):
            if column not in dataset.column_names:
                raise ValueError(f"`{argument}` expects a column among {dataset.column_names}, got {column!r}.")
        digits = np.array(dataset[label_column])
        if isinstance(dataset.features[label_column], ClassLabel):
            names = dataset.features[label_column].names
            if not set(names) <= set("0123456789"):
                raise ValueError(f"`label_column` expects classes with the names of digits, '0' to '9', got {names}.")
            if digits.min() >= 0:
                digits = np.array([int(name) for name in names])[digits]
        images = np.empty((len(dataset), SIZE, SIZE), np.uint8)
        for index, value in enumerate(dataset[image_column]):
            image = Image().decode_example(value)
            if image.mode != "L" or image.size != (SIZE, SIZE):
                raise ValueError(
                    f"`dataset` expects grey images ('L') of {SIZE}x{SIZE} pixels, got {image.mode!r} of "
                    f"{image.width}x{image.height} in row {index}."
                )
            images[index] = np.asarray(image)
        return cls(images, digits, **kwargs)

    def _check_intervention(self, name: str, value: Any, num_samples: int) -> torch.Tensor:
        if name == "digit":
            expected = [node for node in self.graph["nodes"] if node != "digit"]
            raise ValueError(
                f"`do` expects variables among {expected}, got 'digit': no one knows how another digit would look in "
                "the same hand, so this world has no true counterfactual of it."
            )
        return super()._check_intervention(name, value, num_samples)

    def _sample_exogenous_noise(self, num_samples: int, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        # Gamma of a whole shape is a sum of exponentials, which takes a generator and is the same on every machine.
        uniform = torch.rand(num_samples, 10, generator=generator, dtype=torch.float64)
        noise = {
            "base_digit": torch.randint(len(self.images), (num_samples,), generator=generator),
            "thickness_noise": (-torch.log1p(-uniform).sum(dim=1) / 5).float(),
        }
        for name in self.graph["exogenous_noise"]:
            if name not in noise:
                noise[name] = torch.randn(num_samples, generator=generator, dtype=torch.float64).float()
        return noise

    def _compute_variable(
        self, name: str, variables: dict[str, torch.Tensor], exogenous_noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        if name == "digit":
            return torch.from_numpy(self.labels)[exogenous_noise["base_digit"]]
        noise = exogenous_noise[f"{name}_noise"].double()
        if name == "thickness":
            value = 0.5 + noise
        elif name == "intensity":
            value = 64 + 191 * torch.sigmoid(2 * variables["thickness"].double() - 5 + 0.5 * noise)
        elif name == "slant":
            value = 6 * variables["digit"] - 27 + 3 * noise
        else:
            value = variables["digit"] / 10 + 0.05 + 0.05 * noise
        return value.float()

    def _render(self, variables: dict[str, torch.Tensor], exogenous_noise: dict[str, torch.Tensor]) -> torch.Tensor:
        values = {name: value.double().numpy() for name, value in variables.items()}
        base_digits = exogenous_noise["base_digit"].numpy()
        images = np.empty((len(base_digits), SIZE, SIZE))
        for start in range(0, len(base_digits), CHUNK_SIZE):
            chunk = range(start, min(start + CHUNK_SIZE, len(base_digits)))
            shapes = [
                _base_shape(self.images[base_digits[i]].astype(float), values["slant"][i] if self.slant else None)
                for i in chunk
            ]
            base_thickness = _mean_thickness([mask[::2, ::2] for mask, _, _ in shapes]) / BASE_UPSAMPLING
            for i, shape, thickness in zip(chunk, shapes, base_thickness, strict=True):
                coverage = _average_down(*_thicken(*shape, (values["thickness"][i] - thickness) / 2 * UPSAMPLING))
                scale = values["intensity"][i] / 255 / np.median(coverage[_is_bright(coverage)])
                images[i] = np.minimum(coverage * scale, 1)
        images = torch.from_numpy(images)[:, None]
        if self.color:
            hue = np.stack([values["hue"] % 1, *np.ones((2, len(images)))], axis=-1)
            images = images * torch.from_numpy(hsv2rgb(hue))[:, :, None, None]
        return ((images * 255).round() / 255).float()


def measure_thickness(images: torch.Tensor) -> torch.Tensor:
    """
    Measures the thickness of strokes: twice the mean of the distance to the background on the medial axis. An image is
    up-sampled 16 times (cubic convolution) and binarised at half its range first.

    Args:
        images (`torch.Tensor` of shape `(num_images, channels, height, width)`):
            Bright strokes on a dark ground, floats in [0, 1]. Of several channels the brightest counts.

    Returns:
        `torch.Tensor` of shape `(num_images,)`: The thickness in pixels.

    Raises:
        `TypeError`: If `images` is not a tensor of floats.
        `ValueError`: If it has another shape, values out of [0, 1], or an image of one grey level.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.worlds import measure_thickness
        >>> y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
        >>> ring = (2 - ((x**2 + y**2).sqrt() - 8).abs()).clamp(0, 1)  # between the radii 6.5 and 9.5
        >>> measure_thickness(ring[None, None]).round(decimals=1)
        tensor([3.])
    """
    grey = _read_grey(images)
    thickness = np.empty(len(grey))
    for start in range(0, len(grey), CHUNK_SIZE):
        chunk = grey[start : start + CHUNK_SIZE]
        thickness[start : start + CHUNK_SIZE] = _mean_thickness([_crop(_binarise(image))[0] for image in chunk])
    return torch.from_numpy(thickness / UPSAMPLING).float()


def measure_intensity(images: torch.Tensor) -> torch.Tensor:
    """
    Measures the intensity: the median of the bright pixels, which have at least half the image's range.

    Args:
        images (`torch.Tensor` of shape `(num_images, channels, height, width)`):
            Bright strokes on a dark ground, floats in [0, 1]. Of several channels the brightest counts.

    Returns:
        `torch.Tensor` of shape `(num_images,)`: The intensity in grey levels, from 0 to 255.

    Raises:
        `TypeError`: If `images` is not a tensor of floats.
        `ValueError`: If it has another shape, values out of [0, 1], or an image of one grey level.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.worlds import measure_intensity
        >>> image = torch.zeros(1, 1, 28, 28)
        >>> image[..., 10:13] = torch.tensor([0.25, 0.75, 1.0])
        >>> measure_intensity(image) / 255
        tensor([0.8750])
    """
    return torch.tensor([np.median(image[_is_bright(image)]) * 255 for image in _read_grey(images)]).float()


def measure_slant(images: torch.Tensor) -> torch.Tensor:
    """
    Measures the slant: the angle of the horizontal shear that would set the image's second moments upright.

    Args:
        images (`torch.Tensor` of shape `(num_images, channels, height, width)`):
            Bright strokes on a dark ground, floats in [0, 1]. Of several channels the brightest counts.

    Returns:
        `torch.Tensor` of shape `(num_images,)`: The slant in degrees, positive to the right.

    Raises:
        `TypeError`: If `images` is not a tensor of floats.
        `ValueError`: If it has another shape, values out of [0, 1], or an image of one grey level.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.worlds import measure_slant
        >>> measure_slant(torch.eye(28).flip(0)[None, None])
        tensor([45.])
    """
    return torch.tensor([np.degrees(np.arctan(_slope(image))) for image in _read_grey(images)]).float()


def measure_hue(images: torch.Tensor) -> torch.Tensor:
    """
    Measures the hue of the mean colour.

    Args:
        images (`torch.Tensor` of shape `(num_images, 3, height, width)`): RGB images, floats in [0, 1].

    Returns:
        `torch.Tensor` of shape `(num_images,)`: The hue in [0, 1): 0 is red, 1/3 green, 2/3 blue.

    Raises:
        `TypeError`: If `images` is not a tensor of floats.
        `ValueError`: If it has another shape, values out of [0, 1], or an image of one grey level.

    Example:
        >>> import torch
        >>> from diffscm_diffusers.worlds import measure_hue
        >>> image = torch.zeros(1, 3, 28, 28)
        >>> image[:, 1, 10:18, 10:18] = 1
        >>> measure_hue(image)
        tensor([0.3333])
    """
    _read_grey(images)
    if images.shape[1] != 3:
        raise ValueError(f"`images` expects three channels, got shape {tuple(images.shape)}.")
    mean = images.double().mean(dim=(2, 3)).cpu().numpy()
    return torch.from_numpy(rgb2hsv(mean)[:, 0]).float()


def _read_grey(images: torch.Tensor) -> np.ndarray:
    """The brightest channel of each image, `(num_images, height, width)`, `float64`."""
    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"`images` expects a tensor of floats in [0, 1], got {got}.")
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"`images` expects shape (num_images, channels, height, width), got {tuple(images.shape)}.")
    grey = images.detach().amax(dim=1).double().cpu().numpy()
    # Written so that NaN is outside as well.
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"`images` expects values in [0, 1], got {images.min():.4g} to {images.max():.4g}.")
    blank = np.flatnonzero(grey.min(axis=(1, 2)) == grey.max(axis=(1, 2)))
    if len(blank) > 0:
        raise ValueError(f"`images` expects strokes in each image, got one grey level in image {blank[0]}.")
    return grey


def _is_bright(image: np.ndarray) -> np.ndarray:
    return image >= (image.min() + image.max()) / 2


@functools.cache
def _upsampling_matrix(size: int) -> np.ndarray:
    """
    Cubic convolution (Keys, 1981) along one axis, `(16 * size, size)`, the outermost pixels repeated. The weights are
    binary fractions, so that up-sampling 8-bit images is exact and the same on every machine.
    """
    position = (np.arange(size * UPSAMPLING) + 0.5) / UPSAMPLING - 0.5
    first = np.floor(position).astype(int)
    s = position - first
    weights = [
        (-(s**3) + 2 * s**2 - s) / 2,
        (3 * s**3 - 5 * s**2 + 2) / 2,
        (-3 * s**3 + 4 * s**2 + s) / 2,
        (s**3 - s**2) / 2,
    ]
    matrix = np.zeros((size * UPSAMPLING, size))
    for offset, weight in zip(range(-1, 3), weights, strict=True):
        np.add.at(matrix, (np.arange(size * UPSAMPLING), np.clip(first + offset, 0, size - 1)), weight)
    return matrix


def _enlarge(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return _upsampling_matrix(height) @ image @ _upsampling_matrix(width).T


def _binarise(image: np.ndarray) -> np.ndarray:
    """The shape of the strokes in an enlarged image, `bool`."""
    return _enlarge(image) >= (image.min() + image.max()) / 2


def _crop(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """The bounding box of a shape, and its uppermost row and leftmost column."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], rows[0], columns[0]


def _slope(image: np.ndarray) -> float:
    """How far an image leans to the right per pixel of height, by its second moments."""
    y, x = np.arange(image.shape[0]), np.arange(image.shape[1])
    mass = image.sum(axis=1)
    y, x = y - (y * mass).sum() / mass.sum(), x - (x * image.sum(axis=0)).sum() / mass.sum()
    return -(y * (image @ x)).sum() / (y**2 * mass).sum()


def _base_shape(image: np.ndarray, slant: float | None) -> tuple[np.ndarray, int, int]:
    """The box around an enlarged base digit's shape, sheared to a slant in degrees, its first row and first column."""
    large, half = _enlarge(image), (image.min() + image.max()) / 2
    mask, top, left = _crop(large >= half)
    if slant is None:
        return mask, top, left

    # Each row moves to the right by the slope times its height above the middle. Parts of pixels count: whole ones
    # leave steps, whose corners would each give the medial axis a branch.
    slope = np.tan(np.radians(slant)) - _slope(mask)
    height, width = mask.shape
    shift = slope * ((height - 1) / 2 - np.arange(height)[:, None])
    whole = np.floor(shift).astype(int)
    part = shift - whole
    margin = np.abs(whole).max() + 1
    rows, columns = np.arange(height)[:, None], np.arange(width) + margin + whole
    sheared = np.zeros((height, width + 2 * margin))
    sheared[rows, columns] = (1 - part) * large[top : top + height, left : left + width]
    sheared[rows, columns + 1] += part * large[top : top + height, left : left + width]
    mask, _, first = _crop(sheared >= half)
    return mask, top, left - margin + first


class _RasterOrder(np.random.Generator):
    """Breaks ties in the order of the pixels, so that an image's medial axis doesn't depend on those beside it."""

    def permutation(self, x, axis=0):
        return x


def _mean_thickness(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Twice the mean distance to the background on the medial axis of each shape, in the shapes' own pixels."""
    # Side by side with background between them, so that one call does for all.
    height = 2 + max(mask.shape[0] for mask in masks)
    ends = np.cumsum([mask.shape[1] + 1 for mask in masks])
    row = np.zeros((height, 1 + ends[-1]), bool)
    for mask, end in zip(masks, ends, strict=True):
        row[1 : 1 + mask.shape[0], end - mask.shape[1] : end] = mask
    axis, distance = medial_axis(row, return_distance=True, rng=_RasterOrder(np.random.PCG64(0)))
    starts = np.concatenate([[0], ends[:-1]])
    total = np.add.reduceat(np.where(axis, distance, 0).sum(axis=0), starts)
    return 2 * total / np.add.reduceat(axis.sum(axis=0), starts)


def _thicken(mask: np.ndarray, top: int, left: int, radius: float) -> tuple[np.ndarray, int, int]:
    """Dilate a shape by a disc, or erode it where the radius is negative."""
    margin = int(max(radius, 0)) + 1
    mask = np.pad(mask, margin)
    mask = isotropic_dilation(mask, radius) if radius >= 0 else isotropic_erosion(mask, -radius)
    return mask, top - margin, left - margin


def _average_down(mask: np.ndarray, top: int, left: int) -> np.ndarray:
    """The part of each pixel that a shape covers, `(28, 28)`. What lies outside of the image is lost."""
    size = SIZE * UPSAMPLING
    canvas = np.zeros((size, size), bool)
    bottom, right = min(top + mask.shape[0], size), min(left + mask.shape[1], size)
    canvas[max(top, 0) : bottom, max(left, 0) : right] = mask[
        max(-top, 0) : bottom - top, max(-left, 0) : right - left
    ]
    return canvas.reshape(SIZE, UPSAMPLING, SIZE, UPSAMPLING).mean(axis=(1, 3))
