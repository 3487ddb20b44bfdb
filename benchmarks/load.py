# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures peak memory against the number of counterfactuals, and many processes that read one checkpoint, with a tiny
untrained model.

    python benchmarks/load.py --numbers 1000 10000

Each figure is the peak resident set of a process of its own. A call holds its images, `diffscm generate` does not.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Dataset, Features, Image
from diffusers import DDIMScheduler, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.commands import generate
from diffscm_diffusers.flags import positive_int


SIZE = 16
CLASSES = ["dark", "light"]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=positive_int, nargs="+", default=[1000, 10000], help="How many.")
    parser.add_argument("--num_readers", type=positive_int, default=8, help="Processes that read at once.")
    return parser.parse_args(argv)


def make_checkpoint(folder: Path):
    torch.manual_seed(0)
    shared = {"sample_size": SIZE, "in_channels": 1, "block_out_channels": (8, 8), "layers_per_block": 1}
    shared |= {"down_block_types": ("DownBlock2D", "DownBlock2D"), "norm_num_groups": 4, "add_attention": False}
    DiffSCMCounterfactualPipeline(
        UNet2DModel(out_channels=1, up_block_types=("UpBlock2D", "UpBlock2D"), **shared),
        AntiCausalClassifier2DModel(num_classes=2, id2label=dict(enumerate(CLASSES)), **shared),
        DDIMScheduler(num_train_timesteps=20),
        default_guidance_scale=1.0,
        default_num_inference_steps=2,
    ).save_pretrained(folder)


def make_data(folder: Path, number: int):
    generator = np.random.default_rng(0)
    images = [PIL.Image.fromarray(generator.integers(0, 256, (SIZE, SIZE), np.uint8)) for _ in range(number)]
    rows = {"image": images, "label": [i % 2 for i in range(number)]}
    features = Features({"image": Image(), "label": ClassLabel(names=CLASSES)})
    Dataset.from_dict(rows, features).to_parquet(folder / "train-00000-of-00001.parquet")


def read_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def call(checkpoint: Path, number: int) -> float:
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    images = torch.rand(number, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    pipe(images, "light", batch_size=100, output_type="pt")
    return read_peak()


def run_command(checkpoint: Path, data: Path, output_dir: Path) -> float:
    flags = {"dataset_name": data, "cache_dir": data / "cache", "label_column": "label", "output_dir": output_dir}
    flags |= {"pretrained_model_name_or_path": checkpoint}
    generate.main([text for name, value in flags.items() for text in (f"--{name}", str(value))])
    return read_peak()


def read_checkpoint(checkpoint: Path) -> str:
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    image = torch.linspace(0, 1, SIZE * SIZE).view(1, 1, SIZE, SIZE)
    return hashlib.sha256(pipe(image, "light", output_type="pt").images.numpy().tobytes()).hexdigest()


def in_process(function, *args):
    """The function's result in a new process, whose peak is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def main(argv=None) -> dict:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder / "checkpoint")
        results = {"one call, MiB": {}, "diffscm generate, MiB": {}}
        for number in args.numbers:
            data = folder / f"data-{number}"
            make_data(data, number)
            results["one call, MiB"][number] = in_process(call, folder / "checkpoint", number)
            results["diffscm generate, MiB"][number] = in_process(
                run_command, folder / "checkpoint", data, folder / f"output-{number}"
            )
        with multiprocessing.get_context("spawn").Pool(args.num_readers) as pool:
            images = pool.map(read_checkpoint, [folder / "checkpoint"] * args.num_readers, chunksize=1)
        results["readers"] = args.num_readers
        results["different images"] = len(set(images))
    print(json.dumps(results, indent=2))
    return results


if __name__ == "__main__":
    main()
