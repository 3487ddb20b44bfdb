# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from ..controls import draw_references
from .registry import Method, register_method


@register_method("random-real", "*random real image of the target class*", is_control=True)
def create_random_real(pairs, reference, seed, train_split, **unused) -> Method:
    """Shows the target class and nothing of the factual."""

    def generate(index):
        return reference.images(draw_references(index, pairs.intervention[index], reference.classes, seed))

    return Method(generate, {"train_split": train_split})
