# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Causal graphs of an image and its attributes, as data."""

from .causal_graph import CausalGraph, Node


__all__ = ["CausalGraph", "Node"]
