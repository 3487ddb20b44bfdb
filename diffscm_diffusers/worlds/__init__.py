# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Worlds: structural causal models that render images, and so know the true counterfactuals of their samples."""

from .typeface import TypefaceWorld
from .world import World, WorldSample


__all__ = ["TypefaceWorld", "World", "WorldSample"]
