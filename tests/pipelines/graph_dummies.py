# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
A causal model in which everything is Gaussian and linear, with its exact networks: `x = A c + STD * noise`, where `c`
are the causes, scaled to [-1, 1], with a covariance. The counterfactual is the factual plus `A (c' - c)`.
"""

import math

import torch
from diffusers import ConfigMixin, DDIMScheduler, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch.distributions import MultivariateNormal, Normal

from diffscm_diffusers import (
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMGraphCounterfactualPipeline,
    SemanticEncoder2DModel,
)
from diffscm_diffusers.causal_graphs import CausalGraph

from .dummies import ALPHAS_CUMPROD


STD = 0.2
# Columns: how thickness and tint show in the four pixels.
MIXING = torch.tensor([[0.4, 0.0], [0.2, 0.1], [0.0, 0.3], [0.1, -0.3]], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.09, 0.072], [0.072, 0.09]], dtype=torch.float64)


def get_graph(edges=()) -> CausalGraph:
    """Thickness, from 0 to 10, and tint, from -1 to 1, which go together for a reason that the graph does not hold."""
    nodes = {
        "thickness": {"kind": "continuous", "range": [0, 10]},
        "tint": {"kind": "continuous", "range": [-1, 1]},
    }
    return CausalGraph(nodes, [*edges, ["thickness", "image"], ["tint", "image"]])


class LinearSCM(ModelMixin, ConfigMixin):
    """`thickness = 5 + noise`, and `tint = 0.1 * (thickness - 5) + noise` if there is an edge, else `noise`."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.graph = get_graph()
        self.register_buffer("log_prob_quantile", torch.tensor(-6.0))

    @property
    def slope(self):
        return 0.1 if "thickness" in self.graph.parents("tint") else 0.0

    def abduct(self, values, generator=None):
        return {
            "thickness": values["thickness"] - 5,
            "tint": values["tint"] - self.slope * (values["thickness"] - 5),
        }

    def predict(self, noise, do=None):
        thickness = do.get("thickness", 5 + noise["thickness"])
        return {"thickness": thickness, "tint": do.get("tint", self.slope * (thickness - 5) + noise["tint"])}

    def log_prob(self, values):
        noise = self.abduct(values)
        return Normal(0, 1).log_prob(noise["thickness"]) + Normal(0, 0.3).log_prob(noise["tint"])


