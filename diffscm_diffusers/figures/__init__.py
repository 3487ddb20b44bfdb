# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The paper's figures, each drawn by one function. It needs the extra `eval`."""

from .calibration import draw_calibration
from .difference import draw_difference
from .effects import draw_effects
from .latents import draw_latents
from .methods import draw_methods
from .one_noise import draw_one_noise
from .scale_curve import draw_scale_search
from .scales import draw_scales
from .style import STYLE, save_figure
from .sweep import draw_sweep
from .targets import draw_targets
from .truth import draw_truth


__all__ = [
    "STYLE",
    "draw_calibration",
    "draw_difference",
    "draw_effects",
    "draw_latents",
    "draw_methods",
    "draw_one_noise",
    "draw_scale_search",
    "draw_scales",
    "draw_sweep",
    "draw_targets",
    "draw_truth",
    "save_figure",
]
