# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Joins a trained denoiser and a trained anti-causal predictor into one `DiffSCMCounterfactualPipeline` checkpoint.

    diffscm join-checkpoint --denoiser outputs/mnist-denoiser \
        --classifier outputs/mnist-classifier --output_dir checkpoints/diffscm-mnist
"""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

import torch
from diffusers import DDPMPipeline
from huggingface_hub import ModelCard

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.hub.model_card import make_model_card, read_section
from diffscm_diffusers.training.arguments import non_negative_float, positive_int
from diffscm_diffusers.training.checkpoints import UNFINISHED_PREFIX


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


def write_model_card(args, pipeline: DiffSCMCounterfactualPipeline, argv: list[str], folder: Path):
    """Writes a card with this command and, where the components have cards, how each was trained."""
    command = shlex.join(["python", f"train_scripts/{Path(__file__).name}", *argv])
    training = f"Joined by\n\n```bash\n{command}\n```\n"
    for title, component in (("Denoiser", args.denoiser), ("Anti-causal predictor", args.classifier)):
        component_card = Path(component, "README.md")
        if component_card.exists():
            section = read_section(ModelCard.load(component_card).text, "Training")
            training += f"\n### {title}\n\n{section}\n"
    make_model_card(pipeline, args.output_dir, training=training).save(folder / "README.md")


def main(argv=None):
    args = parse_args(argv)
    folder = Path(args.output_dir)
    if folder.exists():
        raise ValueError(f"`--output_dir` takes a new folder, but {args.output_dir!r} exists.")
    dtype = getattr(torch, args.dtype)
    try:
        denoiser = DDPMPipeline.from_pretrained(args.denoiser, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            "`--denoiser` takes the Hub name or folder of a `DDPMPipeline`, as train_diffusion.py writes it, got "
            f"{args.denoiser!r}: {error}"
        ) from error
    num_train_timesteps = denoiser.scheduler.config.num_train_timesteps
    if args.num_inference_steps is not None and args.num_inference_steps > num_train_timesteps:
        raise ValueError(
            f"`--num_inference_steps` takes at most the denoiser's {num_train_timesteps} training steps, got "
            f"{args.num_inference_steps}."
        )
    try:
        class_name = AntiCausalClassifier2DModel.load_config(args.classifier).get("_class_name")
        if class_name != "AntiCausalClassifier2DModel":
            # A U-Net, say, would be loaded all the same, with a random last layer.
            raise ValueError(f"it holds {class_name}.")
        classifier = AntiCausalClassifier2DModel.from_pretrained(args.classifier, dtype=dtype, use_safetensors=True)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            "`--classifier` takes the Hub name or folder of an `AntiCausalClassifier2DModel`, as train_classifier.py "
            f"writes it, got {args.classifier!r}: {error}"
        ) from error
    defaults = {
        "default_guidance_scale": args.guidance_scale,
        "default_num_inference_steps": args.num_inference_steps,
    }
    pipeline = DiffSCMCounterfactualPipeline(
        unet=denoiser.unet,
        classifier=classifier,
        scheduler=denoiser.scheduler,
        **{name: value for name, value in defaults.items() if value is not None},
    )
    unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    pipeline.save_pretrained(unfinished)
    write_model_card(args, pipeline, sys.argv[1:] if argv is None else argv, unfinished)
    os.replace(unfinished, folder)
