# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Joins trained networks into one checkpoint.

    diffscm join-checkpoint --denoiser outputs/mnist-denoiser \
        --classifier outputs/mnist-classifier --output_dir checkpoints/diffscm-mnist

With `--encoder`, a denoiser that sees the decoded code makes a `DiffSCMSemanticCounterfactualPipeline`. With `--scm`,
the mechanisms of the attributes in a causal graph, and a denoiser of several causes make a
`DiffSCMGraphCounterfactualPipeline`, which may have an `--encoder` and a `--predictor`.
"""

import argparse
import shlex
import sys
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, ModelMixin, SchedulerMixin, UNet2DModel
from huggingface_hub import ModelCard

from diffscm_diffusers import (
    AntiCausalClassifier2DModel,
    CausalPredictor2DModel,
    CausalUNet2DModel,
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMScheduler,
    DiffSCMGraphCounterfactualPipeline,
    DiffSCMSemanticCounterfactualPipeline,
    SemanticEncoder2DModel,
    StructuralCausalModel,
)
from diffscm_diffusers.checksums import check_pipeline
from diffscm_diffusers.files import load_whole, locked, written_whole
from diffscm_diffusers.finite import check_finite
from diffscm_diffusers.flags import ArgumentParser, non_negative_float, non_negative_int, positive_float, positive_int
from diffscm_diffusers.hub.cards import make_graph_card, make_pipeline_card, read_section, save_card
from diffscm_diffusers.refusals import check_name_or_path, check_output_dir


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm join-checkpoint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--denoiser",
        required=True,
        help="Denoiser, a `DDPMPipeline` or, where it is told causes, its parts: a Hub name or a folder.",
    )
    parser.add_argument("--classifier", help="Anti-causal predictor of the class: a Hub name or a folder.")
    parser.add_argument(
        "--encoder", help="Semantic encoder, frozen, whose decoded code the denoiser sees: a Hub name or a folder."
    )
    parser.add_argument("--scm", help="`StructuralCausalModel` of the attributes: a Hub name or a folder.")
    parser.add_argument(
        "--predictor", help="Joint anti-causal predictor of all causes, with `--scm`: a Hub name or a folder."
    )
    parser.add_argument("--output_dir", required=True, help="New folder for the joined checkpoint.")
    parser.add_argument("--guidance_scale", type=non_negative_float, help="Default of calls that give none.")
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default of calls that give none.")
    parser.add_argument(
        "--timestep_spacing",
        choices=["leading", "linspace", "trailing", "quadratic"],
        help="How the steps of a call are spaced. Default: as the denoiser's scheduler says.",
    )
    parser.add_argument(
        "--steps_offset",
        type=non_negative_int,
        help="Added to the timesteps of a call, which then end at a higher noise level. Default: the same.",
    )
    parser.add_argument(
        "--abduction",
        choices=["source", "destination", "implicit"],
        help="Default of calls that give none, with `--encoder` or `--scm`.",
    )
    parser.add_argument("--tolerance", type=positive_float, help="The same of implicit abduction.")
    parser.add_argument(
        "--dequantize",
        action="store_true",
        help="Start abduction from a draw of the lowest noise level, with `--encoder` or `--scm`.",
    )
    parser.add_argument(
        "--noise_decay",
        type=non_negative_float,
        help="How fast spatial noise of draws forgets the factual's under other causes, with `--encoder` or `--scm`.",
    )
    parser.add_argument(
        "--num_corrections",
        type=non_negative_int,
        help="How often the `--encoder` corrects a code by what its decoded image is read as. Default: the encoder's.",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="Type of the saved weights."
    )
    return parser.parse_args(argv)


def load_denoiser(denoiser: str, dtype: torch.dtype) -> tuple[UNet2DModel, SchedulerMixin]:
    """The denoiser and its noise schedule: a `DDPMPipeline`, or its parts alone where the denoiser is told causes."""
    try:
        pipeline = DDPMPipeline.from_pretrained(denoiser, dtype=dtype, use_safetensors=True)
        check_pipeline(pipeline, {})
        return pipeline.unet, pipeline.scheduler
    except (OSError, ValueError) as error:
        cause = error
    try:
        class_name = UNet2DModel.load_config(denoiser, subfolder="unet").get("_class_name")
    except (OSError, ValueError):
        class_name = None
    try:
        if class_name is None:
            raise cause
        model_class = CausalUNet2DModel if class_name == "CausalUNet2DModel" else UNet2DModel
        unet = load_whole(model_class, denoiser, subfolder="unet", dtype=dtype)
        return unet, DDPMScheduler.from_pretrained(denoiser, subfolder="scheduler")
    except (OSError, ValueError) as error:
        raise ValueError(
            "`--denoiser` expects the Hub name or folder of a `DDPMPipeline`, or of `unet` and `scheduler`, as "
            f"train_diffusion.py writes them, got {denoiser!r}: {error}"
        ) from error


def load_network(model_class: type[ModelMixin], folder: str, flag: str, script: str, dtype: torch.dtype) -> ModelMixin:
    """Loads a network of just this class, as a training script writes it."""
    try:
        class_name = model_class.load_config(folder).get("_class_name")
        if class_name != model_class.__name__:
            # A U-Net, say, would be loaded all the same, with a random last layer.
            raise ValueError(f"it holds {class_name}.")
        return load_whole(model_class, folder, dtype=dtype)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"`--{flag}` expects the Hub name or folder of a network of the class `{model_class.__name__}`, as "
            f"{script} writes it, got {folder!r}: {error}"
        ) from error


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used, or networks that belong to no one pipeline."""
    check_output_dir(args.output_dir, is_new=True)
    if args.scm is None:
        if args.classifier is None:
            raise ValueError("`--classifier` expects an anti-causal predictor, unless there is an `--scm`, got none.")
        if args.predictor is not None:
            raise ValueError(f"`--predictor` expects an `--scm`, whose causes it reads, got {args.predictor!r} alone.")
    elif args.classifier is not None:
        raise ValueError(
            f"`--classifier` expects no `--scm`, whose causes a `--predictor` reads, got {args.classifier!r}."
        )
    if args.guidance_scale is not None and args.scm is None and args.encoder is not None:
        raise ValueError(
            "`--guidance_scale` expects no `--encoder` beside a `--classifier`: their pipeline has no scale, got "
            f"{args.guidance_scale}."
        )
    if args.num_corrections is not None and args.encoder is None:
        raise ValueError(f"`--num_corrections` expects an `--encoder`, got {args.num_corrections} alone.")
    if args.encoder is None and args.scm is None:
        for name in ("abduction", "tolerance", "dequantize", "noise_decay"):
            value = getattr(args, name)
            if value:
                raise ValueError(f"`--{name}` expects an `--encoder` or an `--scm`, got {value} alone.")
    for name in ("denoiser", "classifier", "encoder", "scm", "predictor"):
        check_name_or_path(name, getattr(args, name), "a Hub name or a folder")


