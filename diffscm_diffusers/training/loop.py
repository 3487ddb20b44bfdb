# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The training loop of the denoiser and of the anti-causal predictor."""

import contextlib
import logging
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin, ProjectConfiguration, set_seed
from datasets import Dataset, IterableDataset
from diffusers import DDPMScheduler, ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from .checkpoints import find_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from .data import ImageCollator
from .noise import draw_noise, seed_dropout


logger = logging.getLogger(__name__)


def denoising_loss(model, noisy_images, timesteps, noise, labels) -> torch.Tensor:
    """Mean squared error of the predicted noise (paper, Eq. 1; in its epsilon form the weight is 1)."""
    return F.mse_loss(model(noisy_images, timesteps).sample.float(), noise)


def anticausal_loss(model, noisy_images, timesteps, noise, labels) -> torch.Tensor:
    """Cross-entropy of the cause given the noisy effect, `-log p(y | x_t)` (paper, Sec. 3.3)."""
    return F.cross_entropy(model(noisy_images, timesteps).logits.float(), labels)


def create_accelerator(args: Namespace) -> Accelerator:
    """Makes the `Accelerator` that the arguments ask for, starts its trackers and seeds every random generator."""
    accelerator = Accelerator(
        # Batches are accumulated across the end of an epoch, so that every optimizer step sees as many images.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=args.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        mixed_precision=args.mixed_precision,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(args.output_dir, str(Path(args.output_dir, args.logging_dir))),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
    )
    logging.basicConfig(
        format="%(asctime)s %(name)s: %(message)s",
        level=logging.INFO if accelerator.is_main_process else logging.ERROR,
    )
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    accelerator.init_trackers(
        "diffscm-diffusers", config={name: value for name, value in vars(args).items() if value is not None}
    )
    set_seed(args.seed)
    return accelerator


