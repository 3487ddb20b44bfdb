# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from ..controls import find_nearest_references
from ..fingerprint import fingerprint
from .registry import Method, register_method


@register_method(
    "nearest-real-in-latents",
    "*nearest real image of the target class, in latents*",
    is_control=True,
    needs="metric_models",
)
def create_nearest_real_in_latents(pairs, reference, scorer, metric_models, train_split, **unused) -> Method:
    """
    Shows the real image of the target class whose latent mean, under the VAE that scores, is the nearest.

    Raises:
        ValueError: if there are no metric models.
    """
    if metric_models is None:
        raise ValueError("`--metric_models` is needed for the method 'nearest-real-in-latents', got none.")

    def generate(index):
        latents = scorer.factual_mean[index], pairs.intervention[index], scorer.reference_mean
        return reference.images(find_nearest_references(*latents, reference.classes))

    weights = fingerprint(scorer.vae)
    return Method(generate, {"train_split": train_split, "metric_models": metric_models, "weights": weights})
