# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures training steps per second of `train_scripts/train_diffusion.py` against the loop of diffusers' example
`examples/unconditional_image_generation/train_unconditional.py`, on the same model and data.

    python benchmarks/training_speed.py --dataset_name ylecun/mnist --output_dir outputs/training-speed

The example's loop is stated anew below, step by step as it runs by its defaults with `--use_ema`: float32, PIL
transforms of each sample each time, AdamW, diffusers' moving average tensor by tensor, the loss read and logged every
step.
Its `torchvision` transforms are written in Pillow and NumPy, and its conversion to RGB is one to the model's channels.
Runs of both take turns; each trains `--steps` steps to warm up and is timed over the next `--steps`. `--torch_compile`
and `--mixed_precision` are for our loop alone, as the example has no such default.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset, Features, Image, load_dataset
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import ImageCollator
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import positive_int
from diffscm_diffusers.training.arguments import TrainingArguments
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


def create_model(config: str) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel.from_config(UNet2DModel.load_config(config))


def read_clocks() -> np.ndarray:
    """Returns the time, and the processor time of this process, on which other processes do not weigh."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def time_example(args, dataset: Dataset, folder: str) -> np.ndarray:
    """Returns the seconds of a step of the example's loop, by both clocks."""
    accelerator = Accelerator(log_with="tensorboard", project_dir=folder)
    model = create_model(args.model_config)
    ema = EMAModel(
        model.parameters(),
        decay=0.9999,
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=3 / 4,
        model_cls=UNet2DModel,
        model_config=model.config,
    )
    noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    resolution, mode = model.config.sample_size, "L" if model.config.in_channels == 1 else "RGB"

    def transform(image: PIL.Image.Image) -> torch.Tensor:
        image = image.convert(mode)
        scale = resolution / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], PIL.Image.Resampling.BILINEAR)
        left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
        image = image.crop((left, top, left + resolution, top + resolution))
        pixels = torch.from_numpy(np.array(image)).reshape(resolution, resolution, -1).permute(2, 0, 1)
        return (pixels.contiguous().float().div(255) - 0.5) / 0.5

    rows = dataset.with_transform(lambda rows: {"input": [transform(image) for image in rows["image"]]})
    dataloader = DataLoader(rows, batch_size=args.train_batch_size, shuffle=True)
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=100 * len(dataloader))
    model, optimizer, dataloader, lr_scheduler = accelerator.prepare(model, optimizer, dataloader, lr_scheduler)
    ema.to(accelerator.device)
    accelerator.init_trackers("train_unconditional")

    global_step, start = 0, None
    model.train()
    while True:
        progress_bar = tqdm(total=len(dataloader), disable=not accelerator.is_local_main_process)
        for batch in dataloader:
            if global_step == args.steps:
                start = read_clocks()
            if global_step == 2 * args.steps:
                seconds = read_clocks() - start
                progress_bar.close()
                accelerator.end_training()
                return seconds / args.steps
            clean_images = batch["input"].to(torch.float32)
            noise = torch.randn(clean_images.shape, dtype=torch.float32, device=clean_images.device)
            timesteps = torch.randint(0, 1000, (len(clean_images),), device=clean_images.device).long()
            noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
            with accelerator.accumulate(model):
                output = model(noisy_images, timesteps).sample
                loss = F.mse_loss(output.float(), noise.float())
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                lr_scheduler.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                ema.step(model.parameters())
                progress_bar.update(1)
                global_step += 1
            logs = {
                "loss": loss.detach().item(),
                "lr": lr_scheduler.get_last_lr()[0],
                "step": global_step,
                "ema_decay": ema.cur_decay_value,
            }
            progress_bar.set_postfix(**logs)
            accelerator.log(logs, step=global_step)
        progress_bar.close()


def time_ours(args, dataset: Dataset, folder: str) -> np.ndarray:
    """Returns the seconds of a step of our loop, by both clocks, between its validations, which here do nothing."""
    training_args = TrainingArguments(
        output_dir=folder,
        train_batch_size=args.train_batch_size,
        max_train_steps=2 * args.steps,
        lr_scheduler="cosine",
        lr_warmup_steps=0,
        mixed_precision=args.mixed_precision,
        torch_compile=args.torch_compile,
        use_ema=True,
        cache_images=True,
        validation_steps=args.steps,
    )
    accelerator = create_accelerator(training_args)
    accelerator.init_trackers("diffscm-diffusers")
    model = create_model(args.model_config)
    noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    collate = ImageCollator(model.config.sample_size, model.config.in_channels, "image")
    trainer = Trainer(accelerator, model, dataset, training_args, collate)
    times = []
    for batch in trainer.batches():
        clean_images = batch["pixel_values"]
        noise, timesteps = trainer.draw_noise(clean_images, 1000)
        noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
        with trainer.accumulate():
            with accelerator.autocast():
                loss = F.mse_loss(trainer.network(noisy_images, timesteps).sample.float(), noise)
            trainer.backward(loss)
            trainer.step()
        if trainer.should_validate:
            with trainer.averaged_model():
                times.append(read_clocks())
    accelerator.end_training()
    return (times[-1] - times[0]) / args.steps


def summarise(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name", default="ylecun/mnist", help="Images: a Hub name or a local folder.")
    parser.add_argument("--synthetic", action="store_true", help="Noise instead of a data set.")
    parser.add_argument("--num_images", type=positive_int, default=2000, help="How many images are used.")
    parser.add_argument("--model_config", default="train_scripts/configs/unet_mnist.json")
    parser.add_argument("--train_batch_size", type=positive_int, default=32)
    parser.add_argument(
        "--steps", type=positive_int, default=10, help="Steps timed in each run, after as many others."
    )
    parser.add_argument("--repeats", type=positive_int, default=3, help="Runs of each loop.")
    parser.add_argument("--torch_compile", action="store_true", help="Compile in our loop.")
    parser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"], default="no", help="Of our loop.")
    parser.add_argument("--output_dir", default="outputs/training-speed", type=Path)
    args = parser.parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)

    if args.synthetic:
        size = UNet2DModel.load_config(args.model_config)["sample_size"]
        pixels = np.random.default_rng(0).integers(0, 256, (args.num_images, size, size), dtype=np.uint8)
        images = [PIL.Image.fromarray(image) for image in pixels]
        dataset = Dataset.from_dict({"image": images}, Features({"image": Image()}))
    else:
        dataset = load_dataset(args.dataset_name, split="train").take(args.num_images)
    seconds = {"example": [], "ours": []}
    for _ in range(args.repeats):
        for name, time_loop in (("example", time_example), ("ours", time_ours)):
            with tempfile.TemporaryDirectory() as folder:
                seconds[name].append(time_loop(args, dataset, folder))
            AcceleratorState._reset_state(reset_partial_state=True)
    results = {"settings": {k: str(v) for k, v in vars(args).items()}, "threads": torch.get_num_threads()}
    for i, clock in enumerate(("elapsed", "processor")):
        times = {name: [float(value[i]) for value in values] for name, values in seconds.items()}
        results[clock] = {
            "seconds_per_step": {name: summarise(values) for name, values in times.items()},
            # Of neighbouring runs, so that what else the machine does weighs on both sides.
            "speedup": summarise([a / b for a, b in zip(times["example"], times["ours"], strict=True)]),
        }
    with written_whole(args.output_dir / "results.json") as unfinished:
        unfinished.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
