# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Kills training and bulk generation at random moments, damages what they read and write, and reports what came of it.

    python benchmarks/faults.py --output_dir outputs/faults

Networks and data are tiny and made here. A killed run counts as survived if, started anew with the same command, it
ends with the bytes of the run that was left alone. A damage counts as detected if the command ends with an error, or
takes the checkpoint before it with a warning, that names what is damaged, and every other file is what it was. Writes
`faults.json` and `faults.md` to the output folder; the status is 1 if a fault was not survived or not detected.

Linux only. The case of a full disk needs the right to mount a `tmpfs`, and is left out with a note otherwise.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from datasets import Dataset, Features, Image
from diffusers import DDIMScheduler, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int


ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "diffusion_pytorch_model.safetensors"

# The fork server imports the libraries once; each run is a fork of it.
context = multiprocessing.get_context("forkserver")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_kills", type=non_negative_int, default=20, help="Of training, and of generation.")
    parser.add_argument("--damages", nargs="*", help="Names of the damages to try. Default: all.")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="Seed of the moments.")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/faults"))
    return parser.parse_args(argv)


def to_argv(flags: dict) -> list[str]:
    argv = []
    for name, value in flags.items():
        argv += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return argv


def _run(script: str, argv: list[str], log: Path, max_file_size: int | None):
    os.environ.update(ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1")
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    if max_file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
    sys.argv = [script, *argv]
    if script == "diffscm":
        from diffscm_diffusers.commands import diffscm

        diffscm.main(argv)
    else:
        spec = importlib.util.spec_from_file_location(script, ROOT / "train_scripts" / f"{script}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(argv)


def run(
    script: str, argv: list[str], log: Path, kill_after: float | None = None, max_file_size: int | None = None
) -> tuple[int, str]:
    """Runs a script, or kills it after some seconds. Returns its status, -9 where it was killed, and what it said."""
    process = context.Process(target=_run, args=(script, argv, log, max_file_size))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode, log.read_text(errors="replace") if log.exists() else ""


def hash_files(folder: Path, pattern: str = "*") -> dict[str, str]:
    """SHA-256 of the files below a folder, without locks and logs."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and not path.name.endswith(".lock")
    }


class Bench:
    """Tiny data, networks and runs in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.log = folder / "log.txt"
        generator = np.random.default_rng(0)
        for split, count in (("train", 12), ("test", 3)):
            for label, low in (("dark", 0), ("light", 128)):
                (folder / "images" / split / label).mkdir(parents=True)
                for i in range(count):
                    pixels = generator.integers(low, low + 128, (8, 8), dtype=np.uint8)
                    PIL.Image.fromarray(pixels).save(folder / "images" / split / label / f"{i:02d}.png")
        shared = {
            "sample_size": 8,
            "in_channels": 1,
            "block_out_channels": (8, 8),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "add_attention": False,
            "norm_num_groups": 4,
        }
        torch.manual_seed(0)
        unet = UNet2DModel(**shared, out_channels=1, up_block_types=("UpBlock2D", "UpBlock2D"))
        classifier = AntiCausalClassifier2DModel(**shared, num_classes=2, id2label={0: "dark", 1: "light"})
        unet.save_config(folder / "unet")
        DiffSCMCounterfactualPipeline(unet, classifier, DDIMScheduler()).save_pretrained(folder / "pipeline")
        self.training = {
            "train_data_dir": folder / "images",
            "cache_dir": folder / "cache",
            "model_config_name_or_path": folder / "unet" / "config.json",
            "train_batch_size": 4,
            "max_train_steps": 24,
            "lr_warmup_steps": 0,
            "checkpointing_steps": 1,
            "checkpoints_total_limit": 2,
            "validation_steps": 12,
            "validation_grid_size": 1,
            "validation_inference_steps": 2,
            "use_ema": True,
            "report_to": "none",
            "resume_from_checkpoint": "latest",
        }
        self.generation = {
            "train_data_dir": folder / "images",
            "cache_dir": folder / "cache",
            "split": "train",
            "label_column": "label",
            "pretrained_model_name_or_path": folder / "pipeline",
            "guidance_scale": 1,
            "num_inference_steps": 10,
            "chunk_size": 1,
        }

    def train(self, output_dir: Path, **changes) -> tuple[int, str]:
        options = {name: changes.pop(name) for name in ("kill_after", "max_file_size") if name in changes}
        argv = to_argv({**self.training, "output_dir": output_dir, **changes})
        return run("train_diffusion", argv, self.log, **options)

    def generate(self, output_dir: Path, **changes) -> tuple[int, str]:
        options = {name: changes.pop(name) for name in ("kill_after", "max_file_size") if name in changes}
        flags = {**self.generation, "output_dir": output_dir, **changes}
        argv = ["generate", *to_argv({name: value for name, value in flags.items() if value is not None})]
        return run("diffscm", argv, self.log, **options)


def kill_at_random(start: Callable, result: Callable, folder: Path, num_kills: int, moments: random.Random) -> dict:
    """Kills a run again and again, until it was killed `num_kills` times and its last start has ended by itself."""
    start(folder / "warm-up")  # which starts the fork server
    begin = time.monotonic()
    status, output = start(folder / "alone")
    duration = time.monotonic() - begin
    if status != 0:
        raise RuntimeError(f"The run that is left alone ended with status {status}: {output[-2000:]}")
    expected, outcomes, number = result(folder / "alone"), [], 0
    while len(outcomes) < num_kills:
        number += 1
        killed = []
        while True:
            moment = moments.uniform(0, 0.8 * duration) if len(outcomes) + len(killed) < num_kills else None
            status, output = start(folder / f"killed-{number}", kill_after=moment)
            if status != -signal.SIGKILL:
                break
            killed.append({"seconds": round(moment, 3), "num_files": len(result(folder / f"killed-{number}"))})
        is_same = status == 0 and result(folder / f"killed-{number}") == expected
        print(f"{len(killed)} kills, status {status}, same result: {is_same}", flush=True)
        outcomes += [{**kill, "same_result": is_same} for kill in killed]
    return {"seconds_alone": round(duration, 2), "num_files": len(expected), "kills": outcomes}


def truncate(path: Path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path):
    path.write_bytes(b"")


def flip(path: Path):
    """Inverts 16 bytes in the middle."""
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 2, min(len(content) // 2 + 16, len(content))):
        content[i] ^= 0xFF
    path.write_bytes(content)


def flip_header(path: Path):
    content = bytearray(path.read_bytes())
    for i in range(16, 32):
        content[i] ^= 0xFF
    path.write_bytes(content)


def widen(path: Path):
    """Doubles the channels that a configuration asks for."""
    config = json.loads(path.read_text())
    config["block_out_channels"] = [2 * channels for channels in config["block_out_channels"]]
    path.write_text(json.dumps(config))


@contextlib.contextmanager
def small_disk(folder: Path, size: str, *options: str) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@dataclass
class Outcome:
    """What came of a damage: whether it was detected and named, and that nothing else was changed."""

    detected: bool
    intact: bool
    said: str


def say(output: str, pattern: str) -> str:
    """The line of an output that names the damage, or its last one."""
    lines = [line for line in output.splitlines() if line.strip()] or [""]
    return next((line for line in lines if re.search(pattern, line)), lines[-1]).strip()[-400:]


def damage_checkpoint(bench: Bench, folder: Path, file: str, damage: Callable) -> Outcome:
    """The newest of two checkpoints is damaged; the run goes on from the one before it."""
    status, output = bench.train(folder / "run", max_train_steps=3)
    expected = hash_files(folder / "run", WEIGHTS)
    shutil.rmtree(folder / "run" / "unet")
    newest, older = folder / "run" / "checkpoint-3", folder / "run" / "checkpoint-2"
    damage(newest / file)
    before = hash_files(newest)
    status, output = bench.train(folder / "run", max_train_steps=3, checkpoints_total_limit=5)
    pattern = rf"checkpoint-3/{re.escape(file)}.*now called checkpoint-3-damaged"
    intact = hash_files(folder / "run", WEIGHTS) == expected and older.exists()
    aside = newest.with_name("checkpoint-3-damaged")
    intact = intact and aside.exists() and hash_files(aside) == before
    return Outcome(status == 0 and re.search(pattern, output) is not None, intact, say(output, pattern))


def resume_otherwise(bench: Bench, folder: Path) -> Outcome:
    bench.train(folder / "run", max_train_steps=1)
    shutil.copytree(bench.folder / "unet", folder / "unet")
    widen(folder / "unet" / "config.json")
    before = hash_files(folder / "run")
    status, output = bench.train(
        folder / "run", max_train_steps=2, model_config_name_or_path=folder / "unet" / "config.json"
    )
    pattern = r"the network's `block_out_channels` \[8, 8\] there and \[16, 16\] here"
    detected = status == 1 and re.search(pattern, output) is not None
    return Outcome(detected, hash_files(folder / "run") == before, say(output, pattern))


def train_on_small_disk(bench: Bench, folder: Path) -> Outcome:
    with small_disk(folder / "run", "256k"):
        status, output = bench.train(folder / "run")
        left = list(hash_files(folder / "run"))
    pattern = r"`output_dir` .* expects room for 3 checkpoint|`output_dir` .* expects room for"
    return Outcome(status == 1 and re.search(pattern, output) is not None, not left, say(output, pattern))


def train_past_the_limit(bench: Bench, folder: Path) -> Outcome:
    bench.train(folder / "run", max_train_steps=1)
    before = hash_files(folder / "run")
    status, output = bench.train(folder / "run", max_train_steps=2, max_file_size=20_000)
    pattern = r"checkpoint-2' cannot be written"
    detected = status == 1 and re.search(pattern, output) is not None
    # The images that were drawn to validate may be new.
    intact = before.items() <= hash_files(folder / "run").items() and not (folder / "run" / "checkpoint-2").exists()
    return Outcome(detected, intact, say(output, pattern))


def train_read_only(bench: Bench, folder: Path) -> Outcome:
    with small_disk(folder / "disk", "10m"):
        bench.train(folder / "disk" / "run", max_train_steps=1)
        before = hash_files(folder / "disk")
        subprocess.run(["mount", "-o", "remount,ro", folder / "disk"], check=True)
        status, output = bench.train(folder / "disk" / "run", max_train_steps=2)
        intact = hash_files(folder / "disk") == before
    pattern = r"`output_dir` expects a folder to write to.*cannot write"
    return Outcome(status == 1 and re.search(pattern, output) is not None, intact, say(output, pattern))


def generate_past_the_limit(bench: Bench, folder: Path) -> Outcome:
    status, output = bench.generate(folder / "run", max_samples=2, max_file_size=3000)
    pattern = r"error: .*(train-00000000.parquet|File too large)"
    detected = status == 2 and re.search(pattern, output) is not None
    return Outcome(detected, not hash_files(folder / "run", "*.parquet"), say(output, pattern))


def damage_pipeline(bench: Bench, folder: Path, file: str, damage: Callable, pattern: str) -> Outcome:
    shutil.copytree(bench.folder / "pipeline", folder / "pipeline")
    damage(folder / "pipeline" / file)
    before = hash_files(folder)
    status, output = bench.generate(folder / "run", pretrained_model_name_or_path=folder / "pipeline", max_samples=1)
    detected = status == 2 and len(output.strip().splitlines()) > 0 and re.search(pattern, output) is not None
    written = list(folder.glob("run/**/*.parquet"))
    after = {name: value for name, value in hash_files(folder).items() if not name.startswith("run/")}
    return Outcome(detected, not written and after == before, say(output, pattern))


def damage_image(bench: Bench, folder: Path, damage: Callable) -> Outcome:
    shutil.copytree(bench.folder / "images", folder / "images")
    damage(folder / "images" / "train" / "dark" / "03.png")
    before = hash_files(folder / "images")
    status, output = bench.train(folder / "run", train_data_dir=folder / "images", max_train_steps=12)
    pattern = "03.png"
    intact = hash_files(folder / "images") == before and not (folder / "run" / "unet").exists()
    return Outcome(status == 1 and re.search(pattern, output) is not None, intact, say(output, pattern))


def damage_shard(bench: Bench, folder: Path, damage: Callable) -> Outcome:
    (folder / "data").mkdir()
    for i in range(2):
        rows = {"image": [PIL.Image.new("L", (8, 8), 100 * i + shade) for shade in range(8)]}
        path = folder / "data" / f"train-{i:05d}-of-00002.parquet"
        Dataset.from_dict(rows, Features({"image": Image()})).to_parquet(path)
    damage(folder / "data" / "train-00001-of-00002.parquet")
    before = hash_files(folder / "data")
    flags = {name: value for name, value in bench.training.items() if name != "train_data_dir"}
    flags |= {"dataset_name": folder / "data", "output_dir": folder / "run", "cache_dir": folder / "cache"}
    status, output = run("train_diffusion", to_argv({**flags, "max_train_steps": 2}), bench.log)
    pattern = "train-00001-of-00002"
    intact = hash_files(folder / "data") == before and not (folder / "run" / "unet").exists()
    return Outcome(status == 1 and re.search(pattern, output) is not None, intact, say(output, pattern))


def damage_generated(bench: Bench, folder: Path, damage: Callable) -> Outcome:
    bench.generate(folder / "run", max_samples=3)
    damaged = sorted((folder / "run").rglob("*.parquet"))[1]
    damage(damaged)
    before = hash_files(folder / "run", "*.parquet")
    status, output = bench.generate(folder / "run", max_samples=3)
    pattern = re.escape(damaged.name)
    intact = hash_files(folder / "run", "*.parquet") == before
    return Outcome(status == 2 and re.search(pattern, output) is not None, intact, say(output, pattern))


DAMAGES = {
    "checkpoint: weights truncated": lambda b, f: damage_checkpoint(b, f, "model.safetensors", truncate),
    "checkpoint: weights with flipped bytes": lambda b, f: damage_checkpoint(b, f, "model.safetensors", flip),
    "checkpoint: average of zero bytes": lambda b, f: damage_checkpoint(b, f, "ema.safetensors", empty),
    "checkpoint: optimizer with flipped bytes": lambda b, f: damage_checkpoint(b, f, "optimizer.bin", flip),
    "checkpoint: random states missing": lambda b, f: damage_checkpoint(b, f, "random_states_0.pkl", Path.unlink),
    "checkpoint: progress truncated": lambda b, f: damage_checkpoint(b, f, "progress.json", truncate),
    "checkpoint: checksums missing": lambda b, f: damage_checkpoint(b, f, "checksums.json", Path.unlink),
    "checkpoint: network of other shapes": resume_otherwise,
    "disk too small for the checkpoints": train_on_small_disk,
    "disk full while a checkpoint is written (RLIMIT_FSIZE)": train_past_the_limit,
    "disk read-only": train_read_only,
    "disk full while counterfactuals are written (RLIMIT_FSIZE)": generate_past_the_limit,
    "model: weights truncated": lambda b, f: damage_pipeline(b, f, f"unet/{WEIGHTS}", truncate, "pipeline.*unet"),
    "model: weights of zero bytes": lambda b, f: damage_pipeline(b, f, f"unet/{WEIGHTS}", empty, "pipeline.*unet"),
    "model: weights' header with flipped bytes": lambda b, f: damage_pipeline(
        b, f, f"unet/{WEIGHTS}", flip_header, "pipeline.*unet"
    ),
    "model: weights with flipped bytes": lambda b, f: damage_pipeline(
        b, f, f"unet/{WEIGHTS}", flip, "pipeline.*unet|unet.*finite"
    ),
    "model: weights missing": lambda b, f: damage_pipeline(b, f, f"classifier/{WEIGHTS}", Path.unlink, "classifier"),
    "model: configuration of other shapes": lambda b, f: damage_pipeline(
        b, f, "classifier/config.json", widen, "conv_in.* expected shape"
    ),
    "model: index truncated": lambda b, f: damage_pipeline(b, f, "model_index.json", truncate, "model_index.json"),
    "data: image truncated": lambda b, f: damage_image(b, f, truncate),
    "data: image of zero bytes": lambda b, f: damage_image(b, f, empty),
    "data: image with flipped bytes": lambda b, f: damage_image(b, f, flip),
    "data: shard truncated": lambda b, f: damage_shard(b, f, truncate),
    "data: shard of zero bytes": lambda b, f: damage_shard(b, f, empty),
    "data: shard missing": lambda b, f: damage_shard(b, f, Path.unlink),
    "counterfactuals: file truncated": lambda b, f: damage_generated(b, f, truncate),
    "counterfactuals: file of zero bytes": lambda b, f: damage_generated(b, f, empty),
}


def make_table(report: dict) -> str:
    lines = ["| killed | moments | after the first file | files compared | same result |", "| --- " * 5 + "|"]
    for name in ("training", "generation"):
        kills = report[name]["kills"]
        same = sum(kill["same_result"] for kill in kills)
        late = sum(kill["num_files"] > 0 for kill in kills)
        lines.append(f"| {name} | {len(kills)} | {late} | {report[name]['num_files']} | {same} of {len(kills)} |")
    lines += ["", "| damage | detected and named | nothing else changed |", "| --- | --- | --- |"]
    for name, outcome in report["damages"].items():
        words = ["not tried" if value is None else "yes" if value else "**no**" for value in outcome.values()]
        lines.append(f"| {name} | {words[0]} | {words[1]} |")
    return "\n".join(lines) + "\n"


def main(argv=None) -> int:
    args = parse_args(argv)
    work = args.output_dir.resolve() / "work"
    shutil.rmtree(work, ignore_errors=True)
    context.set_forkserver_preload(["diffscm_diffusers.training.trainer", "diffscm_diffusers"])
    bench = Bench(work / "bench")
    moments = random.Random(args.seed)

    report = {
        "training": kill_at_random(
            bench.train, lambda folder: hash_files(folder, "*.safetensors"), work / "training", args.num_kills, moments
        ),
        "generation": kill_at_random(
            bench.generate,
            lambda folder: hash_files(folder, "*.parquet"),
            work / "generation",
            args.num_kills,
            moments,
        ),
        "damages": {},
    }
    for number, (name, damage) in enumerate(DAMAGES.items()):
        if args.damages is not None and name not in args.damages:
            continue
        folder = work / f"damage-{number}"
        folder.mkdir()
        try:
            outcome = damage(bench, folder)
        except subprocess.CalledProcessError:
            outcome = Outcome(None, None, "a tmpfs could not be mounted")
        report["damages"][name] = vars(outcome)
        print(f"{name}: {outcome}", flush=True)
    shutil.rmtree(work)

    table = make_table(report)
    print(table)
    for file, text in (("faults.json", json.dumps(report, indent=2) + "\n"), ("faults.md", table)):
        with written_whole(args.output_dir / file) as unfinished:
            unfinished.write_text(text)
    kills = report["training"]["kills"] + report["generation"]["kills"]
    bad = [kill for kill in kills if not kill["same_result"]]
    bad += [outcome for outcome in report["damages"].values() if False in (outcome["detected"], outcome["intact"])]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
