# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What surrounds the loop of a training script: optimization, data, exact resuming, checkpoints and logs."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedType,
    DynamoBackend,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    TorchDynamoPlugin,
    broadcast_object_list,
    gather_object,
    set_seed,
)
from datasets import IterableDataset
from diffusers import ModelMixin
from diffusers.optimization import get_scheduler
from filelock import FileLock, Timeout
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, default_convert
from tqdm.auto import tqdm

from diffscm_diffusers.data.image_files import NumberedRows
from diffscm_diffusers.data.images import DecodedImages
from diffscm_diffusers.data.streaming import StreamLoader
from diffscm_diffusers.files import LOCK_NAME
from diffscm_diffusers.finite import find_non_finite

from .arguments import TrainingArguments, check_output, check_tracker
from .averaging import ShardedEMAModel
from .checkpoints import find_checkpoint, list_checkpoints, load_training_state, read_progress, save_training_state
from .noise import draw_noise, draw_shared, seed_dropout
from .run_record import describe_run, find_differences, fingerprint_data


logger = logging.getLogger(__name__)

# A step that no run reaches.
NEVER = 2**62


def create_accelerator(training_args: TrainingArguments) -> Accelerator:
    """
    Makes the `Accelerator` of one training run, and seeds every random generator.

    Args:
        training_args ([`TrainingArguments`]): The settings of the run.

    Raises:
        ValueError: as [`check_output`] and [`check_tracker`], and if accelerate's configuration asks for DeepSpeed or
            for the first version of FSDP.
    """
    check_output(training_args)
    check_tracker(training_args.report_to, [tracker.value for tracker in get_available_trackers()])
    accelerator = Accelerator(
        # Batches are accumulated across the end of an epoch, so that every optimizer step sees as many images.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=training_args.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        mixed_precision=training_args.mixed_precision,
        log_with=None if training_args.report_to == "none" else training_args.report_to,
        project_config=ProjectConfiguration(
            training_args.output_dir, str(Path(training_args.output_dir, training_args.logging_dir))
        ),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=training_args.seed),
        # The trainer compiles the network, outside of what checkpoints hold.
        dynamo_backend=DynamoBackend.NO,
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED or (
        accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2
    ):
        # They keep half-precision or flattened weights, of which there is no float32 average.
        raise ValueError(
            "accelerate's configuration for sharded weights expects FSDP of version 2, `fsdp_version: 2`, got version "
            "1 or DeepSpeed."
        )
    logging.basicConfig(
        format="%(asctime)s %(name)s: %(message)s",
        level=logging.INFO if accelerator.is_main_process else logging.ERROR,
    )
    logging.getLogger("accelerate").setLevel(logging.WARNING)
    set_seed(training_args.seed)
    return accelerator


def on_main_process(accelerator: Accelerator, function: Callable):
    """Calls a function on the main process; every process gets what it returns, or raises what it raises."""
    outcome = [None, None]
    if accelerator.is_main_process:
        try:
            outcome = [function(), None]
        except (OSError, ValueError) as error:
            outcome = [None, error]
    result, error = broadcast_object_list(outcome)
    if error is not None:
        raise error
    return result


def check_size(model: ModelMixin):
    """Raises a `ValueError` if a network of blocks cannot halve its images as often as it does."""
    size = getattr(model.config, "sample_size", None)
    blocks = getattr(model, "down_blocks", ())
    num_halvings = sum(getattr(block, "downsamplers", None) is not None for block in blocks)
    if not isinstance(size, int) or num_halvings == 0:
        return
    factor = 2**num_halvings
    # What is put together with an earlier level again has to be of its size.
    if size < factor or (hasattr(model, "up_blocks") and size % factor != 0):
        expected = f"a multiple of {factor}" if hasattr(model, "up_blocks") else f"at least {factor}"
        raise ValueError(
            f"`resolution` expects {expected}, as {type(model).__name__} halves its images {num_halvings} times, got "
            f"{size}."
        )


