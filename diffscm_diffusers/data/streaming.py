# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Batches of a streamed data set in a shuffled order that is a function of the seed, and can be taken up anywhere."""

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Image, IterableDataset
from datasets.exceptions import DatasetsError
from torch.utils.data import DataLoader, Sampler

from .data_files import explain
from .image_files import BrokenImageError, NumberedRow, read_image
from .images import ImageCollator


logger = logging.getLogger(__name__)

# Where an epoch starts: at the first shard, before the first of its rows, with no rows of a block handed out.
START = {"shard": 0, "source": None, "row": 0, "block": 0, "offset": 0}


class ShuffledStream(Sampler):
    """
    Yields this process' batches of one epoch, as lists of undecoded rows, each with the position that follows it.

    The order of the shards (files) is drawn anew each epoch. Their rows are read into blocks of `buffer_size`, across
    the shards' ends, and each block is permuted: a function of the seed, the epoch and the block's number. A position
    names the row where the block starts and how many of the block's rows have been handed out, so that taking it up
    reads that block again and nothing before it but what the file format cannot skip.

    Where the number of shards is a multiple of the number of processes, each process reads its own share of them.
    Otherwise every process reads all rows and keeps its slice of each global batch. Rows that do not fill a batch are
    dropped at the end of an epoch.

    Args:
        dataset (`datasets.IterableDataset`): The rows.
        batch_size (`int`): Rows of a batch of one process.
        buffer_size (`int`): Rows of a block, held undecoded in memory.
        seed (`int`): The run's seed.
        process_index (`int`, *optional*, defaults to 0): Which process this is.
        num_processes (`int`, *optional*, defaults to 1): Number of processes.
        skip_broken (`str`, *optional*):
            A column of images: rows in which one cannot be used are left out, with a warning that counts them.
            Default: none are.

    Attributes:
        epoch (`int`): The epoch that the next iteration reads.
        position (`dict`): JSON-serialisable; where in the epoch the next iteration starts.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        batch_size: int,
        buffer_size: int,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
        skip_broken: str | None = None,
    ):
        self.dataset = dataset
        self.skip_broken = skip_broken
        self.left_out = set()
        self.batch_size = batch_size
        self.buffer_size = buffer_size
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.reads_own_shards = dataset.num_shards % num_processes == 0
        self.epoch = 0
        self.position = START

    def read_rows_of_shard(self, shard: Iterable[dict], index: int, first: int) -> Iterator[tuple[int, NumberedRow]]:
        """Yields the rows of a shard, the first of which has the number `first`, with their numbers."""
        number, rows = first - 1, iter(shard)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except (DatasetsError, OSError, ValueError) as error:
                raise ValueError(
                    f"Row {number + 1} of the data set's file {index} cannot be read: {explain(error)}"
                ) from error
            number += 1
            row = NumberedRow(row, f"row {number} of the data set's file {index}")
            try:
                if self.skip_broken is not None:
                    read_image(row, self.skip_broken, "RGB")
            except BrokenImageError as error:
                if error.problem not in self.left_out:
                    self.left_out.add(error.problem)
                    logger.warning("Left out an image, %d so far: one %s", len(self.left_out), error.problem)
                continue
            yield number, row

    def read_blocks(self) -> Iterator[tuple[dict, list[dict]]]:
        """Yields each block's rows in the order of the files, after the position at which the block starts."""
        num_shards = self.dataset.num_shards
        order = np.random.default_rng((self.seed, self.epoch)).permutation(num_shards)
        if self.reads_own_shards:
            order = order[self.process_index :: self.num_processes]
        position, rows = {**self.position, "offset": 0}, None
        while position["shard"] < len(order):
            start, block = position, []
            while len(block) < self.buffer_size and position["shard"] < len(order):
                if rows is None:
                    index = int(order[position["shard"]])
                    shard = self.dataset.shard(num_shards, index)
                    if position["source"] is not None:
                        shard.load_state_dict(position["source"])
                    rows = self.read_rows_of_shard(shard, index, position["row"])
                block += islice(rows, self.buffer_size - len(block))
                if len(block) < self.buffer_size:
                    rows, position = None, {**position, "shard": position["shard"] + 1, "source": None, "row": 0}
                else:
                    position = {**position, "source": shard.state_dict(), "row": block[-1][0] + 1}
            position = {**position, "block": start["block"] + 1}
            if block:
                yield start, [row for _, row in block]

    def read_rows(self) -> Iterator[tuple[dict, dict]]:
        """Yields each row of the epoch, in the shuffled order, after the position that follows it."""
        handed_out = self.position["offset"]
        reader = self.process_index if self.reads_own_shards else 0
        for start, block in self.read_blocks():
            order = np.random.default_rng((self.seed, self.epoch, reader, start["block"])).permutation(len(block))
            for offset in range(handed_out, len(block)):
                yield {**start, "offset": offset + 1}, block[order[offset]]
            handed_out = 0

    def __iter__(self) -> Iterator[tuple[list[dict], dict]]:
        share = 1 if self.reads_own_shards else self.num_processes
        first = 0 if self.reads_own_shards else self.process_index * self.batch_size
        rows = self.read_rows()
        while len(batch := list(islice(rows, self.batch_size * share))) == self.batch_size * share:
            yield [row for _, row in batch[first : first + self.batch_size]], batch[-1][0]


