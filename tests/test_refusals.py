# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Commands and training scripts refuse wrong flags before they import what takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffscm_diffusers import commands
from diffscm_diffusers.commands.diffscm import list_commands
from diffscm_diffusers.refusals import check_name_or_path, refuse_early
from tests.helpers import TRAIN_SCRIPTS


HEAVY = {
    "accelerate",
    "datasets",
    "diffusers",
    "matplotlib",
    "numpy",
    "pandas",
    "torch",
    "torchmetrics",
    "transformers",
}

DATA = "--dataset_name me/data"
CHECKPOINT = "--pretrained_model_name_or_path me/checkpoint"
OUT = "--output_dir {tmp}/new"
NETWORK = f"{DATA} {OUT} --model_config_name_or_path {{tmp}}/network.json"
# Flags that are complete but for one, and a part of what is said of it.
NO_DATA = (f"{OUT}", "Exactly one of `dataset_name` and `train_data_dir` is expected, got None and None")
NO_FOLDER = (f"{OUT} --train_data_dir {{tmp}}/nowhere", "`train_data_dir` expects a folder of images")
NO_OUTPUT = (f"{DATA} --output_dir {{tmp}}/file/new", "`output_dir` expects a folder to write to")
NO_CHECKPOINT = (
    f"{DATA} {OUT} --pretrained_model_name_or_path {{tmp}}/nowhere",
    "`--pretrained_model_name_or_path` expects the Hub name or folder of a pipeline's checkpoint",
)
NOT_NEW = ("--output_dir {tmp}", "`--output_dir` expects a new folder")
SCORING = [
    NO_DATA,
    NO_FOLDER,
    NO_OUTPUT,
    NO_CHECKPOINT,
    (f"{DATA} {OUT} --batch_size 0", "--batch_size: expects a whole number of at least 1, got '0'"),
    (f"{DATA} {OUT} --metric_models ./nowhere", "`--metric_models` expects what train_metric_models.py wrote"),
    (f"{DATA} {OUT} --guidance_interval 5 2", "`--guidance_interval` expects two timesteps, the lower first"),
]
TRAINING = [
    (f"{NETWORK} --train_batch_size 0", "--train_batch_size: expects a whole number of at least 1, got '0'"),
    (f"{NETWORK} --lr_scheduler piecewise_constant", "--lr_scheduler: invalid choice: 'piecewise_constant'"),
    (f"{NETWORK} --report_to nowhere", "`report_to` expects 'none', 'all' or a tracker that is installed"),
    (f"{NETWORK} --report_to wandb", "`report_to` expects 'none', 'all' or a tracker that is installed"),
    (f"{NETWORK} --lr_warmup_steps 9 --max_train_steps 8", "`lr_warmup_steps` expects at most `max_train_steps`"),
    (f"{NETWORK} --resume_from_checkpoint nowhere", "`resume_from_checkpoint` expects `latest` or the folder"),
    (f"{NETWORK} --hub_model_id me/mine", "`hub_model_id` expects `--push_to_hub` beside it"),
    (f"{NETWORK} --hub_model_id a/b/c --push_to_hub", "`hub_model_id` expects the name of a repository"),
    (f"{NETWORK} --balance_causes 0.5", "`balance_causes` expects `--graph` beside it"),
    (f"{NETWORK} --graph {{tmp}}/file", "`--graph` expects the JSON file of a causal graph"),
    (f"{OUT} --model_config_name_or_path {{tmp}}/network.json", NO_DATA[1]),
    (f"{DATA} {OUT}", "Exactly one of `pretrained_model_name_or_path` and `model_config_name_or_path` is expected"),
    (f"{DATA} {OUT} --model_config_name_or_path nowhere.json", "`--model_config_name_or_path` expects the JSON file"),
    (f"{NO_OUTPUT[0]} --model_config_name_or_path {{tmp}}/network.json", NO_OUTPUT[1]),
]
NETWORKS = [
    NO_DATA,
    NO_FOLDER,
    NO_OUTPUT,
    (f"{DATA} {OUT} --train_batch_size 0", "--train_batch_size: expects a whole number of at least 1, got '0'"),
    (
        f"{DATA} {OUT} --autoencoder_config_name_or_path nowhere.json",
        "`--autoencoder_config_name_or_path` expects the JSON file of a network",
    ),
]
REFUSED = {
    "calibrate": [
        *((f"{CHECKPOINT} {flags}", message) for flags, message in (NO_DATA, NO_FOLDER, NO_OUTPUT)),
        NO_CHECKPOINT,
        (f"{DATA} {CHECKPOINT} {NOT_NEW[0]}", NOT_NEW[1]),
        (f"{DATA} {CHECKPOINT} {OUT} --timesteps 5 2", "`--timesteps` expects at least two timesteps"),
        (f"{DATA} {CHECKPOINT} {OUT} --batch_size 0", "--batch_size: expects a whole number"),
    ],
    "card": [
        (CHECKPOINT, "`--pretrained_model_name_or_path` expects a checkpoint's folder"),
        ("--pretrained_model_name_or_path {tmp} --picture nowhere.png", "`--picture` expects a file"),
        ("--pretrained_model_name_or_path {tmp} --evaluation nowhere", "`--evaluation` expects a folder"),
    ],
    "convert-adm": [
        (OUT, "At least one of `--model_path` and `--classifier_path` is expected"),
        (f"{OUT} --model_path nowhere.pt", "`--model_path` expects a file of weights"),
        ("--output_dir {tmp}/file/new --model_path {tmp}/file", NO_OUTPUT[1]),
        ("--output_dir {tmp} --model_path {tmp}/file", NOT_NEW[1]),
        (f"{OUT} --model_path {{tmp}}/file --id2label {{tmp}}/file", "`--id2label` expects a JSON file"),
        (f"{OUT} --image_size 0", "--image_size: expects a whole number"),
    ],
    "effects": [
        *((f"{CHECKPOINT} --do a=1 {flags}", message) for flags, message in (NO_DATA, NO_FOLDER, NO_OUTPUT)),
        (f"--do a=1 {NO_CHECKPOINT[0]}", NO_CHECKPOINT[1]),
        (f"{DATA} {CHECKPOINT} {OUT} --do a", "`--do` expects `attribute=value`"),
        (f"{DATA} {CHECKPOINT} {OUT} --do a=1 a=2", "`--do` expects `attribute=value`, each attribute once"),
        (f"{DATA} {CHECKPOINT} {OUT} --do a=1 --num_draws 0", "--num_draws: expects a whole number"),
    ],
    "evaluate": [
        *SCORING,
        (f"{DATA} {OUT} --methods unknown", "--methods: invalid choice: 'unknown'"),
        (f"{DATA} {OUT} --num_draws 5", "`--num_draws` expects at least 19"),
        (f"{DATA} {OUT} --guidance_scale 1 --search_scale pixels", "exclude each other"),
        (f"{DATA} {OUT} --search_scale pixels {{tmp}}", "`--search_scale` expects the word pixels alone"),
        (f"{DATA} {OUT} --search_scale nowhere", "`--search_scale` expects the word pixels alone, or folders"),
        (f"{DATA} {OUT} --posterior_mean 5 3", "`--posterior_mean` expects a timestep and an even number of draws"),
        (f"{DATA} {OUT} --metric_models none --oracle a/b", "`--oracle` is expected with `--metric_models`"),
        (f"{DATA} {OUT} --methods schut", "`--baselines` is needed for the method 'schut'"),
        (f"{DATA} {OUT} --methods conditional-vae", "`--conditional_vae` is needed for the method"),
        (f"{DATA} {OUT} --conditional_vae ./nowhere", "`--conditional_vae` expects the folder of a VAE"),
        (f"{DATA} {OUT} --baselines nowhere", "`--baselines` expects a folder that train_baselines.py wrote"),
    ],
    "figures": [
        (f"{DATA} {OUT} --batch_size 0", "--batch_size: expects a whole number"),
        (f"{DATA} {OUT}", "`--evaluation` is needed for"),
        (f"{OUT} --figures targets", "`--dataset_name` or `--train_data_dir` is needed for"),
        *((f"--figures targets {flags}", message) for flags, message in (NO_FOLDER, NO_OUTPUT, NO_CHECKPOINT)),
    ],
    "generate": [
        *(
            (f"{CHECKPOINT} --label_column label {flags}", message)
            for flags, message in (
                NO_DATA,
                NO_FOLDER,
                NO_OUTPUT,
                (f"{DATA} {OUT} --guidance_scale 0", "`--guidance_scale` expects a number above 0"),
                (f"{DATA} {OUT} --strength 1.5", "`--strength` expects a fraction of the steps"),
                (f"{DATA} {OUT} --hub_private_repo", "`hub_private_repo` expects `--push_to_hub` beside it"),
                (f"{DATA} {OUT} --hub_dataset_id a/b", "`hub_dataset_id` expects `--push_to_hub` beside it"),
                (f"{DATA} {OUT} --batch_size 0", "--batch_size: expects a whole number"),
            )
        ),
        NO_CHECKPOINT,
        (f"{DATA} {CHECKPOINT} {OUT}", "`--interventions` 'other' expects factuals of known classes"),
    ],
    "join-checkpoint": [
        (f"--denoiser a/b {OUT}", "`--classifier` expects an anti-causal predictor"),
        (f"--denoiser ./nowhere --classifier a/b {OUT}", "`--denoiser` expects a Hub name or a folder"),
        (f"--denoiser a/b --classifier a/c {NOT_NEW[0]}", NOT_NEW[1]),
        (f"--denoiser a/b --classifier a/c {OUT} --dtype int8", "--dtype: invalid choice: 'int8'"),
    ],
    "make-world": [
        (f"typeface {OUT} --num_train 0", "--num_train: expects a whole number"),
        (f"typeface {OUT} --slant", "`--slant` is expected with morpho-mnist only"),
        (f"typeface {OUT} --image_size 29", "`--image_size` expects 28 or 64 with typeface"),
        (f"typeface {OUT} --confounding 0.5", "`--confounding` expects `--color` beside it"),
        (f"typeface {NOT_NEW[0]}", NOT_NEW[1]),
        (f"morpho-mnist {OUT}", NO_DATA[1]),
        (f"morpho-mnist {DATA} {OUT} --image_size 64", "`--image_size` expects 28 with morpho-mnist"),
        (f"morpho-mnist {DATA} {OUT} --confounding 0.5", "`--confounding` is expected with typeface only"),
        (f"morpho-mnist {DATA} {OUT} --test_split train", "`--test_split` expects another split"),
    ],
    "publish": [
        (f"{CHECKPOINT} --hub_model_id a/b/c", "`hub_model_id` expects the name of a repository"),
        (f"{CHECKPOINT} --hub_model_id a/b", "`--pretrained_model_name_or_path` expects a checkpoint's folder"),
        (f"{CHECKPOINT} --hub_model_id a/b --variant int8", "--variant: invalid choice: 'int8'"),
    ],
    "search-scale": [
        *SCORING,
        (f"{DATA} {OUT} --guidance_scales 1 1.0000001", "`--guidance_scales` expects numbers that differ"),
        (f"{DATA} {OUT} {CHECKPOINT} --update_checkpoint", "`--update_checkpoint` expects a local folder"),
    ],
    "train_baselines.py": NETWORKS,
    "train_classifier.py": [
        *TRAINING,
        (f"{NETWORK} --not_chained", "`--not_chained` expects a `--graph`"),
        (f"{NETWORK} --from_unet a/b", "`--from_unet` expects no other source of the model"),
        (f"{DATA} {OUT} --from_unet ./nowhere", "`--from_unet` expects the Hub name or folder of a `DDPMPipeline`"),
        (f"{NETWORK} --num_noise_levels 1001", "`num_noise_levels` expects at most `num_train_timesteps`"),
    ],
    "train_code_mechanism.py": [
        (f"{DATA} {OUT} --encoder ./nowhere", "`--encoder` expects a `SemanticEncoder2DModel`"),
        *((f"--encoder a/b {flags}", message) for flags, message in (NO_DATA, NO_FOLDER, NO_OUTPUT)),
        (f"--encoder a/b {DATA} {OUT} --graph {{tmp}}/file", "`--graph` expects the JSON file of a causal graph"),
        (f"--encoder a/b {DATA} {OUT} --causes digit", "`--causes` expects a `--graph`, which names them"),
        (f"--encoder a/b {DATA} {OUT} --hub_model_id a/b", "`hub_model_id` expects `--push_to_hub`"),
        (f"--encoder a/b {DATA} {OUT} --displacement_weight -1", "--displacement_weight: expects a finite number of"),
    ],
    "train_diffusion.py": [
        *TRAINING,
        (f"{NETWORK} --parent_dropout 0.5", "`--parent_dropout` expects a `--graph`"),
        (f"{NETWORK} --label_column label", "`--label_column` expects `--class_dropout` or `--encoder`"),
        (f"{NETWORK} --label_column label --encoder ./nowhere", "`--encoder` expects a `SemanticEncoder2DModel`"),
    ],
    "train_metric_models.py": NETWORKS,
    "train_scm.py": [
        (f"--graph {{tmp}}/network.json {OUT}", "`--table` or `--dataset_name` is expected, one of the two"),
        (f"--graph {{tmp}}/file --table t.csv {OUT}", "`--graph` expects the JSON file of a causal graph"),
        (f"--graph {{tmp}}/network.json --table nowhere.csv {OUT}", "`--table` expects a table that can be read"),
        (f"--graph {{tmp}}/network.json --table {{tmp}}/file {OUT}", "`--table` expects a `.csv` or a `.parquet`"),
        (f"--graph {{tmp}}/network.json {NO_OUTPUT[0]}", NO_OUTPUT[1]),
        (f"--graph {{tmp}}/network.json {DATA} {OUT} --hub_model_id a/b", "`hub_model_id` expects `--push_to_hub`"),
    ],
    "train_semantic_encoder.py": [
        *TRAINING,
        (f"{NETWORK} --train_batch_size 3", "`--train_batch_size` expects at least 4"),
    ],
    "train_vae.py": [
        (f"--graph {{tmp}}/network.json {flags}", message)
        for flags, message in TRAINING
        if "graph" not in flags + message
    ],
}


