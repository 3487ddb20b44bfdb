# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline, LatentVAE, guidance
from diffscm_diffusers.data.images import DecodedImages
from diffscm_diffusers.files import load_whole
from diffscm_diffusers.flags import value_of

from ..fingerprint import fingerprint
from ..pipelines import describe_pipeline
from .registry import Method, register_method


@register_method("diff-scm", "Diff-SCM")
def create_diff_scm(
    pipe,
    pretrained_model_name_or_path,
    steps,
    guidance_scale,
    search_scale,
    posterior_mean,
    pairs,
    factuals,
    reference,
    scorer,
    accelerator,
    train_split,
    seed,
    **unused,
) -> Method:
    """
    Abduction, action and prediction (paper, Alg. 1).

    Raises:
        ValueError: as [`create_search`], and if `posterior_mean` is out of its range.
    """
    settings = describe_pipeline(pipe, pretrained_model_name_or_path, accelerator.mixed_precision, steps)
    settings["guidance_scale"] = guidance_scale

    def estimate(images, index, **how):
        factual_class = None if pipe.config.default_marginal_abduction else pairs.factual_class[index]
        return pipe(images, pairs.intervention[index], guidance_scale, factual_class=factual_class, **how)

    if search_scale is not None:
        search, search_settings = create_search(search_scale, pipe, reference, scorer.models.vae)
        settings |= {"guidance_scale": search_settings, "train_split": train_split}

        def estimate(images, index, **how):
            return search(images, pairs.intervention[index], **how)

    averaging = None
    if posterior_mean is not None:
        timestep, num_draws = posterior_mean
        averaging = {"timestep": timestep, "num_draws": num_draws, "guidance_scale": guidance_scale}
        settings["posterior_mean"] = averaging
        # Arguments that don't fit fail here, not after hours of generation.
        with value_of("posterior_mean", posterior_mean, "a timestep and an even number of draws"):
            guidance.posterior_mean(pipe, factuals.images(slice(1)), pairs.intervention[:1], **averaging)

    def generate(index):
        images = factuals.images(index)
        with accelerator.autocast():
            images = estimate(images, index, **steps, output_type="pt").images
            if averaging is None:
                return images
            # The same draws for every chunk, so that none depends on which were generated before.
            generator = torch.Generator().manual_seed(seed)
            return guidance.posterior_mean(
                pipe, images, pairs.intervention[index], **averaging, generator=generator, output_type="pt"
            )

    return Method(generate, settings)


def create_search(
    encoder: list[str], pipe: DiffSCMCounterfactualPipeline, reference: DecodedImages, scoring_vae: LatentVAE
) -> tuple[guidance.GuidanceScaleSearch, dict]:
    """
    Creates the search for each image's guidance scale.

    Args:
        encoder (`list[str]`): The word pixels alone, or folders of VAEs.
        pipe ([`DiffSCMCounterfactualPipeline`]): Makes the counterfactuals.
        reference (`DecodedImages`): The real images that the search compares with.
        scoring_vae ([`LatentVAE`]): The one that scores, which the search must not see.

    Returns:
        `tuple`: the search, and the settings that its result depends on.

    Raises:
        ValueError: if `encoder` is neither the word pixels alone nor folders of VAEs other than the one that scores.
    """
    encode, settings = None, {"encoder": encoder}
    if encoder != ["pixels"]:
        vaes = [load_vae(folder).to(pipe.device) for folder in encoder]
        settings["weights"] = [fingerprint(vae) for vae in vaes]
        if fingerprint(scoring_vae) in settings["weights"]:
            raise ValueError(
                "`--search_scale` expects other VAEs than the one in `--metric_models`, which scores what the search "
                f"finds, got {encoder}."
            )

        def encode(image):
            # Latents side by side: the divergences of independent Gaussians add up.
            means, variances = zip(*(vae.encode(image) for vae in vaes), strict=True)
            return torch.cat(means, dim=1), torch.cat(variances, dim=1)

    search = guidance.GuidanceScaleSearch(pipe, reference.images(slice(None)), reference.classes, encode)
    settings["scale_range"] = list(search.scale_range)
    settings["num_candidates"] = search.num_candidates
    settings["target_probability"] = search.target_probability
    return search, settings


def load_vae(folder: str) -> LatentVAE:
    """Loads one of the VAEs of `--search_scale`."""
    try:
        if folder == "pixels":
            raise ValueError("it stands alone.")
        class_name = LatentVAE.load_config(folder).get("_class_name")
        if class_name != "LatentVAE":
            # Loaded all the same, it would have random weights.
            raise ValueError(f"it holds {class_name}.")
        return load_whole(LatentVAE, folder)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            "`--search_scale` expects the word pixels alone, or folders that hold a VAE, such as outputs/metrics/vae, "
            f"got {folder!r}: {error}"
        ) from error
