# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from diffscm_diffusers.baselines import VanLooverenKlaisePipeline

from ..pipelines import load_baseline
from .registry import Method, register_method


@register_method("van-looveren-klaise", "Van Looveren & Klaise")
def create_van_looveren_klaise(pairs, factuals, baselines, class_names, accelerator, **unused) -> Method:
    """[Van Looveren & Klaise, 2021](https://huggingface.co/papers/1907.02584), from `--baselines`."""
    pipe, classes, settings = load_baseline(
        VanLooverenKlaisePipeline, baselines, "van-looveren-klaise", class_names, accelerator
    )

    def generate(index):
        return pipe(factuals.images(index), classes[pairs.intervention[index]], output_type="pt").images

    return Method(generate, settings)
