# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Bad calls of the metrics."""

import torch

from diffscm_diffusers.metrics import (
    CRPS,
    IM1,
    Composition,
    CounterfactualError,
    CounterfactualLatentDivergence,
    Coverage,
    DistanceCorrelation,
    Effectiveness,
    ExogenousNoiseLaw,
    Minimality,
    Realism,
    Reversibility,
    probe_accuracy,
    probe_r2,
)

from .table import INF, NAN, NO_COUNT, Call, fuzz


IMAGE = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 0, 1])
NO_IMAGES = [
    None,
    "image",
    IMAGE.long(),
    IMAGE[0],
    IMAGE[:0],
    IMAGE * 3,
    IMAGE - 2,
    IMAGE * NAN,
    IMAGE + INF,
]
NO_CLASSES = [None, 1, CLASSES.float(), CLASSES[:2], CLASSES.bool()]
NO_REDUCTION = ["sum", None]
NO_NORM = ["l3", None]


class Flat(torch.nn.Module):
    """Features of an image, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, image):
        return image.flatten(1) * self.factor


def flat(factor=1.0):
    return Flat(factor).eval()


def oracle(image):
    brightness = image.flatten(1).mean(dim=1)
    return torch.stack([0.5 - brightness, brightness - 0.5], dim=1)


def identity(image):
    return image


def score(metric, **settings):
    """A metric with settings and a batch of arguments, updated and computed."""

    def call(**arguments):
        made = metric(**settings)
        made.update(**arguments)
        return made.compute()

    return call


def score_realism(feature_extractor, image, real=False):
    metric = Realism(feature_extractor, (1, 4, 4))
    metric.update(IMAGE, real=True)
    metric.update(image, real=real)
    if real is False:
        metric.compute()


LATENTS = {
    "reference_mean": torch.randn(6, 2, generator=torch.Generator().manual_seed(0)),
    "reference_variance": torch.ones(6, 2),
    "reference_class": torch.tensor([0, 0, 0, 1, 1, 1]),
}


def score_divergence(**arguments):
    metric = CounterfactualLatentDivergence().fit(**LATENTS)
    metric.update(**arguments)


DRAWS = torch.arange(19.0)[:, None].expand(19, 4)
TRUTH = torch.tensor([0.5, 1.5, 2.5, 3.5])
NOISE = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
NO_NOISE = [None, NOISE.long(), NOISE[:0], NOISE * NAN, NOISE + INF]
CAUSE = torch.arange(20) % 2
VARIANCES = [None, torch.zeros(4, 2), -torch.ones(4, 2), torch.full((4, 2), NAN)]
MEANS = [None, torch.full((4, 2), NAN), torch.full((4, 2), INF), torch.zeros(4, 2).long(), torch.zeros(4)]

CALLS = {
    **{
        metric.__name__: Call(
            score(metric),
            dict.fromkeys(arguments, IMAGE),
            dict.fromkeys(arguments, NO_IMAGES),
        )
        for metric, arguments in (
            (Composition, ("factual", "reconstruction")),
            (CounterfactualError, ("counterfactual", "truth")),
            (Minimality, ("factual", "counterfactual")),
            (Reversibility, ("factual", "restored")),
        )
    },
    **{
        f"{metric.__name__}()": Call(metric, bad={"norm": NO_NORM, "reduction": NO_REDUCTION})
        for metric in (Composition, CounterfactualError, Minimality, Reversibility)
    },
    "Effectiveness()": Call(Effectiveness, {"oracle": oracle}, {"reduction": NO_REDUCTION}),
    "Effectiveness": Call(
        score(Effectiveness, oracle=oracle),
        {"counterfactual": IMAGE, "intervention": CLASSES},
        {"counterfactual": NO_IMAGES, "intervention": [*NO_CLASSES, CLASSES + 1, CLASSES - 1]},
    ),
    "IM1": Call(
        score(IM1, class_autoencoders=[identity, identity]),
        {"counterfactual": IMAGE, "factual_class": CLASSES, "intervention": 1 - CLASSES},
        {"counterfactual": NO_IMAGES, "factual_class": [*NO_CLASSES, CLASSES + 5], "intervention": NO_CLASSES},
    ),
    "IM1()": Call(
        IM1,
        {"class_autoencoders": [identity, identity]},
        {"eps": [-1.0, NAN, INF, "1"], "reduction": NO_REDUCTION},
    ),
    "CounterfactualLatentDivergence()": Call(
        CounterfactualLatentDivergence, bad={"chunk_size": NO_COUNT, "reduction": NO_REDUCTION}
    ),
    "CounterfactualLatentDivergence.fit": Call(
        CounterfactualLatentDivergence().fit,
        LATENTS,
        {
            "reference_mean": [None, torch.full((6, 2), NAN), torch.zeros(6, 2).long()],
            "reference_variance": [None, torch.zeros(6, 2), torch.full((6, 2), INF)],
            "reference_class": [None, torch.zeros(6), torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 1])],
        },
    ),
    "CounterfactualLatentDivergence": Call(
        score_divergence,
        {
            "counterfactual_mean": torch.zeros(4, 2),
            "counterfactual_variance": torch.ones(4, 2),
            "factual_mean": torch.zeros(4, 2),
            "factual_variance": torch.ones(4, 2),
            "factual_class": CLASSES,
            "intervention": 1 - CLASSES,
        },
        {
            "counterfactual_mean": MEANS,
            "counterfactual_variance": VARIANCES,
            "factual_mean": MEANS,
            "factual_variance": VARIANCES,
            "factual_class": [*NO_CLASSES, CLASSES + 1],
            "intervention": [*NO_CLASSES, CLASSES + 1],
        },
    ),
    "Realism()": Call(
        Realism,
        {"feature_extractor": flat(), "image_shape": (1, 4, 4)},
        {"feature_extractor": [None, identity], "image_shape": [None, 3, (4, 4), (1, 0, 4), (1, 4.0, 4)]},
    ),
    "Realism": Call(
        score_realism,
        {"feature_extractor": flat(), "image": IMAGE},
        {"feature_extractor": [flat(NAN), flat(INF), flat(1e25)], "image": NO_IMAGES, "real": [1, None, "no"]},
    ),
    "Coverage()": Call(Coverage, bad={"level": [0, 1, -0.5, NAN, "0.9", None], "reduction": NO_REDUCTION}),
    "Coverage": Call(
        score(Coverage),
        {"draws": DRAWS, "truth": TRUTH},
        {
            "draws": [None, DRAWS.long(), DRAWS[:5], DRAWS * NAN, DRAWS + INF],
            "truth": [None, TRUTH.long(), TRUTH[:2], TRUTH * NAN],
        },
    ),
    "CRPS": Call(
        score(CRPS),
        {"draws": DRAWS, "truth": TRUTH},
        {"draws": [None, DRAWS[:1], DRAWS * NAN], "truth": [None, TRUTH[:2], TRUTH + INF]},
    ),
    "ExogenousNoiseLaw": Call(score(ExogenousNoiseLaw), {"noise": NOISE}, {"noise": NO_NOISE}),
    "DistanceCorrelation": Call(
        score(DistanceCorrelation, num_permutations=9),
        {"noise": NOISE, "cause": CAUSE},
        {"noise": NO_NOISE, "cause": [None, CAUSE[:3], CAUSE.float() * NAN]},
    ),
    "DistanceCorrelation()": Call(DistanceCorrelation, bad={"num_permutations": NO_COUNT}),
    "probe_accuracy": Call(
        probe_accuracy,
        {"noise": NOISE, "cause": CAUSE},
        {
            "noise": NO_NOISE,
            "cause": [None, CAUSE[:3], CAUSE.float(), CAUSE - 1],
        },
    ),
    "probe_r2": Call(
        probe_r2,
        {"noise": NOISE, "cause": CAUSE.float()},
        {"noise": NO_NOISE, "cause": [None, CAUSE[:3].float(), CAUSE.float() * NAN]},
    ),
}

test_good_call_is_answered, test_bad_call_is_refused = fuzz(CALLS)
