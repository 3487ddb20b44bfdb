# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from diffscm_diffusers.baselines import SchutPipeline

from ..pipelines import load_baseline
from .registry import Method, register_method


@register_method("schut", "Schut et al.")
def create_schut(pairs, factuals, baselines, class_names, accelerator, **unused) -> Method:
    """[Schut et al., 2021](https://huggingface.co/papers/2103.08951), from `--baselines`."""
    pipe, classes, settings = load_baseline(SchutPipeline, baselines, "schut", class_names, accelerator)

    def generate(index):
        return pipe(factuals.images(index), classes[pairs.intervention[index]], output_type="pt").images

    return Method(generate, settings)
