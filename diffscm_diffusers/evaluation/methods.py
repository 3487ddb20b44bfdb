# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The methods and controls that are compared, each as a function from pairs to images."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from diffscm_diffusers import (
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMInverseScheduler,
    DiffSCMDDIMScheduler,
    LatentVAE,
)
from diffscm_diffusers.baselines import SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.data.splits import LabelledImages
from diffscm_diffusers.guidance import GuidanceScaleSearch

from .controls import draw_references, find_nearest_references
from .fingerprint import fingerprint
from .pairs import Pairs
from .scores import Scorer


METHODS = {"diffscm": "Diff-SCM", "van_looveren_klaise": "Van Looveren & Klaise", "schut": "Schut et al."}
CONTROLS = {
    "factual": "*the factual itself*",
    "random_target_image": "*random real image of the target class*",
    "nearest_in_pixels": "*nearest real image of the target class, in pixels*",
    "nearest_in_latents": "*nearest real image of the target class, in latents*",
}


@dataclass
class Method:
    """
    A method or control.

    Args:
        generate (`Callable`):
            Maps the numbers of pairs, `(batch,)`, to images in [0, 1], `(batch, channels, height, width)`.
        settings (`dict`): Everything that the images depend on.
    """

    generate: Callable[[torch.Tensor], torch.Tensor]
    settings: dict


def create_method(
    name: str,
    args: Namespace,
    pipe: DiffSCMCounterfactualPipeline,
    pairs: Pairs,
    factuals: LabelledImages,
    reference: LabelledImages,
    scorer: Scorer,
) -> Method:
    """
    Makes one of `METHODS` and `CONTROLS`.

    Args:
        name (`str`): Its name.
        args (`argparse.Namespace`): See [`add_evaluation_arguments`]; also `guidance_scale`, `search_scale`,
            `posterior_mean` and `baselines`.
        pipe (`DiffSCMCounterfactualPipeline`): From [`load_pipeline`].
        pairs (`Pairs`): The pairs.
        factuals (`LabelledImages`): Their factuals.
        reference (`LabelledImages`): The real images that the controls show.
        scorer (`Scorer`): Holds the latents.

    Raises:
        ValueError: if `args.baselines` is needed and doesn't hold the method.
    """
    settings = data_settings(args)
    reference_settings = {**settings, "train_split": args.train_split}

    if name == "diffscm":
        steps = step_settings(args, pipe)
        (guidance_scale,) = pipe.prepare_settings(args.preset, guidance_scale=args.guidance_scale)
        settings = {**settings, **pipeline_settings(args, pipe), "guidance_scale": guidance_scale}
        if args.search_scale is None:
            estimate = partial(pipe, guidance_scale=guidance_scale)
        else:
            estimate, search_settings = create_search(args, pipe, reference, scorer)
            settings = {**settings, **reference_settings, "guidance_scale": search_settings}
        averaging = None
        if args.posterior_mean is not None:
            timestep, num_draws = args.posterior_mean
            pipe.check_averaging(timestep, num_draws)
            averaging = {"timestep": timestep, "num_draws": num_draws, "guidance_scale": guidance_scale}
            settings["posterior_mean"] = averaging

        def generate(index):
            images, intervention = factuals.images(index), pairs.intervention[index]
            with scorer.accelerator.autocast():
                images = estimate(images, intervention, **steps, output_type="pt").images
                if averaging is None:
                    return images
                # The same draws for every chunk, so that none depends on which were generated before.
                generator = torch.Generator().manual_seed(args.seed)
                return pipe.posterior_mean(images, intervention, **averaging, generator=generator, output_type="pt")

    elif name in METHODS:
        baseline = load_baseline(name, args).to(pipe.device)
        baseline.set_progress_bar_config(leave=False, disable=not scorer.accelerator.is_main_process)

        def generate(index):
            return baseline(factuals.images(index), pairs.intervention[index], output_type="pt").images

        settings = {**settings, "baselines": args.baselines, "weights": fingerprint(baseline)}
    elif name == "factual":

        def generate(index):
            return factuals.images(index)

    elif name == "random_target_image":

        def generate(index):
            return reference.images(draw_references(index, pairs.intervention[index], reference.classes, args.seed))

        settings = reference_settings
    elif name == "nearest_in_pixels":

        def generate(index):
            pixels = factuals.pixels[index].flatten(1), pairs.intervention[index], reference.pixels.flatten(1)
            return reference.images(find_nearest_references(*pixels, reference.classes))

        settings = reference_settings
    elif name == "nearest_in_latents":

        def generate(index):
            latents = scorer.factual_mean[index], pairs.intervention[index], scorer.reference_mean
            return reference.images(find_nearest_references(*latents, reference.classes))

        vae = scorer.models.vae
        settings = {**reference_settings, "metric_models": args.metric_models, "weights": fingerprint(vae)}
    return Method(generate, settings)


