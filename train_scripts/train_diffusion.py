# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the denoiser, the diffusion model of the images (paper, Eq. 1). The causes play no part in it.

    accelerate launch train_scripts/train_diffusion.py \
        --dataset_name ylecun/mnist \
        --model_config_name_or_path train_scripts/configs/unet_mnist.json \
        --train_batch_size 128 --max_train_steps 20000 --learning_rate 5e-4 --lr_scheduler cosine \
        --use_ema --output_dir outputs/mnist-denoiser

The output folder is a `DDPMPipeline` that diffusers loads by itself.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import make_image_grid

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.files import save_whole
from diffscm_diffusers.flags import positive_int
from diffscm_diffusers.hub.cards import make_component_card, save_card
from diffscm_diffusers.hub.publishing import create_repository, upload_folder
from diffscm_diffusers.training.arguments import TrainingArguments, add_training_arguments
from diffscm_diffusers.training.components import create_model, record_training
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


DESCRIPTION = """
An unconditional diffusion model of the images, which serves as the denoiser of a diffusion causal model (Diff-SCM,
[Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166)). Alone it draws images:

```python
from diffusers import DDPMPipeline

image = DDPMPipeline.from_pretrained("{name}")().images[0]
```

Together with an anti-causal predictor (`diffscm join-checkpoint`) it estimates counterfactuals.
""".strip()


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser, labels=False)
    parser.add_argument("--validation_grid_size", type=positive_int, default=4, help="Rows and columns of samples.")
    parser.add_argument("--validation_inference_steps", type=positive_int, default=50, help="DDIM steps of a sample.")
    return parser.parse_args(argv)


def log_samples(accelerator: Accelerator, pipeline: DDIMPipeline, args, step: int):
    """Draws a square grid of samples, always from the same noise, and hands it to the trackers."""
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        batch_size=args.validation_grid_size**2,
        generator=torch.Generator().manual_seed(args.seed),
        num_inference_steps=args.validation_inference_steps,
    ).images
    grid = make_image_grid(images, args.validation_grid_size, args.validation_grid_size)
    folder = Path(args.output_dir, "samples")
    folder.mkdir(parents=True, exist_ok=True)
    grid.save(folder / f"{step:07d}.png")
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({"samples": np.asarray(grid.convert("RGB"))[None]}, step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({"samples": [grid]}, step)


def main(argv=None):
    args = parse_args(argv)
    training_args = TrainingArguments.from_flags(vars(args))
    accelerator = create_accelerator(training_args)
    # Before the run, so that a missing login shows early.
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    # 1. Data, network and noise schedule
    dataset = load_image_dataset(
        args.dataset_name,
        args.train_data_dir,
        dataset_config_name=args.dataset_config_name,
        split=args.train_split,
        image_column=args.image_column,
        cache_dir=args.cache_dir,
        streaming=args.streaming,
        skip_broken=args.skip_broken,
    )[args.train_split]
    unet = create_model(
        UNet2DModel,
        model_config_name_or_path=args.model_config_name_or_path,
        pretrained_model_name_or_path=args.pretrained_model_name_or_path,
        subfolder=args.subfolder,
        resolution=args.resolution,
        cache_dir=args.cache_dir,
    )
    if unet.config.out_channels != unet.config.in_channels:
        raise ValueError(
            "The denoiser is expected to predict the noise alone, in as many channels as the image has, "
            f"{unet.config.in_channels}, got a model with {unet.config.out_channels} output channels."
        )
    noise_scheduler = DDPMScheduler(num_train_timesteps=args.num_train_timesteps, beta_schedule=args.beta_schedule)
    record_training(unet, noise_scheduler, noise_scheduler.config.prediction_type)
    collate = ImageCollator(unet.config.sample_size, unet.config.in_channels, args.image_column)
    if args.dry_run:
        print_dry_run(vars(args), accelerator, unet, dataset, training_args, collate)
        return

    # 2. Training
    accelerator.init_trackers("diffscm-diffusers", config={k: v for k, v in vars(args).items() if v is not None})
    trainer = Trainer(accelerator, unet, dataset, training_args, collate, flags=vars(args))
    for batch in trainer.batches():
        clean_images = batch["pixel_values"]
        noise, timesteps = trainer.draw_noise(clean_images, args.num_train_timesteps)
        noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
        with trainer.accumulate():
            with accelerator.autocast():
                # The paper's Eq. 1; in its epsilon form the weight is 1.
                predicted_noise = trainer.network(noisy_images, timesteps).sample
                loss = F.mse_loss(predicted_noise.float(), noise)
            trainer.backward(loss)
            trainer.step()

        if trainer.should_validate:
            with trainer.averaged_model() as unet:
                if accelerator.is_main_process:
                    pipeline = DDIMPipeline(unet, DDIMScheduler.from_config(noise_scheduler.config))
                    log_samples(accelerator, pipeline, args, trainer.global_step)

    # 3. The pipeline, its card, and the Hub
    with trainer.averaged_model() as unet:
        if accelerator.is_main_process:
            save_whole(DDPMPipeline(unet, noise_scheduler), args.output_dir)
    if accelerator.is_main_process:
        name = args.hub_model_id or args.output_dir
        card = make_component_card(
            name,
            DESCRIPTION.format(name=name),
            script=Path(__file__).name,
            argv=sys.argv[1:] if argv is None else argv,
            num_processes=accelerator.num_processes,
            num_steps=args.max_train_steps,
            split=args.train_split,
            dataset_name=args.dataset_name,
            train_data_dir=args.train_data_dir,
        )
        save_card(card, args.output_dir)
        if args.push_to_hub:
            upload_folder(
                args.output_dir,
                args.hub_model_id,
                "Publish the trained model",
                ignore_patterns=["checkpoint-*", f"{args.logging_dir}/*"],
            )
    accelerator.end_training()


if __name__ == "__main__":
    main()