def train(
    args: Namespace,
    accelerator: Accelerator,
    model: ModelMixin,
    dataset: Dataset | IterableDataset,
    collate: ImageCollator,
    noise_scheduler: DDPMScheduler,
    loss_fn: Callable,
    validate: Callable[[ModelMixin, int], None],
) -> ModelMixin:
    """
    Trains a time-conditioned network on noisy images, and returns it with its averaged weights.

    Every source of chance is a function of the seed and the position in the run, so a run that was interrupted
    anywhere and resumed ends with the weights of the uninterrupted one, and processes that share a batch see
    together what one process would.

    Args:
        args (`argparse.Namespace`): See [`add_training_arguments`].
        accelerator (`Accelerator`): From [`create_accelerator`].
        model (`ModelMixin`): Called as `model(noisy_images, timesteps)`.
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): The rows to train on.
        collate (`ImageCollator`): Makes batches of the rows.
        noise_scheduler (`DDPMScheduler`): Adds the noise.
        loss_fn (`Callable`): `loss_fn(model, noisy_images, timesteps, noise, labels)` gives a scalar.
        validate (`Callable`):
            `validate(model, step)` is called on the main process every `args.validation_steps` steps, with the
            averaged weights and in evaluation mode, and logs what it finds.

    Returns:
        `ModelMixin`: the model without accelerate's wrappers, with EMA weights if `args.use_ema`.

    Raises:
        ValueError: if the steps, the batch size or the checkpoints in `args.output_dir` do not fit together.
        FloatingPointError: if the loss or, without loss scaling, its gradient is not finite.
    """
    if args.lr_scheduler != "constant" and args.lr_warmup_steps > args.max_train_steps:
        raise ValueError(
            f"`--lr_warmup_steps` takes at most `--max_train_steps`, {args.max_train_steps}, got "
            f"{args.lr_warmup_steps}."
        )
    streaming = isinstance(dataset, IterableDataset)
    needed = args.train_batch_size * accelerator.num_processes
    available = sum(1 for _ in dataset.take(needed)) if streaming else len(dataset)
    if available < needed:
        raise ValueError(
            f"`--train_batch_size` {args.train_batch_size} on {accelerator.num_processes} process(es) takes {needed} "
            f"images at once, but the data set has {available}."
        )
    if streaming:
        dataset = dataset.shuffle(seed=args.seed, buffer_size=args.shuffle_buffer_size)
    dataloader = DataLoader(
        dataset,
        batch_size=args.train_batch_size,
        shuffle=not streaming,
        drop_last=True,
        num_workers=args.dataloader_num_workers,
        collate_fn=collate,
    )
    if args.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    ema = None
    if args.use_ema:
        ema = EMAModel(
            model.parameters(),
            decay=args.ema_max_decay,
            use_ema_warmup=True,
            inv_gamma=args.ema_inv_gamma,
            power=args.ema_power,
            foreach=True,
        )
        ema.to(accelerator.device)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    # Not prepared by accelerate, which would step it once per process: the schedule counts optimizer steps.
    lr_scheduler = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps,
        num_training_steps=args.max_train_steps,
    )
    model, optimizer, dataloader = accelerator.prepare(model, optimizer, dataloader)
    network = torch.compile(model) if args.torch_compile else model

    progress = {"step": 0, "epoch": 0, "batch": 0, "micro_step": 0}
    if args.resume_from_checkpoint:
        folder = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
        if folder is None:
            logger.info("No checkpoint in %s yet: starting from the beginning.", args.output_dir)
        else:
            progress = load_checkpoint(accelerator, ema, folder)
            lr_scheduler.load_state_dict(progress.pop("lr_scheduler"))
            logger.info("Resuming from %s.", folder)
    if progress["step"] > args.max_train_steps:
        raise ValueError(
            f"`--max_train_steps` {args.max_train_steps} is less than the step of the checkpoint, {progress['step']}."
        )
    ahead = [step for step in list_checkpoints(args.output_dir) if step > progress["step"]]
    if ahead:
        raise ValueError(
            f"`--output_dir` {args.output_dir!r} holds checkpoints of the steps {ahead}, but this run starts at step "
            f"{progress['step']}. Use `--resume_from_checkpoint latest`, remove them, or take another folder."
        )

    def averaged_weights():
        return swapped_weights(ema, model.parameters()) if ema is not None else contextlib.nullcontext()

    bar = tqdm(
        total=args.max_train_steps,
        initial=progress["step"],
        desc="Training",
        disable=not accelerator.is_local_main_process,
    )
    model.train()
    while progress["step"] < args.max_train_steps:
        batches = skip_first_batches(dataloader, progress["batch"]) if progress["batch"] else dataloader
        batches.set_epoch(progress["epoch"])
        for batch in batches:
            images, labels = batch["pixel_values"], batch.get("labels")
            noise, timesteps = draw_noise(
                images,
                noise_scheduler.config.num_train_timesteps,
                args.seed,
                progress["micro_step"],
                accelerator.process_index,
                accelerator.num_processes,
            )
            noisy_images = noise_scheduler.add_noise(images, noise, timesteps)
            seed_dropout(args.seed, progress["micro_step"], accelerator.process_index)
            with accelerator.accumulate(model):
                with accelerator.autocast():
                    loss = loss_fn(network, noisy_images, timesteps, noise, labels)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            progress["batch"] += 1
            progress["micro_step"] += 1
            if not accelerator.sync_gradients:
                continue

            if not accelerator.optimizer_step_was_skipped:
                lr_scheduler.step()
            if ema is not None:
                ema.step(model.parameters())
            progress["step"] += 1
            step = progress["step"]
            bar.update()
            logs = {"loss": loss.item(), "lr": lr_scheduler.get_last_lr()[0], "grad_norm": float(grad_norm)}
            # Loss scaling finds its scale by overflows, and skips those steps.
            if not math.isfinite(logs["loss"]) or (accelerator.scaler is None and not math.isfinite(grad_norm)):
                raise FloatingPointError(
                    f"At step {step} the loss is {logs['loss']} and its gradient's norm {logs['grad_norm']}: "
                    "try a lower `--learning_rate` or `--max_grad_norm`."
                )
            bar.set_postfix(logs)
            accelerator.log(logs, step=step)
            if step % args.validation_steps == 0 or step == args.max_train_steps:
                if accelerator.is_main_process:
                    model.eval()
                    with averaged_weights():
                        validate(accelerator.unwrap_model(model), step)
                    model.train()
                accelerator.wait_for_everyone()
            if step % args.checkpointing_steps == 0 or step == args.max_train_steps:
                position = {**progress, "lr_scheduler": lr_scheduler.state_dict()}
                save_checkpoint(accelerator, ema, args.output_dir, position, args.checkpoints_total_limit)
            if step == args.max_train_steps:
                break
        else:
            progress["epoch"] += 1
            progress["batch"] = 0
    bar.close()
    if ema is not None:
        ema.copy_to(model.parameters())
    return accelerator.unwrap_model(model)


@contextlib.contextmanager
def swapped_weights(ema: EMAModel, parameters):
    """Holds the averaged weights in the model while the context lasts."""
    parameters = list(parameters)
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)