def describe_training(parts: dict[str, str | None], argv: list[str]) -> str:
    """The card's section on training: this command and, where the networks have cards, how each was trained."""
    training = f"Joined by\n\n```bash\n{shlex.join(['diffscm', 'join-checkpoint', *argv])}\n```\n"
    for title, component in parts.items():
        if component is not None and Path(component, "README.md").exists():
            card = ModelCard.load(Path(component, "README.md"))
            training += f"\n### {title}\n\n{read_section(card.text, 'Training')}\n"
    return training


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    dtype = getattr(torch, args.dtype)
    unet, scheduler = load_denoiser(args.denoiser, dtype)
    num_train_timesteps = scheduler.config.num_train_timesteps
    if args.num_inference_steps is not None and args.num_inference_steps > num_train_timesteps:
        raise ValueError(
            f"`--num_inference_steps` expects at most the denoiser's {num_train_timesteps} training steps, got "
            f"{args.num_inference_steps}."
        )
    moves = {"timestep_spacing": args.timestep_spacing, "steps_offset": args.steps_offset}
    moves = {name: value for name, value in moves.items() if value is not None}
    if moves:
        config = DiffSCMDDIMScheduler.from_noise_schedule(scheduler).config
        scheduler = DiffSCMDDIMScheduler.from_config(config, **moves)
    parts = {"unet": unet, "scheduler": scheduler}
    for name, model_class, script in (
        ("classifier", AntiCausalClassifier2DModel, "train_classifier.py"),
        ("predictor", CausalPredictor2DModel, "train_classifier.py --graph"),
        ("encoder", SemanticEncoder2DModel, "train_semantic_encoder.py"),
        ("scm", StructuralCausalModel, "train_scm.py"),
    ):
        folder = getattr(args, name)
        if folder is not None:
            # Mechanisms of attributes are small, and their inverses exact in float32.
            part_dtype = torch.float32 if name == "scm" else dtype
            parts[name] = load_network(model_class, folder, name, script, part_dtype)
    if args.num_corrections is not None:
        parts["encoder"].register_to_config(num_corrections=args.num_corrections)
    defaults = {
        "default_guidance_scale": args.guidance_scale,
        "default_num_inference_steps": args.num_inference_steps,
        "default_abduction": args.abduction,
        "default_tolerance": args.tolerance,
        "noise_decay": args.noise_decay,
    }
    parts |= {name: value for name, value in defaults.items() if value is not None}
    if args.dequantize:
        parts["dequantize"] = True
    if args.scm is not None:
        pipeline, make_card = DiffSCMGraphCounterfactualPipeline(inverse_scheduler=None, **parts), make_graph_card
    elif args.encoder is not None:
        pipeline, make_card = DiffSCMSemanticCounterfactualPipeline(**parts), make_pipeline_card
    else:
        pipeline, make_card = DiffSCMCounterfactualPipeline(**parts), make_pipeline_card
    training = describe_training(
        {
            "Denoiser": args.denoiser,
            "Anti-causal predictor": args.classifier or args.predictor,
            "Semantic encoder": args.encoder,
            "Mechanisms of the attributes": args.scm,
        },
        sys.argv[1:] if argv is None else argv,
    )
    check_finite(pipeline, "denoiser")  # float16 has no numbers above 65504
    with locked(args.output_dir, is_new=True), written_whole(args.output_dir) as unfinished:
        pipeline.save_pretrained(unfinished)
        save_card(make_card(pipeline, args.output_dir, training=training), unfinished)
