# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import torch

from diffscm_diffusers import DiffSCMCounterfactualPipeline, LatentVAE, guidance
from diffscm_diffusers.data.images import DecodedImages
from diffscm_diffusers.files import load_whole
from diffscm_diffusers.flags import value_of

from ..fingerprint import fingerprint
from ..pipelines import describe_pipeline
from .registry import Draws, Method, register_method


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
    Abduction, action and prediction (paper, Alg. 1), under the factual's class unless the checkpoint abducts
    marginally.

    Raises:
        ValueError: as [`create_search`], and if `posterior_mean` is out of its range.
    """
    settings = describe_pipeline(pipe, pretrained_model_name_or_path, accelerator.mixed_precision, steps)
    is_marginal = pipe.config.get("default_marginal_abduction", False)
    arguments = {**steps, "output_type": "pt"}
    if guidance_scale is not None:
        settings["guidance_scale"] = arguments["guidance_scale"] = guidance_scale

    def call(images, factual_class, intervention, **kwargs):
        factual_class = None if is_marginal else factual_class
        with accelerator.autocast():
            return pipe(images, intervention, factual_class=factual_class, **arguments, **kwargs)

    def estimate(images, factual_class, intervention):
        return call(images, factual_class, intervention).images

    if search_scale is not None:
        search, settings["guidance_scale"] = create_search(search_scale, pipe, reference, scorer.vae)
        settings["train_split"] = train_split

        def estimate(images, factual_class, intervention):
            with accelerator.autocast():
                return search(images, intervention, **steps, output_type="pt").images

    estimate_once = estimate
    if posterior_mean is not None:
        timestep, num_draws = posterior_mean
        averaging = {"timestep": timestep, "num_draws": num_draws, "guidance_scale": guidance_scale}
        settings["posterior_mean"] = averaging
        # Arguments that don't fit fail here, not after hours of generation.
        with value_of("posterior_mean", posterior_mean, "a timestep and an even number of draws"):
            guidance.posterior_mean(pipe, factuals.images(slice(1)), pairs.intervention[:1], **averaging)

        def estimate(images, factual_class, intervention):
            images = estimate_once(images, factual_class, intervention)
            # The same draws for every chunk, so that none depends on which were generated before.
            generator = torch.Generator().manual_seed(seed)
            with accelerator.autocast():
                return guidance.posterior_mean(
                    pipe, images, intervention, **averaging, generator=generator, output_type="pt"
                )

    def generate(index):
        return estimate(factuals.images(index), pairs.factual_class[index], pairs.intervention[index])

    def draw(index, num_draws, generator):
        batch = factuals.images(index), pairs.factual_class[index], pairs.intervention[index]
        output = call(*batch, num_draws=num_draws, generator=generator, batch_size=len(index))
        return Draws(output.images, output.exogenous_noise, output.get("code"))

    # The way up of the other schedulers starts from the image itself; the other options make one image of many.
    can_draw = pipe.inverse_scheduler.order == 1 and search_scale is None and posterior_mean is None
    return Method(generate, settings, estimate, draw if can_draw else None)


def create_search(
    encoder: list[str], pipe: DiffSCMCounterfactualPipeline, reference: DecodedImages, scoring_vae: LatentVAE | None
) -> tuple[guidance.GuidanceScaleSearch, dict]:
    """
    Creates the search for each image's guidance scale.

    Args:
        encoder (`list[str]`): The word pixels alone, or folders of VAEs.
        pipe ([`DiffSCMCounterfactualPipeline`]): Makes the counterfactuals.
        reference (`DecodedImages`): The real images that the search compares with.
        scoring_vae ([`LatentVAE`], *optional*): The one that scores, which the search must not see.

    Returns:
        `tuple`: the search, and the settings that its result depends on.

    Raises:
        ValueError: if `encoder` is neither the word pixels alone nor folders of VAEs other than the one that scores.
    """
    encode, settings = None, {"encoder": encoder}
    if encoder != ["pixels"]:
        vaes = [load_vae(folder).to(pipe.device) for folder in encoder]
        settings["weights"] = [fingerprint(vae) for vae in vaes]
        if scoring_vae is not None and fingerprint(scoring_vae) in settings["weights"]:
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