def condition_on(told: list[bool], condition: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the clean image, given the causes that are told."""
    known, rest = torch.tensor(told), ~torch.tensor(told)
    gain = COVARIANCE[rest][:, known] @ torch.linalg.inv(COVARIANCE[known][:, known])
    mean = torch.zeros(len(condition), 2, dtype=torch.float64)
    mean[:, known] = condition[:, known].double()
    mean[:, rest] = condition[:, known].double() @ gain.T
    covariance = torch.zeros(2, 2, dtype=torch.float64)
    covariance[rest.outer(rest)] = (COVARIANCE[rest][:, rest] - gain @ COVARIANCE[known][:, rest]).flatten()
    return mean @ MIXING.T, MIXING @ covariance @ MIXING.T + STD**2 * torch.eye(4, dtype=torch.float64)


def exact_epsilon(sample, timestep, told, condition):
    alpha_prod = ALPHAS_CUMPROD[timestep].double()
    mean, covariance = condition_on(told, condition)
    covariance = alpha_prod * covariance + (1 - alpha_prod) * torch.eye(4, dtype=torch.float64)
    deviation = sample.flatten(1).double() - alpha_prod**0.5 * mean
    return (1 - alpha_prod) ** 0.5 * torch.linalg.solve(covariance, deviation.T).T.reshape(sample.shape)


class GaussianCausalUNet(CausalUNet2DModel):
    """The exact denoiser given any part of the causes."""

    def forward(self, sample, timestep, condition, keep=None, return_dict=True):
        keep = torch.ones(len(sample), 2, dtype=torch.bool) if keep is None else keep
        epsilon = torch.empty_like(sample)
        for told in keep.unique(dim=0):
            rows = (keep == told).all(dim=1)
            epsilon[rows] = exact_epsilon(sample[rows], timestep, told.tolist(), condition[rows]).float()
        return UNet2DOutput(sample=epsilon)


class GaussianUNet(UNet2DModel):
    """The exact unconditional denoiser."""

    def forward(self, sample, timestep, return_dict=True):
        condition = torch.zeros(len(sample), 2)
        return UNet2DOutput(sample=exact_epsilon(sample, timestep, [False, False], condition).float())


class GaussianPredictor(CausalPredictor2DModel):
    """The exact predictor, by the chain rule or the naive one."""

    def log_prob(self, sample, timestep, condition):
        alpha_prod, eye = ALPHAS_CUMPROD[timestep].double(), torch.eye(4, dtype=torch.float64)
        images = alpha_prod * (MIXING @ COVARIANCE @ MIXING.T + STD**2 * eye) + (1 - alpha_prod) * eye
        cross = alpha_prod**0.5 * COVARIANCE @ MIXING.T
        gain = cross @ torch.linalg.inv(images)
        covariance = COVARIANCE - gain @ cross.T
        error = condition.double() - sample.flatten(1).double() @ gain.T
        mean, variance = [0, 0], covariance.diag()
        if self.config.chained:
            # The tint's regression on the thickness, within images that look the same.
            slope = covariance[0, 1] / covariance[0, 0]
            mean, variance = [0, slope * error[:, 0]], variance - torch.stack([slope * 0, slope * covariance[0, 1]])
        return (
            torch.stack(
                [-(error[:, k] - mean[k]).square() / (2 * variance[k]) - variance[k].log() / 2 for k in (0, 1)], dim=1
            ).float()
            - math.log(2 * math.pi) / 2
        )

    def predict(self, sample, timestep=0, condition=None, known=None):
        read = torch.linalg.lstsq(MIXING.float(), sample.flatten(1).T).solution.T
        return read.clamp(-1, 1) if known is None else torch.where(known, condition, read.clamp(-1, 1))


SHARED = {
    "down_block_types": ("DownBlock2D",),
    "block_out_channels": (4,),
    "norm_num_groups": 4,
    "add_attention": False,
}
WIDTHS = {"thickness": 1, "tint": 1}


def get_gaussian_graph_pipe(way="conditional", edges=(), scheduler=None, **changes):
    """The exact pipeline: a `"conditional"` denoiser, or guided by the `"joint"` or the `"naive"` predictor."""
    scm = LinearSCM()
    scm.graph = get_graph(edges)
    components = {
        "unet": GaussianUNet(2, 1, 1, up_block_types=("UpBlock2D",), **SHARED),
        "scheduler": scheduler or DDIMScheduler(clip_sample=False),
        "inverse_scheduler": None,
        "scm": scm,
        "predictor": GaussianPredictor(WIDTHS, 2, 1, chained=way == "joint", **SHARED),
    }
    if way == "conditional":
        components["unet"] = GaussianCausalUNet(WIDTHS, 2, 1, 1, up_block_types=("UpBlock2D",), **SHARED)
    pipe = DiffSCMGraphCounterfactualPipeline(**{**components, **changes})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def get_gaussian_factuals(batch=4):
    """Images in [0, 1] and their attributes."""
    generator = torch.Generator().manual_seed(0)
    causes = MultivariateNormal(torch.zeros(2, dtype=torch.float64), COVARIANCE)
    condition = torch.randn(batch, 2, generator=generator, dtype=torch.float64) @ causes.scale_tril.T
    noise = torch.randn(batch, 4, generator=generator, dtype=torch.float64)
    images = (condition @ MIXING.T + STD * noise).reshape(batch, 1, 2, 2)
    attributes = {"thickness": (5 + 5 * condition[:, 0]).float(), "tint": condition[:, 1].float()}
    return (images / 2 + 0.5).float(), attributes


def move(factuals, thickness=0.0, tint=0.0):
    """The true counterfactual of images in [0, 1], for a change of the causes in the condition's units."""
    change = torch.stack(torch.broadcast_tensors(torch.as_tensor(thickness), torch.as_tensor(tint)), dim=-1).double()
    return (factuals + (change @ MIXING.T).reshape(-1, 1, 2, 2) / 2).float()


def get_random_graph_pipe(way="conditional", with_encoder=False, edges=(), **changes):
    """Untrained networks, for images of 8x8 pixels."""
    torch.manual_seed(0)
    scm = LinearSCM()
    scm.graph = get_graph(edges)
    channels = 2 if with_encoder else 1
    unet = UNet2DModel(8, channels, 1, up_block_types=("UpBlock2D",), **SHARED)
    if way == "conditional":
        unet = CausalUNet2DModel(WIDTHS, 8, channels, 1, up_block_types=("UpBlock2D",), **SHARED)
    components = {
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False),
        "inverse_scheduler": None,
        "scm": scm,
        "predictor": CausalPredictor2DModel(WIDTHS, 8, 1, **SHARED) if way != "conditional" else None,
        "encoder": SemanticEncoder2DModel(8, 2, code_dim=7, block_out_channels=(4, 4, 4)) if with_encoder else None,
    }
    pipe = DiffSCMGraphCounterfactualPipeline(**{**components, **changes})
    pipe.set_progress_bar_config(disable=True)
    return pipe


ATTRIBUTES = {"thickness": 5.0, "tint": 0.1}