class RowDecoder(torch.utils.data.Dataset):
    """Makes tensors of the rows that a [`ShuffledStream`] yields; a `DataLoader` runs it in its worker processes."""

    def __init__(self, collate: ImageCollator):
        self.collate = collate

    def __getitem__(self, batch: tuple[list[dict], dict]) -> tuple[dict[str, torch.Tensor], dict]:
        rows, position = batch
        return self.collate(rows), position


class StreamLoader:
    """
    Loads the batches of a streamed data set on the accelerator's device, the same number on every process.

    Args:
        accelerator (`Accelerator`): Knows the device and the processes.
        dataset (`datasets.IterableDataset`): The rows.
        collate (`ImageCollator`): Makes batches of decoded rows.
        batch_size (`int`): Rows of a batch of one process.
        buffer_size (`int`): Rows shuffled at once.
        seed (`int`): The run's seed.
        num_workers (`int`): Processes that decode; reading stays in this one.
        skip_broken (`bool`, *optional*, defaults to `False`):
            Whether to leave out rows whose images cannot be used. Reading decodes every image then, too.

    Attributes:
        position (`dict`): JSON-serialisable; what follows the batch that was yielded last.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        dataset: IterableDataset,
        collate: ImageCollator,
        batch_size: int,
        buffer_size: int,
        seed: int,
        num_workers: int,
        skip_broken: bool = False,
    ):
        self.accelerator = accelerator
        self.position = START
        undecoded = dataset.cast_column(collate.image_column, Image(decode=False))
        self.stream = ShuffledStream(
            undecoded,
            batch_size,
            buffer_size,
            seed,
            accelerator.process_index,
            accelerator.num_processes,
            skip_broken=collate.image_column if skip_broken else None,
        )
        self.dataloader = DataLoader(
            RowDecoder(collate),
            sampler=self.stream,
            batch_size=None,
            num_workers=num_workers,
            pin_memory=accelerator.device.type == "cuda",
        )

    def state(self, positions: list[dict]) -> dict:
        """Returns what a checkpoint keeps of the stream, JSON-serialisable, given every process' position."""
        return {"buffer_size": self.stream.buffer_size, "positions": positions}

    def take_up(self, state: dict) -> dict:
        """
        Returns this process' position in a checkpoint's [`~StreamLoader.state`].

        Raises:
            ValueError: if the checkpoint is of another number of processes or size of blocks.
        """
        if len(state["positions"]) != self.accelerator.num_processes:
            raise ValueError(
                f"A streaming run expects as many processes as wrote its checkpoint, {len(state['positions'])}, got "
                f"{self.accelerator.num_processes}."
            )
        if state["buffer_size"] != self.stream.buffer_size:
            raise ValueError(
                f"`shuffle_buffer_size` expects that of the run that wrote the checkpoint, {state['buffer_size']}, "
                f"got {self.stream.buffer_size}."
            )
        self.position = state["positions"][self.accelerator.process_index]
        return self.position

    def load_epoch(self, epoch: int, position: dict | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """
        Yields the batches of an epoch, or of what is left of it after `position`. It ends when one process has no
        more rows for a batch; the rows that others have left come again in the next epoch's order.

        Raises:
            ValueError: if a process has not even one batch in the whole epoch.
        """
        self.stream.epoch, self.stream.position = epoch, position or START
        batches = iter(self.dataloader)
        is_empty = position is None
        while True:
            batch, next_position = next(batches, (None, None))
            if self.accelerator.num_processes > 1 and self.stream.reads_own_shards:
                has_batch = torch.tensor(float(batch is not None), device=self.accelerator.device)
                if self.accelerator.reduce(has_batch, "sum") < self.accelerator.num_processes:
                    break
            elif batch is None:
                break
            self.position, is_empty = next_position, False
            yield send_to_device(batch, self.accelerator.device, non_blocking=True)
        if is_empty:
            raise ValueError(
                "`train_batch_size` expects at most as many rows as the shards of each of the "
                f"{self.accelerator.num_processes} process(es) hold, got {self.stream.batch_size}. Use a smaller "
                "batch or fewer processes."
            )
