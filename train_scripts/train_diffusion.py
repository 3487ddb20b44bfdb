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
from pathlib import Path

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import make_image_grid

from diffscm_diffusers.training.arguments import add_training_arguments, positive_int
from diffscm_diffusers.training.components import create_model, save_whole
from diffscm_diffusers.training.data import load_image_dataset
from diffscm_diffusers.training.loop import create_accelerator, denoising_loss, train


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser)
    parser.add_argument("--validation_grid_size", type=positive_int, default=4, help="Rows and columns of samples.")
    parser.add_argument("--validation_inference_steps", type=positive_int, default=50, help="DDIM steps of a sample.")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    accelerator = create_accelerator(args)
    dataset = load_image_dataset(args)[args.train_split]
    unet = create_model(UNet2DModel, args)
    noise_scheduler = DDPMScheduler(num_train_timesteps=args.num_train_timesteps, beta_schedule=args.beta_schedule)

    def draw_samples(unet, step):
        pipeline = DDIMPipeline(unet, DDIMScheduler.from_config(noise_scheduler.config))
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(
            batch_size=args.validation_grid_size**2,
            generator=torch.Generator().manual_seed(args.seed),
            num_inference_steps=args.validation_inference_steps,
        ).images
        folder = Path(args.output_dir, "samples")
        folder.mkdir(parents=True, exist_ok=True)
        make_image_grid(images, args.validation_grid_size, args.validation_grid_size).save(folder / f"{step:07d}.png")

    unet = train(args, accelerator, unet, dataset, noise_scheduler, denoising_loss, draw_samples)
    if accelerator.is_main_process:
        save_whole(DDPMPipeline(unet, noise_scheduler), args.output_dir)
    accelerator.end_training()


if __name__ == "__main__":
    main()
