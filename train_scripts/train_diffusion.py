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

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import make_image_grid

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.hub.publishing import create_repository, publish, write_model_card
from diffscm_diffusers.training.arguments import add_training_arguments, positive_int
from diffscm_diffusers.training.components import create_model, save_whole
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.loop import check_run, create_accelerator, denoising_loss, train


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
    add_training_arguments(parser)
    parser.add_argument("--validation_grid_size", type=positive_int, default=4, help="Rows and columns of samples.")
    parser.add_argument("--validation_inference_steps", type=positive_int, default=50, help="DDIM steps of a sample.")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    accelerator = create_accelerator(args)
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        create_repository(args)
    dataset = load_image_dataset(args)[args.train_split]
    unet = create_model(UNet2DModel, args)
    if unet.config.out_channels != unet.config.in_channels:
        raise ValueError(
            "The denoiser predicts the noise alone, as many channels as the image has: the model takes "
            f"{unet.config.in_channels} and gives {unet.config.out_channels}."
        )
    noise_scheduler = DDPMScheduler(num_train_timesteps=args.num_train_timesteps, beta_schedule=args.beta_schedule)
    collate = ImageCollator(args.resolution, unet.config.in_channels, args.image_column)
    if args.dry_run:
        check_run(args, accelerator, dataset)
        print_dry_run(args, accelerator, unet, dataset, collate)
        return

    def draw_samples(unet, step):
        pipeline = DDIMPipeline(unet, DDIMScheduler.from_config(noise_scheduler.config))
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

    unet = train(args, accelerator, unet, dataset, collate, noise_scheduler, denoising_loss, draw_samples)
    if accelerator.is_main_process:
        save_whole(DDPMPipeline(unet, noise_scheduler), args.output_dir)
        description = DESCRIPTION.format(name=args.hub_model_id or args.output_dir)
        write_model_card(args, Path(__file__).name, argv, accelerator.num_processes, description)
        if args.push_to_hub:
            publish(args)
    accelerator.end_training()


if __name__ == "__main__":
    main()
