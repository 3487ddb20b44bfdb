# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Converts weights of guided-diffusion (ADM) or of Diff-SCM's original code into a checkpoint.

Such are the two that OpenAI published for ImageNet at 256x256 (Dhariwal & Nichol, 2021):

    diffscm convert-adm \
        --attention_resolutions 32,16,8 --class_cond False --diffusion_steps 1000 --image_size 256 \
        --learn_sigma True --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 \
        --resblock_updown True --use_fp16 True --use_scale_shift_norm True \
        --model_path models/256x256_diffusion_uncond.pt --classifier_path models/256x256_classifier.pt \
        --output_dir checkpoints/diffscm-imagenet256

The flags of the networks are guided-diffusion's, with its defaults. A denoiser alone becomes a `DDPMPipeline`, a
classifier alone an `AntiCausalClassifier2DModel`; `diffscm join-checkpoint` joins the two. A class-conditional
denoiser cannot be part of a `DiffSCMCounterfactualPipeline`: it is saved as a model in `unet`, beside its `scheduler`.
"""

import argparse
import errno
import json
import shutil
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, ModelMixin, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.checksums import write_weights_checksums
from diffscm_diffusers.conversion.adm_configs import scheduler_config
from diffscm_diffusers.conversion.adm_networks import convert_classifier, convert_denoiser
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.flags import ArgumentParser, non_negative_float, positive_float, positive_int, rate, value_of
from diffscm_diffusers.hub.weights import read_weights
from diffscm_diffusers.refusals import check_file, check_output_dir


def boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"expects True or False, got {text!r}")
    return text == "True"


def integers(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part) for part in text.split(",") if part)


def file_size(text: str) -> str:
    number, unit = text[:-2], text[-2:].upper()
    if unit not in ("KB", "MB", "GB", "TB") or not number.isdigit() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"expects a size such as 500MB or 1GB, got {text!r}")
    return text


def multipliers(text: str) -> tuple[float, ...]:
    return tuple(positive_float(part) for part in text.split(",") if part)


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm convert-adm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_path", help="Weights of the denoiser, `.pt` or `.safetensors`.")
    parser.add_argument("--classifier_path", help="Weights of the classifier, `.pt` or `.safetensors`.")
    parser.add_argument("--output_dir", required=True, help="New folder for the checkpoint.")
    parser.add_argument("--id2label", help="JSON list with the names of the classes. Default: ImageNet's, if 1,000.")
    parser.add_argument(
        "--max_shard_size", type=file_size, default="1GB", help="Weights beyond this size get several files."
    )
    parser.add_argument("--num_inference_steps", type=positive_int, help="Default of calls that give none.")

    both = parser.add_argument_group("both networks and the diffusion, as in guided-diffusion")
    both.add_argument("--image_size", type=positive_int, default=64)
    both.add_argument("--diffusion_steps", type=positive_int, default=1000)
    both.add_argument("--noise_schedule", choices=["linear", "cosine"], default="linear")
    both.add_argument("--use_fp16", type=boolean, default=False, help="Whether to save weights in float16 as well.")

    denoiser = parser.add_argument_group("denoiser, as in guided-diffusion")
    denoiser.add_argument("--num_channels", type=positive_int, default=128)
    denoiser.add_argument("--num_res_blocks", type=positive_int, default=2)
    denoiser.add_argument("--channel_mult", type=multipliers, default=(), help="Default: that of `--image_size`.")
    denoiser.add_argument("--attention_resolutions", type=integers, default=(16, 8))
    denoiser.add_argument("--num_heads", type=positive_int, default=4)
    denoiser.add_argument("--num_head_channels", type=int, default=-1, help="Instead of `--num_heads`; -1 for none.")
    denoiser.add_argument("--class_cond", type=boolean, default=False)
    denoiser.add_argument("--learn_sigma", type=boolean, default=False)
    denoiser.add_argument("--predict_xstart", type=boolean, default=False)
    denoiser.add_argument("--dropout", type=rate, default=0.0)
    denoiser.add_argument("--resblock_updown", type=boolean, default=False)
    denoiser.add_argument("--use_scale_shift_norm", type=boolean, default=True)
    denoiser.add_argument("--use_new_attention_order", type=boolean, default=False)

    classifier = parser.add_argument_group("classifier, as in guided-diffusion or, the multipliers, in Diff-SCM")
    classifier.add_argument("--classifier_width", type=positive_int, default=128)
    classifier.add_argument("--classifier_depth", type=positive_int, default=2)
    classifier.add_argument("--classifier_channel_mult", type=multipliers, default=())
    classifier.add_argument("--classifier_attention_resolutions", type=integers, default=(32, 16, 8))
    classifier.add_argument("--classifier_num_head_channels", type=positive_int, default=64)
    classifier.add_argument("--classifier_use_scale_shift_norm", type=boolean, default=True)
    classifier.add_argument("--classifier_resblock_updown", type=boolean, default=True)
    classifier.add_argument(
        "--classifier_pool", choices=["adaptive", "attention", "spatial", "spatial_v2"], default="attention"
    )
    classifier.add_argument("--classifier_scale", type=non_negative_float, help="Default `guidance_scale` of calls.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    if args.model_path is None and args.classifier_path is None:
        raise ValueError("At least one of `--model_path` and `--classifier_path` is expected, got neither.")
    if args.class_cond and args.model_path is not None and args.classifier_path is not None:
        raise ValueError(
            "`--class_cond True`: a DiffSCMCounterfactualPipeline expects an unconditional denoiser. Convert the "
            "class-conditional one alone, without `--classifier_path`; it is saved as a model."
        )
    if args.num_head_channels != -1 and args.num_head_channels < 1:
        raise ValueError(
            f"`--num_head_channels` expects a positive number, or -1 for none, got {args.num_head_channels}."
        )
    if args.num_inference_steps is not None and args.num_inference_steps > args.diffusion_steps:
        raise ValueError(
            f"`--num_inference_steps` expects at most the `--diffusion_steps`, {args.diffusion_steps}, got "
            f"{args.num_inference_steps}."
        )
    if args.id2label is not None:
        read_id2label(args.id2label)
    check_output_dir(args.output_dir, is_new=True)
    for flag in ("model_path", "classifier_path"):
        if getattr(args, flag) is not None:
            check_file(flag, getattr(args, flag), "a file of weights that you have downloaded")


def read_id2label(path: str) -> dict[int, str]:
    with value_of("id2label", path, "a JSON file"):
        names = json.loads(Path(path).read_text())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`--id2label` expects a JSON list of names, in the order of the classes, got {path!r}.")
    return dict(enumerate(names))


def read_file(flag: str, path: str) -> dict[str, torch.Tensor]:
    with value_of(flag, path, "a file of weights"):
        return read_weights(path)


def load_denoiser(args: argparse.Namespace) -> UNet2DModel:
    return convert_denoiser(
        read_file("model_path", args.model_path),
        class_cond=args.class_cond,
        use_new_attention_order=args.use_new_attention_order,
        image_size=args.image_size,
        num_channels=args.num_channels,
        num_res_blocks=args.num_res_blocks,
        channel_mult=args.channel_mult,
        attention_resolutions=args.attention_resolutions,
        num_heads=args.num_heads,
        num_head_channels=args.num_head_channels,
        use_scale_shift_norm=args.use_scale_shift_norm,
        resblock_updown=args.resblock_updown,
        learn_sigma=args.learn_sigma,
        dropout=args.dropout,
    )


def load_classifier(args: argparse.Namespace) -> AntiCausalClassifier2DModel:
    return convert_classifier(
        read_file("classifier_path", args.classifier_path),
        id2label=None if args.id2label is None else read_id2label(args.id2label),
        image_size=args.image_size,
        classifier_width=args.classifier_width,
        classifier_depth=args.classifier_depth,
        classifier_channel_mult=args.classifier_channel_mult,
        classifier_attention_resolutions=args.classifier_attention_resolutions,
        classifier_num_head_channels=args.classifier_num_head_channels,
        classifier_use_scale_shift_norm=args.classifier_use_scale_shift_norm,
        classifier_resblock_updown=args.classifier_resblock_updown,
        classifier_pool=args.classifier_pool,
    )


def load_checkpoint(args: argparse.Namespace) -> tuple[ModelMixin | DiffusionPipeline, DDPMScheduler]:
    """Returns what is to be saved, as one object, and its noise schedule."""
    scheduler = DDPMScheduler(
        **scheduler_config(args.diffusion_steps, args.noise_schedule, args.learn_sigma, args.predict_xstart)
    )
    if args.model_path is None:
        return load_classifier(args), scheduler
    denoiser = load_denoiser(args)
    if args.class_cond:
        return denoiser, scheduler
    if args.classifier_path is None:
        return DDPMPipeline(unet=denoiser, scheduler=scheduler), scheduler
    defaults = {
        "default_guidance_scale": args.classifier_scale,
        "default_num_inference_steps": args.num_inference_steps,
    }
    return DiffSCMCounterfactualPipeline(
        unet=denoiser,
        classifier=load_classifier(args),
        scheduler=scheduler,
        **{name: value for name, value in defaults.items() if value is not None},
    ), scheduler


def check_space(checkpoint: ModelMixin | DiffusionPipeline, folder: Path, factor: float):
    """Refuses a checkpoint that the disk has no room for, `factor` times the size of its weights in memory."""
    networks = [checkpoint] if isinstance(checkpoint, ModelMixin) else list(checkpoint.components.values())
    needed = factor * sum(p.nbytes for n in networks if isinstance(n, ModelMixin) for p in n.parameters())
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"The checkpoint needs {needed / 1e9:.1f} GB, but {str(folder)!r} has {free / 1e9:.1f} GB left. "
            "Make room or give another `--output_dir`",
        )


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    checkpoint, scheduler = load_checkpoint(args)
    check_space(checkpoint, Path(args.output_dir).parent, factor=1.5 if args.use_fp16 else 1)
    checkpoint_class = type(checkpoint)
    is_alone = isinstance(checkpoint, UNet2DModel)
    with locked(args.output_dir, is_new=True), written_whole(args.output_dir) as unfinished:
        target = unfinished / "unet" if is_alone else unfinished
        if is_alone:
            scheduler.save_pretrained(unfinished / "scheduler")
        checkpoint.save_pretrained(target, max_shard_size=args.max_shard_size)
        if args.use_fp16:
            del checkpoint  # frees its memory before the other precision's is allocated
            half = checkpoint_class.from_pretrained(target, dtype=torch.float16)
            half.save_pretrained(target, variant="fp16", max_shard_size=args.max_shard_size)
            checkpoint = half
        write_weights_checksums(checkpoint, target)
    if is_alone:
        print(
            "Saved a class-conditional denoiser alone, as a DiffSCMCounterfactualPipeline expects an unconditional "
            f"one: load it with `{checkpoint_class.__name__}.from_pretrained({args.output_dir!r}, subfolder='unet')`."
        )
