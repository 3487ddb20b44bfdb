# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, Image, IterableDataset, load_dataset

from diffscm_diffusers.data.images import ImageCollator
from diffscm_diffusers.data.streaming import ShuffledStream, StreamLoader


ROWS_READ = []


def generate_rows(shards):
    for first, size in shards:
        for number in range(first, first + size):
            ROWS_READ.append(number)
            yield {"number": number}


def make_dataset(sizes) -> IterableDataset:
    """A streamed data set of numbered rows, `sizes` of them in its shards."""
    ROWS_READ.clear()
    firsts = np.cumsum([0, *sizes])[:-1].tolist()
    return IterableDataset.from_generator(generate_rows, gen_kwargs={"shards": list(zip(firsts, sizes, strict=True))})


def numbers(stream) -> list[list[int]]:
    return [[row["number"] for row in rows] for rows, _ in stream]


def flat(batches) -> list[int]:
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize("buffer_size", [1, 4, 7, 100])
def test_every_epoch_shows_each_row_once_in_another_order(buffer_size):
    stream = ShuffledStream(make_dataset([5, 0, 7, 8]), 2, buffer_size, seed=0)
    first, again = flat(numbers(stream)), flat(numbers(stream))
    stream.epoch = 1
    second = flat(numbers(stream))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first == again
    assert first != second
    other_seed = ShuffledStream(make_dataset([5, 0, 7, 8]), 2, buffer_size, seed=1)
    assert first != flat(numbers(other_seed))


