# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Causal graphs of an image and its attributes, as data."""

from .causal_graph import CausalGraph, Node
from .table import read_table


__all__ = ["CausalGraph", "Node", "read_table"]
