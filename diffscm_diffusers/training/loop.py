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
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedType,
    DynamoBackend,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    TorchDynamoPlugin,
    gather_object,
    set_seed,
)
from datasets import Dataset, IterableDataset
from diffusers import DDPMScheduler, ModelMixin
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import DecodedImages, ImageCollator
from diffscm_diffusers.data.streaming import StreamLoader

from .averaging import ShardedEMAModel
from .checkpoints import find_checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from .noise import draw_noise, seed_dropout


logger = logging.getLogger(__name__)


def denoising_loss(model, noisy_images, timesteps, noise, labels) -> torch.Tensor:
    """Mean squared error of the predicted noise (paper, Eq. 1; in its epsilon form the weight is 1)."""
    return F.mse_loss(model(noisy_images, timesteps).sample.float(), noise)


def anticausal_loss(model, noisy_images, timesteps, noise, labels) -> torch.Tensor:
    """Cross-entropy of the cause given the noisy effect, `-log p(y | x_t)` (paper, Sec. 3.3)."""
    return F.cross_entropy(model(noisy_images, timesteps).logits.float(), labels)


def create_accelerator(args: Namespace) -> Accelerator:
    """
    Makes the `Accelerator` that the arguments ask for, starts its trackers and seeds every random generator.

    Raises:
        ValueError: if accelerate's configuration asks for DeepSpeed or for the first version of FSDP.
    """
    accelerator = Accelerator(
        # Batches are accumulated across the end of an epoch, so that every optimizer step sees as many images.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=args.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        mixed_precision=args.mixed_precision,
        log_with=None if args.report_to == "none" or args.dry_run else args.report_to,
        project_config=ProjectConfiguration(args.output_dir, str(Path(args.output_dir, args.logging_dir))),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
        # `train` compiles the network, outside of what checkpoints hold.
        dynamo_backend=DynamoBackend.NO,
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED or (
        accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        # They keep half-precision or flattened weights, of which there is no float32 average.
        raise ValueError(
            "accelerate's configuration takes FSDP of version 2 for sharded weights, `fsdp_version: 2`; got version 1 "
            "or DeepSpeed."
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


def check_run(args: Namespace, accelerator: Accelerator, dataset: Dataset | IterableDataset):
    """Raises a `ValueError` if the steps, the batch size and the data do not fit together."""
    if args.lr_scheduler != "constant" and args.lr_warmup_steps > args.max_train_steps:
        raise ValueError(
            f"`--lr_warmup_steps` takes at most `--max_train_steps`, {args.max_train_steps}, got "
            f"{args.lr_warmup_steps}."
        )
    streaming = isinstance(dataset, IterableDataset)
    if streaming and args.cache_images:
        raise ValueError("`--cache_images` takes a data set that is not streamed: leave out one of the two flags.")
    needed = args.train_batch_size * accelerator.num_processes
    available = sum(1 for _ in dataset.take(needed)) if streaming else len(dataset)
    if available < needed:
        raise ValueError(
            f"`--train_batch_size` {args.train_batch_size} on {accelerator.num_processes} process(es) takes {needed} "
            f"images at once, but the data set has {available}."
        )


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
        `ModelMixin`: the model without accelerate's wrappers, with EMA weights if `args.use_ema`. Where it was
        sharded, it is whole on the main process only.

    Raises:
        ValueError: if the steps, the batch size or the checkpoints in `args.output_dir` do not fit together.
        FloatingPointError: if the loss or, without loss scaling, its gradient is not finite.
    """
    check_run(args, accelerator, dataset)
    streaming = isinstance(dataset, IterableDataset)
    if args.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
        # With loss scaling the fused step would skip overflows inside, where accelerate and the schedule can't see it.
        fused=accelerator.scaler is None,
    )
    # Not prepared by accelerate, which would step it once per process: the schedule counts optimizer steps.
    lr_scheduler = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps,
        num_training_steps=args.max_train_steps,
    )
    model_class, config = type(model), model.config
    model, optimizer = accelerator.prepare(model, optimizer)
    ema = None
    if args.use_ema:
        ema = ShardedEMAModel(
            model.parameters(),
            decay=args.ema_max_decay,
            use_ema_warmup=True,
            inv_gamma=args.ema_inv_gamma,
            power=args.ema_power,
            foreach=True,
        )
    compilation = TorchDynamoPlugin()
    if args.torch_compile and compilation.backend == DynamoBackend.NO:
        compilation.backend = DynamoBackend.INDUCTOR
    network = torch.compile(model, **compilation.to_kwargs()) if compilation.backend != DynamoBackend.NO else model

    if streaming:
        loader = StreamLoader(
            accelerator,
            dataset,
            collate,
            args.train_batch_size,
            args.shuffle_buffer_size,
            args.seed,
            args.dataloader_num_workers,
        )
    else:
        loader = DataLoader(
            DecodedImages(dataset, collate) if args.cache_images else dataset,
            batch_size=args.train_batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=args.dataloader_num_workers,
            collate_fn=torch.utils.data.default_convert if args.cache_images else collate,
        )
        loader = accelerator.prepare(loader)

    progress = {"step": 0, "epoch": 0, "batch": 0, "micro_step": 0}
    position = None
    if args.resume_from_checkpoint:
        folder = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
        if folder is None:
            logger.info("No checkpoint in %s yet: starting from the beginning.", args.output_dir)
        else:
            progress = load_checkpoint(accelerator, ema, folder)
            lr_scheduler.load_state_dict(progress.pop("lr_scheduler"))
            if streaming != ("stream" in progress):
                raise ValueError(f"`--streaming` must be as in the run that wrote {str(folder)!r}.")
            if streaming:
                position = loader.take_up(progress.pop("stream"))
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
        if streaming:
            batches, position = loader.load_epoch(progress["epoch"], position), None
        else:
            batches = skip_first_batches(loader, progress["batch"]) if progress["batch"] else loader
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
            is_last = step == args.max_train_steps
            is_validated = step % args.validation_steps == 0 or is_last
            is_kept = step % args.checkpointing_steps == 0 or is_last
            # Between these steps nothing waits for the device.
            if step % args.logging_steps == 0 or is_validated or is_kept:
                logs = {"loss": loss.item(), "lr": lr_scheduler.get_last_lr()[0], "grad_norm": float(grad_norm)}
                # Loss scaling finds its scale by overflows, and skips those steps.
                if not math.isfinite(logs["loss"]) or (
                    accelerator.scaler is None and not math.isfinite(logs["grad_norm"])
                ):
                    raise FloatingPointError(
                        f"At step {step} the loss is {logs['loss']} and its gradient's norm {logs['grad_norm']}: "
                        "try a lower `--learning_rate` or `--max_grad_norm`."
                    )
                bar.set_postfix(logs, refresh=False)
                accelerator.log(logs, step=step)
            if is_validated:
                with averaged_weights():
                    whole = whole_model(accelerator, model, model_class, config)
                    if accelerator.is_main_process:
                        whole.eval()
                        validate(whole, step)
                model.train()
                accelerator.wait_for_everyone()
            if is_kept:
                state = {**progress, "lr_scheduler": lr_scheduler.state_dict()}
                if streaming:
                    state["stream"] = loader.state(gather_object([loader.position]))
                save_checkpoint(accelerator, ema, args.output_dir, state, args.checkpoints_total_limit)
            if is_last:
                break
        else:
            progress["epoch"] += 1
            progress["batch"] = 0
    bar.close()
    if ema is not None:
        ema.copy_to(model.parameters())
    return whole_model(accelerator, model, model_class, config)


def whole_model(accelerator: Accelerator, model: torch.nn.Module, model_class: type[ModelMixin], config) -> ModelMixin:
    """
    Returns the model without accelerate's wrappers: itself or, on the main process where its weights are sharded, a
    copy of them all.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return accelerator.unwrap_model(model)
    weights = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return accelerator.unwrap_model(model)
    whole = model_class.from_config(config)
    whole.load_state_dict(weights)
    return whole.to(accelerator.device)


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
