# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Converts checkpoints of guided-diffusion (ADM; Dhariwal & Nichol, 2021) or of Diff-SCM's original code into a
`DiffSCMCounterfactualPipeline`, such as the two that OpenAI published for ImageNet at 256x256:

    diffscm convert-adm \
        --attention_resolutions 32,16,8 --class_cond False --diffusion_steps 1000 --image_size 256 \
        --learn_sigma True --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2 \
        --resblock_updown True --use_fp16 True --use_scale_shift_norm True \
        --model_path models/256x256_diffusion_uncond.pt --classifier_path models/256x256_classifier.pt \
        --output_dir checkpoints/diffscm-imagenet256

The flags of the networks are guided-diffusion's, with its defaults. A denoiser alone becomes a `DDPMPipeline`, a
classifier alone an `AntiCausalClassifier2DModel`; both are what `diffscm join-checkpoint` takes. A class-conditional
denoiser cannot be part of a `DiffSCMCounterfactualPipeline`: it is saved as a model in `unet`, beside its `scheduler`.
"""

import argparse
import errno
import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, DiffusionPipeline, ModelMixin, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.conversion.adm_configs import classifier_config, denoiser_config, scheduler_config
from diffscm_diffusers.conversion.adm_weights import classifier_names, convert_weights, denoiser_names
from diffscm_diffusers.conversion.class_names import imagenet_id2label
from diffscm_diffusers.hub.weights import read_weights
from diffscm_diffusers.models.adm_unet_2d import ADMUNet2DModel
from diffscm_diffusers.training.arguments import non_negative_float, positive_int, rate
from diffscm_diffusers.training.checkpoints import UNFINISHED_PREFIX


def boolean(text: str) -> bool:
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"takes True or False, got {text}")
    return text == "True"


def integers(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part) for part in text.split(",") if part)


def multipliers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        "diffscm convert-adm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_path", help="Weights of the denoiser, `.pt` or `.safetensors`.")
    parser.add_argument("--classifier_path", help="Weights of the classifier, `.pt` or `.safetensors`.")
    parser.add_argument("--output_dir", required=True, help="New folder for the checkpoint.")
    parser.add_argument("--id2label", help="JSON list with the names of the classes. Default: ImageNet's, if 1,000.")
    parser.add_argument("--max_shard_size", default="1GB", help="Weights beyond this size get several files.")
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


def read_size(weights: dict[str, torch.Tensor], name: str, dimension: int, default: int) -> int:
    """A size that no flag gives. Where the weight is missing, `default`: the conversion will list it."""
    shape = weights[name].shape if name in weights else ()
    return shape[dimension] if dimension < len(shape) else default


def read_id2label(path: str) -> dict[int, str]:
    names = json.loads(Path(path).read_text())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`--id2label` takes a JSON list of names, in the order of the classes, got {path!r}.")
    return dict(enumerate(names))


def load_denoiser(args) -> UNet2DModel:
    weights = read_weights(args.model_path)
    config = denoiser_config(
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
        in_channels=read_size(weights, "input_blocks.0.0.weight", 1, default=3),
        num_classes=read_size(weights, "label_emb.weight", 0, default=1000) if args.class_cond else None,
    )
    model_class = {"UNet2DModel": UNet2DModel, "ADMUNet2DModel": ADMUNet2DModel}[config.pop("_class_name")]
    with torch.device("meta"):
        model = model_class(**config)
    weights = convert_weights(weights, model, denoiser_names(model.config), args.use_new_attention_order)
    model.load_state_dict(weights, assign=True)
    return model


def load_classifier(args) -> AntiCausalClassifier2DModel:
    weights = read_weights(args.classifier_path)
    last_layer = {"adaptive": "out.3", "attention": "out.2.c_proj", "spatial": "out.2", "spatial_v2": "out.3"}
    num_classes = read_size(weights, f"{last_layer[args.classifier_pool]}.bias", 0, default=1000)
    id2label = None
    if args.id2label is not None:
        id2label = read_id2label(args.id2label)
    elif num_classes == 1000:
        id2label = imagenet_id2label()
    with torch.device("meta"):
        model = AntiCausalClassifier2DModel(
            **classifier_config(
                image_size=args.image_size,
                classifier_width=args.classifier_width,
                classifier_depth=args.classifier_depth,
                classifier_channel_mult=args.classifier_channel_mult,
                classifier_attention_resolutions=args.classifier_attention_resolutions,
                classifier_num_head_channels=args.classifier_num_head_channels,
                classifier_use_scale_shift_norm=args.classifier_use_scale_shift_norm,
                classifier_resblock_updown=args.classifier_resblock_updown,
                classifier_pool=args.classifier_pool,
                in_channels=read_size(weights, "input_blocks.0.0.weight", 1, default=3),
                num_classes=num_classes,
                id2label=id2label,
            )
        )
    # guided-diffusion's classifiers have the legacy order whatever the denoiser's.
    weights = convert_weights(weights, model, classifier_names(model.config), use_new_attention_order=False)
    model.load_state_dict(weights, assign=True)
    return model


def load_checkpoint(args) -> tuple[ModelMixin | DiffusionPipeline, DDPMScheduler]:
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


def count_bytes(checkpoint: ModelMixin | DiffusionPipeline) -> int:
    networks = [checkpoint] if isinstance(checkpoint, ModelMixin) else list(checkpoint.components.values())
    return sum(parameter.nbytes for n in networks if isinstance(n, ModelMixin) for parameter in n.parameters())


def check_args(args):
    if args.model_path is None and args.classifier_path is None:
        raise ValueError("`--model_path`, `--classifier_path` or both are needed, got neither.")
    if args.class_cond and args.model_path is not None and args.classifier_path is not None:
        raise ValueError(
            "`--class_cond True`: a DiffSCMCounterfactualPipeline takes an unconditional denoiser. Convert the "
            "class-conditional one alone, without `--classifier_path`; it is saved as a model."
        )
    if args.num_head_channels != -1 and args.num_head_channels < 1:
        raise ValueError(
            f"`--num_head_channels` takes a positive number, or -1 for none, got {args.num_head_channels}."
        )
    if args.num_inference_steps is not None and args.num_inference_steps > args.diffusion_steps:
        raise ValueError(
            f"`--num_inference_steps` takes at most the `--diffusion_steps`, {args.diffusion_steps}, got "
            f"{args.num_inference_steps}."
        )
    if Path(args.output_dir).exists():
        raise ValueError(f"`--output_dir` takes a new folder, but {args.output_dir!r} exists.")


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    checkpoint, scheduler = load_checkpoint(args)

    folder = Path(args.output_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = count_bytes(checkpoint) * (1.5 if args.use_fp16 else 1)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"The checkpoint takes {needed / 1e9:.1f} GB, but {str(folder.parent)!r} has {free / 1e9:.1f} GB left. "
            "Make room or give another `--output_dir`",
        )

    unfinished = folder.with_name(UNFINISHED_PREFIX + folder.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        target = unfinished
        if isinstance(checkpoint, UNet2DModel):
            scheduler.save_pretrained(unfinished / "scheduler")
            target = unfinished / "unet"
        checkpoint.save_pretrained(target, max_shard_size=args.max_shard_size)
        checkpoint_class = type(checkpoint)
        if args.use_fp16:
            del checkpoint  # frees its memory before the other precision's is taken
            half = checkpoint_class.from_pretrained(target, dtype=torch.float16)
            half.save_pretrained(target, variant="fp16", max_shard_size=args.max_shard_size)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if target != unfinished:
        print(
            "Saved a class-conditional denoiser alone, as a DiffSCMCounterfactualPipeline takes unconditional ones "
            f"only: load it with `{checkpoint_class.__name__}.from_pretrained({args.output_dir!r}, subfolder='unet')`."
        )
