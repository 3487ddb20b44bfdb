# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from .registry import Method, register_method


@register_method("factual", "*the factual itself*", is_control=True)
def create_factual(factuals, **unused) -> Method:
    """Changes nothing, whatever the intervention."""
    return Method(factuals.images)
