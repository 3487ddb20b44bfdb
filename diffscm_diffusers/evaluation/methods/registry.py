# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass
class Draws:
    """
    Several counterfactuals of each of some pairs.

    Args:
        images (`torch.Tensor` of shape `(num_draws, batch, channels, height, width)`): Images in [0, 1].
        noise (`torch.Tensor` of shape `(num_draws, batch, ...)`, *optional*):
            The spatial exogenous noise that they were predicted from, if the method has one. Its law is `N(0, I)`.
        code (`torch.Tensor` of shape `(num_draws, batch, code_dim)`, *optional*):
            The semantic code that they were predicted from, if the method has one.
    """

    images: torch.Tensor
    noise: torch.Tensor | None = None
    code: torch.Tensor | None = None


@dataclass
class Method:
    """
    A method that is ready to generate. A causal model can do more than that, and is held to more.

    Args:
        generate (`Callable`):
            Maps the numbers of pairs, `(batch,)`, to images in [0, 1], `(batch, channels, height, width)`.
        settings (`dict`, *optional*):
            Everything that the images depend on beside the pairs, as JSON. Images made with other settings are not
            mixed with these.
        estimate (`Callable`, *optional*):
            Maps images in [0, 1], `(batch, channels, height, width)`, their classes and interventions, `(batch,)`, to
            counterfactuals like the images. The null intervention, and there and back, are taken by it.
        draw (`Callable`, *optional*):
            Maps the numbers of pairs, a number of draws and a generator to [`Draws`].
    """

    generate: Callable[[torch.Tensor], torch.Tensor]
    settings: dict = field(default_factory=dict)
    estimate: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    draw: Callable[[torch.Tensor, int, torch.Generator], Draws] | None = None


@dataclass(frozen=True)
class MethodEntry:
    """
    What the evaluation knows of a method before it is created.

    Args:
        create (`Callable[..., Method]`): See [`register_method`].
        label (`str`): The method's name in tables and figures.
        is_control (`bool`): Whether it stands for what a metric should say of images that are no counterfactuals.
        needs (`str`, *optional*): The argument of `create` without which it is left out, unless asked for by name.
    """

    create: Callable[..., Method]
    label: str
    is_control: bool
    needs: str | None


METHODS: dict[str, MethodEntry] = {}


def register_method(name: str, label: str, is_control: bool = False, needs: str | None = None):
    """
    Registers the function below it as a method of the evaluation, `--methods NAME`.

    The function is called with keyword arguments, names those that it uses, leaves the others to `**unused`, and
    returns a [`Method`]. They are `pairs` ([`Pairs`]), `factuals` and `reference` ([`DecodedImages`]), `scorer`
    ([`Scorer`]), which has their latents, `accelerator`, and flags of `diffscm evaluate`: `seed`, `train_split`,
    `metric_models` (`None` without), `baselines` and `conditional_vae`; and `class_names`, the names of the classes
    that `pairs` has indices of. Diff-SCM uses `pipe`, `pretrained_model_name_or_path`, `steps`, `guidance_scale`,
    `search_scale` and `posterior_mean`, the truth itself `truth` ([`Truth`], or `None` where the data have none).

    Args:
        name (`str`): The method's name on the command line and in files: that of its own file, with dashes.
        label (`str`): Its name in tables and figures.
        is_control (`bool`, *optional*, defaults to `False`): Whether it is a control.
        needs (`str`, *optional*):
            The argument that it cannot do without. Where that is `None`, it takes part only if asked for by name.

    Raises:
        ValueError: if the name is taken.

    Example:

    ```py
    >>> @register_method("negative", "negative of the factual")
    ... def create_negative(pairs, factuals, **unused):
    ...     return Method(lambda index: 1 - factuals.images(index))
    ```
    """
    if name in METHODS:
        raise ValueError(f"`name` expects a name that no other method has, got {name!r}.")

    def register(create: Callable[..., Method]) -> Callable[..., Method]:
        METHODS[name] = MethodEntry(create, label, is_control, needs)
        return create

    return register
