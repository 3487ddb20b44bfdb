# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from ..controls import find_nearest_references
from .registry import Method, register_method


@register_method("nearest-real-in-pixels", "*nearest real image of the target class, in pixels*", is_control=True)
def create_nearest_real_in_pixels(pairs, factuals, reference, train_split, **unused) -> Method:
    """Shows the real image of the target class at the least Euclidean distance from the factual."""

    def generate(index):
        pixels = factuals.pixels[index].flatten(1), pairs.intervention[index], reference.pixels.flatten(1)
        return reference.images(find_nearest_references(*pixels, reference.classes))

    return Method(generate, {"train_split": train_split})