def create_search(
    args: Namespace, pipe: DiffSCMCounterfactualPipeline, reference: LabelledImages, scorer: Scorer
) -> tuple[GuidanceScaleSearch, dict]:
    """
    Makes the search for each image's guidance scale that `--search_scale` asks for, and says what it depends on.

    Raises:
        ValueError: if `--guidance_scale` is given too, or if `--search_scale` is neither the word pixels alone nor
            folders of VAEs other than the one that scores.
    """
    if args.guidance_scale is not None:
        raise ValueError("`--guidance_scale` and `--search_scale` exclude each other, got both.")
    encode, settings = None, {"encoder": args.search_scale}
    if args.search_scale != ["pixels"]:
        takes = "`--search_scale` takes the word pixels alone, or folders that hold a VAE, such as outputs/metrics/vae"
        if "pixels" in args.search_scale:
            raise ValueError(f"{takes}, got {args.search_scale}.")
        vaes = []
        for name in args.search_scale:
            try:
                class_name = LatentVAE.load_config(name).get("_class_name")
                if class_name != "LatentVAE":
                    # Loaded all the same, it would have random weights.
                    raise ValueError(f"it holds {class_name}.")
                vaes.append(LatentVAE.from_pretrained(name, use_safetensors=True).to(pipe.device))
            except (KeyError, OSError, ValueError) as error:
                raise ValueError(f"{takes}, got {name!r}: {error}") from error
        settings["weights"] = [fingerprint(vae) for vae in vaes]
        if fingerprint(scorer.models.vae) in settings["weights"]:
            raise ValueError(
                "`--search_scale` takes other VAEs than the one in `--metric_models`, which scores what the search "
                f"finds, got {args.search_scale}."
            )

        def encode(image):
            # Latents side by side: the divergences of independent Gaussians add up.
            means, variances = zip(*(vae.encode(image) for vae in vaes), strict=True)
            return torch.cat(means, dim=1), torch.cat(variances, dim=1)

    search = GuidanceScaleSearch(pipe, reference.images(slice(None)), reference.classes, encode)
    return search, {
        **settings,
        "scale_range": list(search.scale_range),
        "num_candidates": search.num_candidates,
        "target_probability": search.target_probability,
    }


def load_pipeline(args: Namespace) -> DiffSCMCounterfactualPipeline:
    """Loads `--pretrained_model_name_or_path`, with the moves of `--scheduler`."""
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(
        args.pretrained_model_name_or_path, cache_dir=args.cache_dir, use_safetensors=True
    )
    if args.scheduler == "checkpoint":
        return pipe
    if args.scheduler == "belm":
        schedulers = [DiffSCMBELMScheduler.from_config(pipe.scheduler.config)]
    else:
        schedulers = [
            DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="quadratic"),
            DiffSCMDDIMInverseScheduler.from_config(pipe.inverse_scheduler.config, timestep_spacing="quadratic"),
        ]
    settings = {name: value for name, value in pipe.config.items() if name.startswith(("default_", "presets"))}
    return DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, *schedulers, **settings)


def load_baseline(name: str, args: Namespace) -> DiffusionPipeline:
    """Loads a method from the folder that `train_baselines.py` wrote."""
    if args.baselines is None:
        raise ValueError(f"`--baselines` is needed for the method {name!r}: the folder that train_baselines.py wrote.")
    folder = Path(args.baselines, name)
    if not (folder / "model_index.json").is_file():
        raise ValueError(
            f"`--baselines` takes a folder that train_baselines.py wrote, but {str(folder)!r} holds none."
        )
    pipeline_class = VanLooverenKlaisePipeline if name == "van_looveren_klaise" else SchutPipeline
    return pipeline_class.from_pretrained(folder, use_safetensors=True)


def data_settings(args: Namespace) -> dict:
    """What the pairs depend on."""
    names = ("dataset_name", "dataset_config_name", "train_data_dir", "split", "image_column", "label_column", "seed")
    return {name: getattr(args, name) for name in names}


def pipeline_settings(args: Namespace, pipe: DiffSCMCounterfactualPipeline) -> dict:
    """What Diff-SCM's counterfactuals depend on, but for the guidance scale."""
    return {
        "pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "weights": fingerprint(pipe),
        "scheduler": type(pipe.scheduler).__name__,
        "mixed_precision": args.mixed_precision,
        **step_settings(args, pipe),
    }


def step_settings(args: Namespace, pipe: DiffSCMCounterfactualPipeline) -> dict:
    """The arguments of Diff-SCM's call that say which steps it makes."""
    names = ("num_inference_steps", "guidance_interval", "abduction")
    values = pipe.prepare_settings(args.preset, **{name: getattr(args, name) for name in names})
    num_inference_steps, guidance_interval, abduction = values
    # Refused before any file is written.
    pipe.check_guided_timesteps(guidance_interval, pipe.prepare_timesteps(num_inference_steps, 1.0, abduction))
    return dict(zip(names, values, strict=True))