# Asked in one process, as what is imported stays.
ASK = """
import contextlib, io, json, sys
from diffscm_diffusers.refusals import refuse_early

answers = []
for file, name, argv in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            refuse_early(file, argv, name)
        status = None
    except SystemExit as ended:
        status = ended.code
    answers.append((status, said.getvalue(), sorted({module.split(".")[0] for module in sys.modules})))
json.dump(answers, sys.stdout)
"""


def ask(program: str, calls: list[list[str]]) -> list[tuple[int | None, str, set[str]]]:
    """Status, text and what was imported until then, of each call of a program."""
    file = TRAIN_SCRIPTS / program
    if program in list_commands():
        file = Path(commands.__file__).with_name(f"{program.replace('-', '_')}.py")
    questions = json.dumps([(str(file), program, argv) for argv in calls])
    result = subprocess.run([sys.executable, "-c", ASK], input=questions, capture_output=True, text=True, check=True)
    return [(status, text, set(modules)) for status, text, modules in json.loads(result.stdout)]


def test_every_program_is_tried():
    assert REFUSED.keys() == {*list_commands(), *(path.name for path in TRAIN_SCRIPTS.glob("*.py"))}


@pytest.mark.parametrize("program", REFUSED)
def test_flags_are_refused_before_heavy_imports(program, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "network.json").write_text(json.dumps({}))
    calls = [flags.format(tmp=tmp_path).split() for flags, _ in REFUSED[program]]
    (status, text, modules), *answers = ask(program, [["--help"], *calls])
    assert (status, modules & HEAVY) == (0, set()) and text.startswith("usage:")
    for (_, message), argv, (status, text, modules) in zip(REFUSED[program], calls, answers, strict=True):
        assert status == 2 and message in text and text.count("\n") == 1, f"{argv}: {text}"
        assert modules & HEAVY == set(), f"{argv}: {text}"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("program", ["diffscm", *sorted(path.name for path in TRAIN_SCRIPTS.glob("*.py"))])