def test_rows_of_several_shards_are_mixed():
    stream = ShuffledStream(make_dataset([50, 50]), 10, 100, seed=0)
    assert all({number // 50 for number in batch} == {0, 1} for batch in numbers(stream))


@pytest.mark.parametrize("batch_size", [2, 3])
def test_stream_goes_on_from_any_position(batch_size):
    sizes, buffer_size = [5, 0, 7, 8, 9], 6
    batches = list(ShuffledStream(make_dataset(sizes), batch_size, buffer_size, seed=3))
    for done in range(len(batches)):
        rest = ShuffledStream(make_dataset(sizes), batch_size, buffer_size, seed=3)
        rest.position = json.loads(json.dumps(batches[done][1]))
        assert list(rest) == batches[done + 1 :]


def test_resuming_reads_one_block_and_its_shard_again():
    sizes, buffer_size = [50] * 20, 10
    stream = ShuffledStream(make_dataset(sizes), 5, buffer_size, seed=0)
    positions = [position for _, position in stream]
    for done in (3, 77, 150):
        rest = ShuffledStream(make_dataset(sizes), 5, buffer_size, seed=0)
        rest.position = positions[done]
        next(iter(rest))
        # A generator cannot skip inside its shard, so the worst is one shard and one block, of 1,000 rows.
        assert len(ROWS_READ) <= 50 + buffer_size
        assert len({number // 50 for number in ROWS_READ}) <= 2


def test_processes_read_their_own_shards_where_these_divide():
    batches = []
    for process in range(2):
        batches.append(numbers(ShuffledStream(make_dataset([6] * 4), 3, 5, 0, process, 2)))
        assert sorted(ROWS_READ) == sorted(flat(batches[-1]))
    assert [len(b) for b in batches] == [4, 4]
    assert sorted(flat(batches[0]) + flat(batches[1])) == list(range(24))


def test_processes_share_each_batch_where_the_shards_do_not_divide():
    whole = numbers(ShuffledStream(make_dataset([7, 9, 8]), 6, 5, 0))
    halves = [numbers(ShuffledStream(make_dataset([7, 9, 8]), 3, 5, 0, i, 2)) for i in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


@pytest.fixture(scope="module")
def parquet_shards(tmp_path_factory):
    """Parquet files of 12 and 20 grey images, each of its own shade."""
    folder = tmp_path_factory.mktemp("shards")
    for i, shades in enumerate((range(0, 12), range(12, 32))):
        rows = {"image": [PIL.Image.new("L", (8, 8), 8 * shade) for shade in shades]}
        Dataset.from_dict(rows, Features({"image": Image()})).to_parquet(folder / f"train-{i:05d}-of-00002.parquet")
    return folder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_decodes_and_goes_on_with_workers(parquet_shards, num_workers):
    dataset = load_dataset(str(parquet_shards), split="train", streaming=True)

    def load():
        return StreamLoader(Accelerator(cpu=True), dataset, ImageCollator(8, 1, "image"), 4, 10, 0, num_workers)

    loader, shades, states = load(), [], []
    for epoch in range(2):
        for batch in loader.load_epoch(epoch):
            shades.append(((batch["pixel_values"][:, 0, 0, 0] + 1) * 255 / 16).round().int().tolist())
            states.append(json.loads(json.dumps(loader.state([loader.position]))))
    assert sorted(flat(shades[:8])) == sorted(flat(shades[8:])) == list(range(32))
    resumed = load()
    rest = [batch["pixel_values"] for batch in resumed.load_epoch(0, resumed.take_up(states[2]))]
    assert [((r[:, 0, 0, 0] + 1) * 255 / 16).round().int().tolist() for r in rest] == shades[3:8]


@pytest.fixture(scope="module")
def broken_shards(tmp_path_factory):
    """As `parquet_shards`, with two images that are none in the second file."""
    folder = tmp_path_factory.mktemp("broken")
    for i, shades in enumerate((range(0, 12), range(12, 32))):
        images = [Image().encode_example(PIL.Image.new("L", (8, 8), 8 * shade)) for shade in shades]
        if i == 1:
            images[0] = images[9] = {"path": None, "bytes": b"404"}
        rows = Dataset.from_dict({"image": images}, Features({"image": Image(decode=False)}))
        rows.cast_column("image", Image()).to_parquet(folder / f"train-{i:05d}-of-00002.parquet")
    return load_dataset(str(folder), split="train", streaming=True)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_image_is_named_by_file_and_row(broken_shards, num_workers):
    loader = StreamLoader(Accelerator(cpu=True), broken_shards, ImageCollator(8, 1, "image"), 4, 10, 0, num_workers)
    with pytest.raises(ValueError, match="one in row [09] of the data set's file 1: no kind"):
        list(loader.load_epoch(0))


def test_broken_images_are_left_out_and_counted(broken_shards, caplog):
    def load():
        collate = ImageCollator(8, 1, "image")
        return StreamLoader(Accelerator(cpu=True), broken_shards, collate, 5, 7, 0, 0, skip_broken=True)

    loader, shades, states = load(), [], []
    for epoch in range(2):
        for batch in loader.load_epoch(epoch):
            shades.append(((batch["pixel_values"][:, 0, 0, 0] + 1) * 255 / 16).round().int().tolist())
            states.append(loader.state([loader.position]))
    whole = sorted(set(range(32)) - {12, 21})
    assert sorted(flat(shades[:6])) == sorted(flat(shades[6:])) == whole
    assert sorted(message.split(": ")[1] for message in caplog.messages) == [
        f"one in row {row} of the data set's file 1" for row in (0, 9)
    ]
    assert [message.split(": ")[0] for message in caplog.messages] == [
        f"Left out an image, {count} so far" for count in (1, 2)
    ]
    for done in range(6):  # it goes on from any position
        resumed = load()
        rest = [batch["pixel_values"] for batch in resumed.load_epoch(0, resumed.take_up(states[done]))]
        assert [((r[:, 0, 0, 0] + 1) * 255 / 16).round().int().tolist() for r in rest] == shades[done + 1 : 6]


def test_rows_keep_their_numbers_after_resuming(broken_shards):
    loader = StreamLoader(Accelerator(cpu=True), broken_shards, ImageCollator(8, 1, "image"), 4, 4, 0, 0)
    stream = loader.stream
    places = [row.position for rows, _ in stream for row in rows]
    assert sorted(places) == sorted(
        f"row {row} of the data set's file {file}" for file, size in ((0, 12), (1, 20)) for row in range(size)
    )
    positions = [position for _, position in stream]
    stream.position = positions[3]
    assert [row.position for rows, _ in stream for row in rows] == places[16:]


def test_loader_refuses_what_it_cannot_take_up(parquet_shards):
    dataset = load_dataset(str(parquet_shards), split="train", streaming=True)
    loader = StreamLoader(Accelerator(cpu=True), dataset, ImageCollator(8, 1, "image"), 4, 10, 0, 0)
    state = loader.state([loader.position])
    with pytest.raises(ValueError, match="as many processes as wrote its checkpoint, 2, got 1"):
        loader.take_up({**state, "positions": state["positions"] * 2})
    with pytest.raises(ValueError, match="`shuffle_buffer_size` expects that of the run .* 11, got 10"):
        loader.take_up({**state, "buffer_size": 11})


def test_process_without_a_batch_is_an_error(parquet_shards):
    dataset = load_dataset(str(parquet_shards), split="train", streaming=True)
    loader = StreamLoader(Accelerator(cpu=True), dataset, ImageCollator(8, 1, "image"), 33, 10, 0, 0)
    with pytest.raises(ValueError, match="`train_batch_size` expects at most as many rows as the shards .* got 33"):
        next(loader.load_epoch(0))


def test_shuffling_leaves_torchs_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(ShuffledStream(make_dataset([5]), 2, 3, seed=0))
    assert torch.equal(torch.rand(1), expected)
