# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from .registry import Method, register_method


@register_method("truth", "*the truth itself*", is_control=True, needs="truth")
def create_truth(truth, **unused) -> Method:
    """
    Shows the true counterfactual: what is left of its attributes' errors is the measuring network's.

    Raises:
        ValueError: if the data have none.
    """
    if truth is None:
        raise ValueError("The method 'truth' expects a data set with true counterfactuals, got one without.")
    return Method(truth.images.images)
