# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from sklearn.manifold import TSNE

from diffscm_diffusers import LatentVAE
from diffscm_diffusers.metrics.functional.checks import check_classes

from .grid import check_figure_images, check_labels, shorten
from .style import BLUE, ORANGE


@torch.no_grad()
def draw_latents(
    vae: LatentVAE,
    reference: torch.Tensor,
    reference_class: torch.Tensor,
    factual: torch.Tensor,
    counterfactual: torch.Tensor,
    factual_class: int,
    intervention: int,
    names: list[str],
    seed: int,
) -> Figure:
    """
    A factual and its counterfactual among real images of both classes: a t-SNE of the means of a VAE's latents (paper,
    Fig. 3a), the space in which CLD measures.

    Args:
        vae ([`LatentVAE`]): Encodes the images.
        reference (`torch.Tensor` of shape `(num_references, channels, height, width)`): Real images in [0, 1].
        reference_class (`torch.Tensor` of shape `(num_references,)`): Their class indices, those of the two classes.
        factual (`torch.Tensor` of shape `(channels, height, width)`): The factual in [0, 1].
        counterfactual (`torch.Tensor` of shape `(channels, height, width)`): Its counterfactual in [0, 1].
        factual_class (`int`): Class index of the factual.
        intervention (`int`): Class index of the counterfactual.
        names (`list[str]`): The classes' names.
        seed (`int`): Seed of the t-SNE.

    Returns:
        `matplotlib.figure.Figure`

    Raises:
        ValueError: if images or latents are not finite or out of range, or shapes or classes do not fit.
        TypeError: if an argument is of another type.
    """
    if not isinstance(vae, LatentVAE):
        raise TypeError(f"`vae` expects a LatentVAE, got {type(vae).__name__}.")
    check_labels(len(names) if isinstance(names, (list, tuple)) else 0, names=names)
    check_figure_images("(num_references, channels, height, width)", reference=reference)
    check_figure_images("(channels, height, width)", factual=factual, counterfactual=counterfactual)
    expected = (vae.config.in_channels, vae.config.sample_size, vae.config.sample_size)
    for name, image in (("reference", reference[0]), ("factual", factual), ("counterfactual", counterfactual)):
        if tuple(image.shape) != expected:
            raise ValueError(f"`{name}` expects images of `vae`, of shape {expected}, got {tuple(image.shape)}.")
    check_classes(len(reference), reference_class=reference_class)
    for name, index in (("factual_class", factual_class), ("intervention", intervention)):
        if type(index) is not int or not 0 <= index < len(names):
            raise ValueError(f"`{name}` expects a class index from 0 to {len(names) - 1}, got {index!r}.")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"`seed` expects a whole number of at least 0, got {seed!r}.")
    names = [shorten(name) for name in names]
    images = torch.cat([reference, factual[None], counterfactual[None]])
    if len(images) < 5:
        raise ValueError(f"`reference` expects at least 3 images, got {len(reference)}.")
    mean = torch.cat([vae.encode(batch.to(vae.device))[0].cpu() for batch in images.split(100)])
    if not mean.isfinite().all():
        raise ValueError("`vae` expects to give finite means, got NaN or infinity.")
    perplexity = min(30, (len(mean) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(mean.numpy())

    figure = Figure(figsize=(5, 3.4))
    figure.suptitle(
        f"One {names[factual_class]} and its counterfactual among real images of both classes", x=0, y=1, ha="left"
    )
    figure.text(0, 0, "t-SNE of the means of the VAE's latents", color="0.35")
    axes = figure.add_axes((0, 0.06, 0.8, 0.86))
    axes.set_axis_off()
    shown = (
        (factual_class, factual, points[-2], BLUE, f"factual {names[factual_class]}"),
        (intervention, counterfactual, points[-1], ORANGE, f"do({names[intervention]})"),
    )
    for i, (c, image, point, colour, label) in enumerate(shown):
        of_class = points[:-2][reference_class == c]
        axes.scatter(*of_class.T, s=5, color=colour, alpha=0.35, linewidths=0)
        axes.scatter(*point, s=130, marker="*", color=colour, edgecolors="black", linewidths=0.8, zorder=3)

        image_axes = figure.add_axes((0.83, 0.6 - 0.46 * i, 0.17, 0.25))
        image_axes.imshow(image.movedim(0, -1).squeeze(-1).numpy(), vmin=0, vmax=1)
        image_axes.set(xticks=[], yticks=[])
        image_axes.spines[:].set(visible=True, color=colour, linewidth=2)
        image_axes.set_title(label, color=colour)
        image_axes.set_xlabel(f"dots: real\nimages of {names[c]}", color=colour)
        figure.add_artist(
            ConnectionPatch(
                point,
                (0, 0.5),
                "data",
                "axes fraction",
                axesA=axes,
                axesB=image_axes,
                color="0.35",
                linewidth=0.6,
                shrinkA=5,
            )
        )
    return figure