def test_a_program_refuses_before_it_imports_the_rest(program, tmp_path):
    command = [str(TRAIN_SCRIPTS / program), "--output_dir", str(tmp_path)]
    if program == "diffscm":
        command = ["-m", "diffscm_diffusers", "evaluate", "--output_dir", str(tmp_path)]
    if program in ("train_scm.py", "train_vae.py"):
        command += ["--graph", "graph.json"]
    if program == "train_code_mechanism.py":
        command += ["--encoder", "a/b"]
    result = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True)
    lines = result.stderr.splitlines()
    imported = {line.split("|")[-1].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    (line,) = (line for line in lines if not line.startswith("import time:"))
    assert result.returncode == 2 and "expect" in line
    assert "argparse" in imported and imported & HEAVY == set()


def test_what_needs_heavy_imports_is_left_to_main(tmp_path):
    file = tmp_path / "command.py"
    file.write_text(
        "import argparse\n"
        "import torch\n"
        "from diffusers import UNet2DModel\n"
        "DTYPE = torch.float32\n"
        "@torch.no_grad()\n"
        "def compute():\n"
        "    pass\n"
        "def parse_args(argv):\n"
        "    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--dtype', default='float32')\n"
        "    return parser.parse_args(argv)\n"
        "def check_args(args):\n"
        "    if args.dtype == 'int8':\n"
        "        raise ValueError('`--dtype` expects a float')\n"
        "    assert getattr(torch, args.dtype) == DTYPE\n"
    )
    refuse_early(file, ["--dtype", "float32"])
    with pytest.raises(SystemExit) as ended:
        refuse_early(file, ["--dtype", "int8"])
    assert ended.value.code == 2


@pytest.mark.parametrize("text", ["me/checkpoint", "checkpoint", None, "."])
def test_a_name_on_the_hub_may_exist(text):
    check_name_or_path("encoder", text, "a network")


@pytest.mark.parametrize("text", ["a/b/c", "./a", "/a", "~/a", "a/", "a.json"])
def test_a_path_has_to_exist(text):
    with pytest.raises(ValueError, match=f"`--encoder` expects a network, got '{text}': there is no such file"):
        check_name_or_path("encoder", text, "a network")