def check_run(
    training_args: TrainingArguments, num_processes: int, dataset: Dataset | IterableDataset, model: ModelMixin
):
    """Raises a `ValueError` if the steps, the batch size, the data and the network do not fit together."""
    check_size(model)
    is_streamed = isinstance(dataset, IterableDataset)
    if is_streamed and training_args.cache_images:
        raise ValueError("`cache_images` expects a data set that is not streamed, got a streamed one.")
    needed = training_args.train_batch_size * num_processes
    available = sum(1 for _ in dataset.take(needed)) if is_streamed else len(dataset)
    if available < needed:
        raise ValueError(
            f"`train_batch_size` {training_args.train_batch_size} on {num_processes} process(es) expects a data set "
            f"of at least {needed} images, got one of {available}."
        )


class Trainer:
    """
    Trains a network in a loop that the script writes.

    Every source of chance is a function of the seed and the position in the run. So a run that was interrupted
    anywhere and resumed ends with the weights of the uninterrupted one, and processes that share a batch see together
    what one process would.

    Args:
        accelerator (`Accelerator`): From [`create_accelerator`], one for each trainer.
        model (`ModelMixin`): The network to train.
        dataset (`datasets.Dataset`, `datasets.IterableDataset` or `torch.utils.data.Dataset`):
            Rows to train on, or a map-style data set whose `__getitems__` gives whole batches, as [`DecodedImages`].
        training_args ([`TrainingArguments`]): The settings of the run.
        collate (`Callable`, *optional*):
            Makes a batch, a `dict` of tensors, of a list of rows, as [`ImageCollator`]. Not for a data set that gives
            whole batches.
        description (`str`, *optional*, defaults to `"Training"`): What the progress bar says.
        flags (`dict`, *optional*):
            All flags of the script, `vars(args)`, which a resumed run has to share but for those that do not matter.
        rows (`list[int]`, *optional*):
            The rows to train on, such as from [`balance_causes`]; some may be there several times. Default: all, each
            once. Not for a streamed data set.
        others (`tuple`, *optional*):
            Further modules and optimizers, such as an adversary and its own, which the loop steps by itself. They are
            prepared by accelerate and are part of every checkpoint; the average holds the model's weights alone.

    Attributes:
        network (`torch.nn.Module`): What to call in the loop: the model, prepared by accelerate and compiled.
        others (`list`): The further modules and optimizers, prepared by accelerate.
        global_step (`int`): Number of optimizer steps so far, those before an interruption included.
        should_validate (`bool`):
            Whether the step that was just taken is one of those to validate after: every `validation_steps`, and the
            last.

    Raises:
        ValueError: if the steps, the batch size, the data and the checkpoints in `output_dir` do not fit together or,
            where the run is resumed, if it is not the run that wrote the checkpoint; all that differs is named.
        OSError: if another run writes to the output folder.

    Example:
        ```py
        trainer = Trainer(accelerator, unet, dataset, training_args, collate)
        for batch in trainer.batches():
            noise, timesteps = trainer.draw_noise(batch["pixel_values"], noise_scheduler.config.num_train_timesteps)
            noisy_images = noise_scheduler.add_noise(batch["pixel_values"], noise, timesteps)
            with trainer.accumulate():
                with accelerator.autocast():
                    loss = F.mse_loss(trainer.network(noisy_images, timesteps).sample.float(), noise)
                trainer.backward(loss)
                trainer.step()
        with trainer.averaged_model() as unet:
            unet.save_pretrained("unet")
        ```
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: ModelMixin,
        dataset: Dataset | IterableDataset,
        training_args: TrainingArguments,
        collate: Callable[[list[dict]], dict[str, torch.Tensor]] | None = None,
        description: str = "Training",
        flags: dict | None = None,
        rows: list[int] | None = None,
        others: tuple[torch.nn.Module | torch.optim.Optimizer, ...] = (),
    ):
        if rows is not None:
            dataset = dataset.select(rows)
        check_run(training_args, accelerator.num_processes, dataset, model)
        self.accelerator = accelerator
        self.training_args = training_args
        self.description = description
        self.model_class, self.model_config = type(model), model.config
        on_main_process(accelerator, self._lock_folder)
        fingerprint = on_main_process(accelerator, lambda: fingerprint_data(dataset, collate))
        self.record = describe_run(
            training_args, flags or {}, model, fingerprint, accelerator.num_processes, accelerator.mixed_precision
        )

        # 1. The network, its optimizer and its average
        if training_args.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        optimizer = torch.optim.Adam(
            model.parameters(),
            lr=training_args.learning_rate,
            betas=(training_args.adam_beta1, training_args.adam_beta2),
            weight_decay=training_args.adam_weight_decay,
            eps=training_args.adam_epsilon,
            # With loss scaling the fused step would skip overflows inside, where accelerate and the schedule can't see
            # it.
            fused=accelerator.scaler is None,
        )
        # Not prepared by accelerate, which would step it once per process: the schedule counts optimizer steps.
        self.lr_scheduler = get_scheduler(
            training_args.lr_scheduler,
            optimizer,
            num_warmup_steps=training_args.lr_warmup_steps,
            num_training_steps=training_args.max_train_steps,
        )
        self.model, self.optimizer, *self.others = accelerator.prepare(model, optimizer, *others)
        self.ema = None
        if training_args.use_ema:
            self.ema = ShardedEMAModel(
                self.model.parameters(),
                decay=training_args.ema_max_decay,
                use_ema_warmup=True,
                inv_gamma=training_args.ema_inv_gamma,
                power=training_args.ema_power,
                foreach=True,
            )
        compilation = TorchDynamoPlugin()
        if training_args.torch_compile and compilation.backend == DynamoBackend.NO:
            compilation.backend = DynamoBackend.INDUCTOR
        self.network = self.model
        if compilation.backend != DynamoBackend.NO:
            self.network = torch.compile(self.model, **compilation.to_kwargs())

        # 2. The data
        self.is_streamed = isinstance(dataset, IterableDataset)
        if self.is_streamed:
            self.loader = StreamLoader(
                accelerator,
                dataset,
                collate,
                training_args.train_batch_size,
                training_args.shuffle_buffer_size,
                training_args.seed,
                training_args.dataloader_num_workers,
                training_args.skip_broken,
            )
        else:
            if training_args.cache_images:
                dataset, collate = DecodedImages(dataset, collate, numbers=rows), None
            loader = DataLoader(
                dataset if collate is None else NumberedRows(dataset, rows),
                batch_size=training_args.train_batch_size,
                shuffle=True,
                drop_last=True,
                num_workers=training_args.dataloader_num_workers,
                collate_fn=default_convert if collate is None else collate,
            )
            self.loader = accelerator.prepare(loader)

        # 3. Where the run is
        self.global_step = 0  # optimizer steps
        self.micro_step = 0  # batches, some of which are accumulated into one step
        self.epoch = 0
        self.epoch_batches = 0  # batches of this epoch
        self.stream_position = None
        self.should_validate = False
        # Steps since which the loss and its gradient are not finite, on the device.
        self.broken_since = torch.full((2,), NEVER, device=accelerator.device)
        self.loss_is_finite = torch.tensor(True, device=accelerator.device)
        self.num_skipped = 0  # steps in a row that loss scaling skipped
        self._resume()
        self.finite_step = self.global_step  # when all weights were seen to be finite
        on_main_process(accelerator, self._check_space)
        self.model.train()

    def _lock_folder(self):
        # Held until the trainer is gone, or its process. Another trainer of the same process may have the folder too:
        # where a cell of a notebook failed, the trainer of it may still be around.
        path = Path(self.training_args.output_dir, LOCK_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(path, is_singleton=True, thread_local=False)
        try:
            self.lock.acquire(timeout=0)
        except Timeout as error:
            raise OSError(
                f"`output_dir` {str(self.training_args.output_dir)!r} is being written by another run. Wait until it "
                "has ended, or take another folder."
            ) from error

    def _check_space(self):
        """Raises an `OSError` if the disk has no room for the checkpoints that are still to be written."""
        training_args = self.training_args
        weights = sum(p.numel() * p.element_size() for p in self.model.parameters())
        checkpoint = weights * (3 if self.ema is None else 4)  # with Adam's two moments
        interval = training_args.checkpointing_steps
        count = -(-training_args.max_train_steps // interval) - self.global_step // interval
        if training_args.checkpoints_total_limit is not None:
            # The newest is written before the oldest goes.
            there = len(list_checkpoints(training_args.output_dir))
            count = min(count, max(training_args.checkpoints_total_limit - there, 0) + 1)
        free = shutil.disk_usage(training_args.output_dir).free
        if self.global_step < training_args.max_train_steps and free < count * checkpoint + weights:
            # A limit helps where there is none, and more than one checkpoint to come.
            or_limit = ", or set `--checkpoints_total_limit`"
            or_limit = or_limit if training_args.checkpoints_total_limit is None and count > 1 else ""
            raise OSError(
                f"`output_dir` {str(training_args.output_dir)!r} expects room for {count} checkpoint(s) of "
                f"{checkpoint / 2**20:,.1f} MiB and the model, got {free / 2**20:,.1f} MiB. Make "
                f"room{or_limit}."
            )

    def _resume(self):
        training_args = self.training_args
        folder = None
        if training_args.resume_from_checkpoint is not None:
            folder = on_main_process(
                self.accelerator,
                lambda: find_checkpoint(training_args.output_dir, training_args.resume_from_checkpoint),
            )
            if folder is None:
                logger.info("No checkpoint in %s yet: starting from the beginning.", training_args.output_dir)
        if folder is not None:
            progress = read_progress(folder)
            differences = find_differences(progress["run"], self.record)
            if differences:
                raise ValueError(
                    f"`resume_from_checkpoint` expects the run that wrote {str(folder)!r}, got another one: "
                    f"{', '.join(differences)}. Resume with the flags of that run, or start another in another "
                    "`output_dir`."
                )
            load_training_state(self.accelerator, self.ema, folder)
            self.lr_scheduler.load_state_dict(progress["lr_scheduler"])
            if self.is_streamed:
                self.stream_position = self.loader.take_up(progress["stream"])
            self.global_step, self.micro_step = progress["step"], progress["micro_step"]
            self.epoch, self.epoch_batches = progress["epoch"], progress["batch"]
            logger.info("Resuming from %s.", folder)
        if self.global_step > training_args.max_train_steps:
            raise ValueError(
                f"`max_train_steps` expects at least the step of the checkpoint, {self.global_step}, got "
                f"{training_args.max_train_steps}."
            )
        ahead = [step for step in list_checkpoints(training_args.output_dir) if step > self.global_step]
        if ahead:
            raise ValueError(
                f"`output_dir` {str(training_args.output_dir)!r} holds checkpoints of the steps {ahead}, but this run "
                f"starts at step {self.global_step}. Use `--resume_from_checkpoint latest`, remove them, or use "
                "another folder."
            )

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """
        Yields this process' batches until `max_train_steps` are taken, from where an interrupted run stopped, and
        writes checkpoints in between.

        torch's global random generators, from which dropout draws, are seeded anew for each batch.
        """
        training_args, accelerator = self.training_args, self.accelerator
        self.progress_bar = tqdm(
            total=training_args.max_train_steps,
            initial=self.global_step,
            desc=self.description,
            disable=not accelerator.is_local_main_process,
        )
        with self.progress_bar:
            while self.global_step < training_args.max_train_steps:
                for batch in self._load_epoch():
                    seed_dropout(training_args.seed, self.micro_step, accelerator.process_index)
                    yield batch
                    self.epoch_batches += 1
                    self.micro_step += 1
                    if accelerator.sync_gradients and self._should_save():
                        self._save()
                    if self.global_step == training_args.max_train_steps:
                        break
                else:
                    self.epoch += 1
                    self.epoch_batches = 0

    def _load_epoch(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the epoch that have not been seen yet."""
        if self.is_streamed:
            position, self.stream_position = self.stream_position, None
            return self.loader.load_epoch(self.epoch, position)
        loader = skip_first_batches(self.loader, self.epoch_batches) if self.epoch_batches else self.loader
        loader.set_epoch(self.epoch)
        return loader

    def draw_noise(self, sample: torch.Tensor, num_train_timesteps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Draws noise like `sample`, and uniform timesteps in `[0, num_train_timesteps)`, for the batch that
        [`~Trainer.batches`] yielded last; see [`~training.noise.draw_noise`].
        """
        return draw_noise(
            sample,
            num_train_timesteps,
            self.training_args.seed,
            self.micro_step,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )

    def draw(self, sampler: Callable[..., torch.Tensor], shape: tuple[int, ...], stream: int) -> torch.Tensor:
        """
        Draws further random numbers, by `torch.randn` or `torch.rand`, for the batch that [`~Trainer.batches`] yielded
        last. Draws of other streams, and those of [`~Trainer.draw_noise`], are independent; see
        [`~training.noise.draw_shared`].
        """
        return draw_shared(
            sampler,
            shape,
            self.accelerator.device,
            stream,
            self.training_args.seed,
            self.micro_step,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )

    def accumulate(self) -> contextlib.AbstractContextManager:
        """The context of a batch: gradients are accumulated over `gradient_accumulation_steps` of them."""
        modules = [other for other in self.others if isinstance(other, torch.nn.Module)]
        return self.accelerator.accumulate(self.model, *modules)

    def backward(self, loss: torch.Tensor, **terms: torch.Tensor):
        """
        Adds the gradient of a scalar loss to those of the batches that are accumulated with it. Its terms, scalars by
        name, are logged beside it.
        """
        self.accelerator.backward(loss)
        self.loss = loss.detach()
        self.loss_is_finite &= self.loss.isfinite().all()
        self.terms = {name: term.detach() for name, term in terms.items()}

    def step(self):
        """
        Takes an optimizer step if all of its batches are accumulated. The average and the learning rate follow.

        Raises:
            FloatingPointError: if the loss or, without loss scaling, its gradient is not finite, since the step that
                it names. Both are read from the device every `logging_steps`, and before each validation and
                checkpoint. With loss scaling, if 50 steps in a row were skipped.
        """
        training_args, accelerator = self.training_args, self.accelerator
        self.should_validate = False
        if accelerator.sync_gradients:
            self.grad_norm = accelerator.clip_grad_norm_(self.model.parameters(), training_args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not accelerator.sync_gradients:
            return
        self.num_skipped = self.num_skipped + 1 if accelerator.optimizer_step_was_skipped else 0
        if not self.num_skipped:
            self.lr_scheduler.step()
        if self.ema is not None:
            self.ema.step(self.model.parameters())
        self.global_step += 1
        # Loss scaling finds its scale by overflows, and skips those steps.
        has_gradient = accelerator.scaler is not None or torch.as_tensor(self.grad_norm).isfinite()
        is_finite = torch.stack(
            [self.loss_is_finite, torch.as_tensor(has_gradient, device=self.loss_is_finite.device)]
        )
        is_known = is_finite | (self.broken_since < NEVER)
        self.broken_since = torch.where(is_known, self.broken_since, self.global_step)
        self.loss_is_finite = torch.ones_like(self.loss_is_finite)
        self.progress_bar.update()
        is_last = self.global_step == training_args.max_train_steps
        self.should_validate = self.global_step % training_args.validation_steps == 0 or is_last
        # Between these steps nothing waits for the device.
        if self.global_step % training_args.logging_steps == 0 or self.should_validate or self._should_save():
            self._log()

    def _log(self):
        logs = {
            "loss": self.loss.item(),
            **{name: term.item() for name, term in self.terms.items()},
            "lr": self.lr_scheduler.get_last_lr()[0],
            "grad_norm": float(self.grad_norm),
        }
        since = self.accelerator.gather(self.broken_since).view(-1, 2).amin(dim=0).tolist()
        broken = [
            f"{name} since step {step}"
            for name, step in zip(("the loss", "its gradient"), since, strict=True)
            if step < NEVER
        ]
        if self.num_skipped >= 50:
            broken.append(f"the scaled gradient since step {self.global_step - self.num_skipped + 1}")
        if broken:
            self._refuse(
                f"{' and '.join(broken)} not finite (the loss is {logs['loss']}, its gradient's norm "
                f"{logs['grad_norm']})"
            )
        self.progress_bar.set_postfix(logs, refresh=False)
        self.accelerator.log(logs, step=self.global_step)

    def _refuse(self, what: str):
        checkpoints = list(list_checkpoints(self.training_args.output_dir).values())
        kept = f"The last checkpoint is {str(checkpoints[-1])!r}" if checkpoints else "There is no checkpoint yet"
        raise FloatingPointError(
            f"{self.description}: at step {self.global_step}, {what}. {kept}; nothing of this state is saved. Start "
            "anew with a lower `--learning_rate`, in another `--output_dir`."
        )

    def _check_finite(self, tensors: Iterable[tuple[str, torch.Tensor]]):
        """Raises a `FloatingPointError` on all processes if one of them holds a tensor that is not finite."""
        broken = find_non_finite((name, t.to_local() if isinstance(t, DTensor) else t) for name, t in tensors)
        if self.accelerator.num_processes > 1:
            broken = sorted(set(gather_object(broken)))
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            self._refuse(
                f"{', '.join(broken[:3])}{more} not finite, since a step after {self.finite_step}, when all was finite"
            )

    def _should_save(self) -> bool:
        is_last = self.global_step == self.training_args.max_train_steps
        return self.global_step % self.training_args.checkpointing_steps == 0 or is_last

    def _save(self):
        tensors = list(self.model.named_parameters())
        state = self.optimizer.state
        tensors += [
            (f"the optimizer's {key} of {name}", value)
            for name, p in tensors
            for key, value in state.get(p, {}).items()
            if isinstance(value, torch.Tensor)
        ]
        for number, other in enumerate(self.others):
            if isinstance(other, torch.nn.Module):
                tensors += [(f"{name} of module {number}", value) for name, value in other.state_dict().items()]
        if self.ema is not None:
            tensors += [(f"the average {i}", value) for i, value in enumerate(self.ema.shadow_params)]
        self._check_finite([*tensors, *self.model.named_buffers()])
        self.finite_step = self.global_step
        progress = {
            "run": self.record,
            "step": self.global_step,
            "micro_step": self.micro_step,
            "epoch": self.epoch,
            "batch": self.epoch_batches,
            "lr_scheduler": self.lr_scheduler.state_dict(),
        }
        if self.is_streamed:
            progress["stream"] = self.loader.state(gather_object([self.loader.position]))
        save_training_state(
            self.accelerator,
            self.ema,
            self.training_args.output_dir,
            progress,
            self.training_args.checkpoints_total_limit,
        )

    @contextlib.contextmanager
    def averaged_model(self) -> Iterator[ModelMixin]:
        """
        Holds the averaged weights, if there is an average, in the network while the context lasts, and yields it in
        evaluation mode and without accelerate's wrappers. Every process has to enter.

        Raises:
            FloatingPointError: if they are not finite.

        Where the weights are sharded, the main process gets a copy of them all, and the others a network that cannot
        be used.
        """
        parameters = list(self.model.parameters())
        if self.ema is not None:
            self.ema.store(parameters)
            self.ema.copy_to(parameters)
        try:
            model = self.accelerator.unwrap_model(self.model)
            self._check_finite([*model.named_parameters(), *model.named_buffers()])
            if self.accelerator.distributed_type == DistributedType.FSDP:
                weights = self.accelerator.get_state_dict(self.model)
                if self.accelerator.is_main_process:
                    model = self.model_class.from_config(self.model_config)
                    model.load_state_dict(weights)
                    model.to(self.accelerator.device)
            yield model.eval()
        finally:
            if self.ema is not None:
                self.ema.restore(parameters)
        self.model.train()
        self.accelerator.wait_for_everyone()
