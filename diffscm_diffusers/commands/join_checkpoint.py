# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Joins a trained denoiser and a trained anti-causal predictor into one checkpoint.

    diffscm join-checkpoint --denoiser outputs/mnist-denoiser \
        --classifier outputs/mnist-classifier --output_dir checkpoints/diffscm-mnist
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch
from diffusers import DDPMPipeline
from huggingface_hub import ModelCard

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.finite import check_finite
from diffscm_diffusers.flags import non_negative_float, positive_int
from diffscm_diffusers.hub.cards import make_pipeline_card, read_section, save_card


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "diffscm join-checkpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--denoiser", required=True, help="Unconditional `DDPMPipeline`: a Hub name or a folder.")
    parser.add_argument("--classifier", required=True, help="Anti-causal predictor: a Hub name or a folder.")
    parser.add_argument("--output_dir", required=True, help="New folder for the joined checkpoint.")
    parser.add_argument("--guidance_scale", type=non_negative_float, help="Default of calls that give none.")
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default of calls that give none.")
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="Type of the saved weights."
    )
    return parser.parse_args(argv)


def load_denoiser(denoiser: str, dtype: torch.dtype) -> DDPMPipeline:
    try:
        return DDPMPipeline.from_pretrained(denoiser, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            "`--denoiser` expects the Hub name or folder of a `DDPMPipeline`, as train_diffusion.py writes it, got "
            f"{denoiser!r}: {error}"
        ) from error


def load_classifier(classifier: str, dtype: torch.dtype) -> AntiCausalClassifier2DModel:
    try:
        class_name = AntiCausalClassifier2DModel.load_config(classifier).get("_class_name")
        if class_name != "AntiCausalClassifier2DModel":
            # A U-Net, say, would be loaded all the same, with a random last layer.
            raise ValueError(f"it holds {class_name}.")
        return AntiCausalClassifier2DModel.from_pretrained(classifier, dtype=dtype, use_safetensors=True)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            "`--classifier` expects the Hub name or folder of an `AntiCausalClassifier2DModel`, as "
            f"train_classifier.py writes it, got {classifier!r}: {error}"
        ) from error


def describe_training(denoiser: str, classifier: str, argv: list[str]) -> str:
    """The card's section on training: this command and, where the networks have cards, how each was trained."""
    training = f"Joined by\n\n```bash\n{shlex.join(['diffscm', 'join-checkpoint', *argv])}\n```\n"
    for title, component in (("Denoiser", denoiser), ("Anti-causal predictor", classifier)):
        card = Path(component, "README.md")
        if card.exists():
            training += f"\n### {title}\n\n{read_section(ModelCard.load(card).text, 'Training')}\n"
    return training


def main(argv=None):
    args = parse_args(argv)
    if Path(args.output_dir).exists():
        raise ValueError(f"`--output_dir` expects a new folder, but {args.output_dir!r} exists.")
    dtype = getattr(torch, args.dtype)
    denoiser = load_denoiser(args.denoiser, dtype)
    num_train_timesteps = denoiser.scheduler.config.num_train_timesteps
    if args.num_inference_steps is not None and args.num_inference_steps > num_train_timesteps:
        raise ValueError(
            f"`--num_inference_steps` expects at most the denoiser's {num_train_timesteps} training steps, got "
            f"{args.num_inference_steps}."
        )
    defaults = {
        "default_guidance_scale": args.guidance_scale,
        "default_num_inference_steps": args.num_inference_steps,
    }
    pipeline = DiffSCMCounterfactualPipeline(
        unet=denoiser.unet,
        classifier=load_classifier(args.classifier, dtype),
        scheduler=denoiser.scheduler,
        **{name: value for name, value in defaults.items() if value is not None},
    )
    check_finite(pipeline, "denoiser")  # float16 has no numbers above 65504
    training = describe_training(args.denoiser, args.classifier, sys.argv[1:] if argv is None else argv)
    with locked(args.output_dir, is_new=True), written_whole(args.output_dir) as unfinished:
        pipeline.save_pretrained(unfinished)
        save_card(make_pipeline_card(pipeline, args.output_dir, training=training), unfinished)
