# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Worlds: structural causal models that render images, and so know the true counterfactuals of their samples."""

from .morpho_mnist import MorphoMNISTWorld, measure_hue, measure_intensity, measure_slant, measure_thickness
from .typeface import TypefaceWorld
from .world import World, WorldSample


__all__ = [
    "MorphoMNISTWorld",
    "TypefaceWorld",
    "World",
    "WorldSample",
    "measure_hue",
    "measure_intensity",
    "measure_slant",
    "measure_thickness",
]
