# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the anti-causal predictor: a classifier of the cause given the noisy effect, at every noise level (paper, Sec.
3.3).

    accelerate launch train_scripts/train_classifier.py \
        --dataset_name ylecun/mnist \
        --model_config_name_or_path train_scripts/configs/classifier_mnist.json \
        --train_batch_size 128 --max_train_steps 3000 --learning_rate 5e-4 \
        --use_ema --output_dir outputs/mnist-classifier

The output folder is an `AntiCausalClassifier2DModel`. Use the diffusion flags of the denoiser that it will guide.
"""

import argparse
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.hub.publishing import create_repository, publish, write_model_card
from diffscm_diffusers.models import AntiCausalClassifier2DModel
from diffscm_diffusers.training.arguments import add_training_arguments, positive_int
from diffscm_diffusers.training.components import create_model, save_whole
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.loop import anticausal_loss, check_run, create_accelerator, train
from diffscm_diffusers.training.noise import draw_noise


DESCRIPTION = """
An anti-causal predictor, `p(class | noisy image)` at every noise level: the classifier that steers a diffusion causal
model (Diff-SCM, [Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166)) under an intervention.

```python
from diffscm_diffusers import AntiCausalClassifier2DModel

classifier = AntiCausalClassifier2DModel.from_pretrained("{name}")
```

Together with a denoiser (`diffscm join-checkpoint`) it estimates counterfactuals.
""".strip()


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser)
    parser.add_argument("--from_unet", help="Denoiser, a `DDPMPipeline`, whose encoder the classifier starts from.")
    parser.add_argument("--label_column", default="label", help="Column with the class labels, the cause.")
    parser.add_argument("--validation_split", default="test", help="Split on which accuracy is measured.")
    parser.add_argument("--num_validation_images", type=positive_int, default=1000, help="How many of its images.")
    parser.add_argument("--num_noise_levels", type=positive_int, default=10, help="Bands of diffusion time to report.")
    return parser.parse_args(argv)


def create_classifier(args, names: list[str]) -> AntiCausalClassifier2DModel:
    """Makes a classifier of the named classes; its encoder is a denoiser's if the arguments name one."""
    id2label = {str(i): name for i, name in enumerate(names)}
    if args.from_unet is None:
        return create_model(AntiCausalClassifier2DModel, args, num_classes=len(names), id2label=id2label)
    if args.pretrained_model_name_or_path is not None or args.model_config_name_or_path is not None:
        raise ValueError(
            "`--from_unet` is the whole source of the model: leave out `--pretrained_model_name_or_path` and "
            "`--model_config_name_or_path`."
        )
    unet = DDPMPipeline.from_pretrained(args.from_unet, cache_dir=args.cache_dir, use_safetensors=True).unet
    if args.resolution not in (unet.config.sample_size, None):
        raise ValueError(
            f"`--resolution` is the denoiser's, {unet.config.sample_size}, with `--from_unet`; got {args.resolution}."
        )
    args.resolution = unet.config.sample_size
    return AntiCausalClassifier2DModel.from_unet(unet, len(names), id2label)


@torch.no_grad()
def accuracy_by_noise_level(model, batches, noise_scheduler, num_noise_levels: int, seed: int) -> dict[str, float]:
    """Measures accuracy on images noised to the middle of each of `num_noise_levels` equal bands of diffusion time."""
    num_train_timesteps = noise_scheduler.config.num_train_timesteps
    accuracy = {}
    for level in range(num_noise_levels):
        timestep = (2 * level + 1) * num_train_timesteps // (2 * num_noise_levels)
        correct = []
        for step, batch in enumerate(batches):
            images, labels = batch["pixel_values"].to(model.device), batch["labels"].to(model.device)
            noise, timesteps = draw_noise(images, num_train_timesteps, seed, step)
            timesteps = torch.full_like(timesteps, timestep)
            logits = model(noise_scheduler.add_noise(images, noise, timesteps), timesteps).logits
            correct.append(logits.argmax(dim=1) == labels)
        accuracy[f"accuracy/t={timestep}"] = torch.cat(correct).float().mean().item()
    return accuracy


def main(argv=None):
    args = parse_args(argv)
    accelerator = create_accelerator(args)
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        create_repository(args)
    splits = load_image_dataset(args, args.label_column)
    if args.validation_split not in splits:
        raise ValueError(
            f"`--validation_split` names {args.validation_split!r}, but the data set has {sorted(splits)}."
        )
    names = splits[args.train_split].features[args.label_column].names
    model = create_classifier(args, names)
    noise_scheduler = DDPMScheduler(num_train_timesteps=args.num_train_timesteps, beta_schedule=args.beta_schedule)

    collate = ImageCollator(args.resolution, model.config.in_channels, args.image_column, args.label_column)
    if args.dry_run:
        check_run(args, accelerator, splits[args.train_split])
        print_dry_run(args, accelerator, model, splits[args.train_split], collate)
        return
    # Shuffled because image folders are sorted by class.
    rows = list(splits[args.validation_split].shuffle(seed=args.seed).take(args.num_validation_images))
    batches = [collate(rows[i : i + args.train_batch_size]) for i in range(0, len(rows), args.train_batch_size)]

    def log_accuracy(model, step):
        accuracy = accuracy_by_noise_level(model, batches, noise_scheduler, args.num_noise_levels, args.seed)
        accelerator.log(accuracy, step=step)
        summary = ", ".join(f"{name.split('/')[1]}: {value:.3f}" for name, value in accuracy.items())
        tqdm.write(f"Step {step}, validation accuracy at {summary}")

    model = train(
        args,
        accelerator,
        model,
        splits[args.train_split],
        collate,
        noise_scheduler,
        anticausal_loss,
        log_accuracy,
    )
    if accelerator.is_main_process:
        save_whole(model, args.output_dir)
        description = DESCRIPTION.format(name=args.hub_model_id or args.output_dir)
        write_model_card(args, Path(__file__).name, argv, accelerator.num_processes, description)
        if args.push_to_hub:
            publish(args)
    accelerator.end_training()


if __name__ == "__main__":
    main()
