# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from .posterior_mean import posterior_mean
from .scale_search import GuidanceScaleSearch, GuidanceScaleSearchOutput


__all__ = ["GuidanceScaleSearch", "GuidanceScaleSearchOutput", "posterior_mean"]
