# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from typing import Any, Literal

from .functional.pixel_distance import check_norm
from .per_sample_metric import PerSampleMetric


class PixelDistanceMetric(PerSampleMetric):
    """
    A distance between two images, in pixels in [0, 1].

    Args:
        norm (`str`, *optional*, defaults to `"l1"`): `"l1"` or `"l2"`.
        reduction (`str`, *optional*, defaults to `"mean"`): As in [`PerSampleMetric`].
        kwargs: Keyword arguments of [`torchmetrics.Metric`].
    """

    higher_is_better = False
    plot_upper_bound = 1.0

    def __init__(self, norm: Literal["l1", "l2"] = "l1", reduction: Literal["mean", "none"] = "mean", **kwargs: Any):
        super().__init__(reduction, **kwargs)
        check_norm(norm)
        self.norm = norm
