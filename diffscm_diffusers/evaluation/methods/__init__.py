# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The methods and controls that are compared: one file each, called as it is. A file that is added here takes part."""

import importlib
import pkgutil

from .registry import METHODS, Draws, Method, register_method


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f".{_module.name}", __name__)

__all__ = ["METHODS", "Draws", "Method", "register_method"]
