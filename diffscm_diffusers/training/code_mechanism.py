# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Fits the mechanism of a semantic code, which takes out of it what the causes made."""

from collections.abc import Iterable

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import nn
from tqdm.auto import tqdm
from zuko.flows import MAF

from diffscm_diffusers.models import SemanticEncoder2DModel
from diffscm_diffusers.models.semantic_encoder_2d import CodeMechanism


@torch.no_grad()
def read_codes(
    encoder: SemanticEncoder2DModel, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The posteriors of the codes of images.

    Args:
        encoder ([`SemanticEncoder2DModel`]): Reads them.
        batches (iterable of `tuple[torch.Tensor, torch.Tensor]`):
            Images in [-1, 1] and their causes, as [`SemanticEncoder2DModel.encode`] takes them.

    Returns:
        `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: mean and standard deviation, `(num_images, code_dim)`, and
        the causes, `(num_images, condition_dim)`.
    """
    parts = [(*encoder.encode(images, condition, return_dict=False), condition) for images, condition in batches]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def fit_code_mechanism(
    encoder: SemanticEncoder2DModel,
    mean: torch.Tensor,
    std: torch.Tensor,
    condition: torch.Tensor,
    is_told: torch.Tensor | None = None,
    hidden_features: int = 128,
    displacement_weight: float = 0.0003,
    num_steps: int = 3000,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    seed: int = 0,
    progress_bar: bool = True,
) -> float:
    r"""
    Gives an encoder a mechanism of its code, in place of one that it may have.

    The mechanism maps a drawn code `z` under causes `pa` to noise `v`. It is trained, by maximum likelihood, with the
    density `p(z | pa) = q(v) |dv / dz|`, in which `q` is a flow that is not told the causes. So whatever differs
    between causes is left to the mechanism, and `v` has one law. Of all maps that do so the one that moves codes least
    is wanted, as a code means nearly the same under all causes already: the loss has the mean squared displacement in
    addition, in posterior standard deviations.

    Args:
        encoder ([`SemanticEncoder2DModel`]): Gets the mechanism.
        mean (`torch.Tensor` of shape `(num_images, code_dim)`): Mean of the posterior of each image's code.
        std (`torch.Tensor` of shape `(num_images, code_dim)`): Its standard deviation.
        condition (`torch.Tensor` of shape `(num_images, condition_dim)`): The image's causes.
        is_told (`torch.Tensor` of shape `(condition_dim,)`, *optional*):
            `torch.bool`: the entries of the condition that the mechanism is told. Default: all. Causes of which the
            code says nothing leave it alone if they are not.
        hidden_features (`int`, *optional*, defaults to 128): Width of the mechanism's hidden layers.
        displacement_weight (`float`, *optional*, defaults to 0.0003):
            Weight of half the squared displacement. More keeps the codes, less makes their noise independent of the
            causes.
        num_steps (`int`, *optional*, defaults to 3000): Number of steps.
        batch_size (`int`, *optional*, defaults to 512): Codes per step.
        learning_rate (`float`, *optional*, defaults to 3e-3):
            AdamW's, after a warm-up of a twentieth of the steps. It falls to 0 along a cosine.
        seed (`int`, *optional*, defaults to 0): Seed of the initial parameters and of the draws.
        progress_bar (`bool`, *optional*, defaults to `True`): Whether to show the progress.

    Returns:
        `float`: the displacement of the last batches' codes, root mean square, in posterior standard deviations.

    Raises:
        ValueError: if there are fewer than two images, or a loss is not finite.
    """
    num_images, code_dim = mean.shape
    if num_images < 2:
        raise ValueError(f"`mean` expects the codes of at least 2 images, got {num_images}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mechanism = CodeMechanism(code_dim, condition.shape[1], hidden_features).to(mean.device)
        law = MAF(code_dim, transforms=3, hidden_features=(hidden_features,) * 2).to(mean.device)
    generator = torch.Generator(mean.device).manual_seed(seed)
    if is_told is not None:
        # Entries that are 0 in training give their weights no gradient: these stay 0.
        condition = condition * is_told
        for transform in mechanism.flow.transforms:
            with torch.no_grad():
                transform.hyper[0].weight[:, code_dim:] *= is_told

    def draw(rows: torch.Tensor) -> torch.Tensor:
        return mean[rows] + std[rows] * torch.randn((len(rows), code_dim), generator=generator, device=mean.device)

    # The code's uncorrelated parts: the root of the precision, which is symmetric, moves the code least.
    code = draw(torch.arange(num_images, device=mean.device))
    mechanism.mean.copy_(code.mean(dim=0))
    variances, directions = torch.linalg.eigh(code.T.cov())
    mechanism.whitening.copy_(directions * variances.clamp(min=1e-6).rsqrt() @ directions.T)

    parameters = [*mechanism.parameters(), *law.parameters()]
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=1e-3)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_steps // 20, num_steps)
    displacements = []
    with torch.enable_grad():  # whatever the caller has set
        for step in tqdm(range(num_steps), desc="Fitting the code's mechanism", disable=not progress_bar):
            rows = torch.randint(num_images, (batch_size,), generator=generator, device=mean.device)
            code = draw(rows)
            noise, log_determinant = mechanism(code, condition[rows])
            log_prob = law().log_prob((noise - mechanism.mean) @ mechanism.whitening) + log_determinant
            displacement = ((noise - code) / std[rows]).square().sum(dim=1).mean()
            loss = displacement_weight * displacement / 2 - log_prob.mean()
            if not loss.isfinite():
                raise ValueError(
                    f"`learning_rate` expects one at which the loss stays finite, got {learning_rate:g}: a loss of "
                    f"{loss.item()} in step {step}."
                )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            schedule.step()
            displacements.append(displacement.detach() / code_dim)

    encoder.mechanism = mechanism.eval().requires_grad_(False)
    encoder.register_to_config(mechanism_features=hidden_features)
    return torch.stack(displacements[-100:]).mean().sqrt().item()
