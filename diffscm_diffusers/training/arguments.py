# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What a training run is told: flags of the training scripts, and the same as fields for a [`Trainer`]."""

import argparse
import importlib.util
import math
import os
from collections.abc import Collection
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from diffscm_diffusers.flags import (
    add_data_arguments,
    add_publication_arguments,
    fraction,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    rate,
)
from diffscm_diffusers.refusals import (
    check_data_source,
    check_json,
    check_name_or_path,
    check_output_dir,
    check_publication,
)


# Names that diffusers and accelerate have, too, whose import would keep wrong flags waiting.
# Piecewise constant schedules need rules that no flag gives.
LR_SCHEDULERS = ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
TRACKERS = ["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]


@dataclass(kw_only=True)
class TrainingArguments:
    """
    The settings of a [`Trainer`]. Each field is the flag of the same name, and its default is the flag's; see
    [`add_training_arguments`] for their meaning.

    Raises:
        ValueError: if a setting is out of its range.
    """

    output_dir: str | Path
    train_batch_size: int = 128
    gradient_accumulation_steps: int = 1
    max_train_steps: int = 20000
    learning_rate: float = 1e-4
    lr_scheduler: str = "constant_with_warmup"
    lr_warmup_steps: int = 500
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 0.0
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    mixed_precision: str | None = None
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    use_ema: bool = False
    ema_max_decay: float = 0.9999
    ema_inv_gamma: float = 1.0
    ema_power: float = 3 / 4
    shuffle_buffer_size: int = 10000
    cache_images: bool = False
    skip_broken: bool = False
    dataloader_num_workers: int = 0
    checkpointing_steps: int = 1000
    checkpoints_total_limit: int | None = None
    resume_from_checkpoint: str | None = None
    validation_steps: int = 1000
    logging_steps: int = 10
    report_to: str = "tensorboard"
    logging_dir: str = "logs"
    seed: int = 0

    def __post_init__(self):
        whole, number = (int,), (int, float)
        for names, types, expected, is_allowed in (
            (
                "train_batch_size gradient_accumulation_steps max_train_steps checkpointing_steps validation_steps "
                "logging_steps shuffle_buffer_size checkpoints_total_limit",
                whole,
                "a whole number of at least 1",
                lambda value: value >= 1,
            ),
            (
                "lr_warmup_steps dataloader_num_workers seed",
                whole,
                "a whole number of at least 0",
                lambda value: value >= 0,
            ),
            (
                "learning_rate adam_epsilon ema_inv_gamma ema_power",
                number,
                "a finite number greater than 0",
                lambda value: 0 < value < math.inf,
            ),
            ("max_grad_norm", number, "a number greater than 0", lambda value: value > 0),
            ("adam_weight_decay", number, "a finite number of at least 0", lambda value: 0 <= value < math.inf),
            ("adam_beta1 adam_beta2 ema_max_decay", number, "a number in [0, 1)", lambda value: 0 <= value < 1),
            ("mixed_precision", (str,), "'no', 'fp16' or 'bf16'", lambda value: value in ("no", "fp16", "bf16")),
            ("lr_scheduler", (str,), f"one of {LR_SCHEDULERS}", lambda value: value in LR_SCHEDULERS),
        ):
            for name in names.split():
                value = getattr(self, name)
                is_left_open = value is None and name in ("checkpoints_total_limit", "mixed_precision")
                if not is_left_open and (type(value) not in types or not is_allowed(value)):
                    raise ValueError(f"`{name}` expects {expected}, got {value!r}.")
        if self.lr_scheduler != "constant" and self.lr_warmup_steps > self.max_train_steps:
            raise ValueError(
                f"`lr_warmup_steps` expects at most `max_train_steps`, {self.max_train_steps}, got "
                f"{self.lr_warmup_steps}."
            )
        logs = Path(os.path.normpath(self.logging_dir))
        if logs.is_absolute() or ".." in logs.parts:
            raise ValueError(f"`logging_dir` expects a folder inside `output_dir`, got {self.logging_dir!r}.")

    @classmethod
    def from_flags(cls, flags: dict) -> "TrainingArguments":
        """
        Picks the fields out of all flags of a script, `vars(args)`.

        Raises:
            ValueError: if one of the flags is out of its range.
        """
        return cls(**{field.name: flags[field.name] for field in fields(cls)})


def check_output(training_args: TrainingArguments):
    """Raises a `ValueError` if the run could not write to its folder, or if the checkpoint that is named is none."""
    check_output_dir(training_args.output_dir)
    checkpoint = training_args.resume_from_checkpoint
    if checkpoint in (None, "latest"):
        return
    from diffscm_diffusers.checksums import CHECKSUMS_NAME  # which takes a second to import

    if not Path(checkpoint, CHECKSUMS_NAME).is_file():
        raise ValueError(
            "`resume_from_checkpoint` expects `latest` or the folder of a whole checkpoint, got "
            f"{str(checkpoint)!r}, which has no `{CHECKSUMS_NAME}`."
        )


def check_tracker(report_to: str, installed: Collection[str]):
    """Raises a `ValueError` if a run's tracker is unknown or none of those that are installed."""
    if report_to not in ("none", "all", *installed):
        raise ValueError(
            f"`report_to` expects 'none', 'all' or a tracker that is installed, one of {sorted(installed)}, got "
            f"{report_to!r}."
        )


def check_flags(flags: dict):
    """
    Raises a `ValueError` for what the flags alone show to be wrong: values out of their range, values that do not fit
    each other or would never be used, files and folders that do not exist or cannot be written, and a tracker that is
    not installed.

    Args:
        flags (`dict`): All flags of a script that trains one network, `vars(args)`.
    """
    check_output(TrainingArguments.from_flags(flags))
    installed = [name for name in TRACKERS if importlib.util.find_spec(name) is not None]
    if importlib.util.find_spec("tensorboardX") is not None:
        installed.append("tensorboard")
    check_tracker(flags["report_to"], installed)
    for name in ("validation_inference_steps", "num_noise_levels"):
        if flags.get(name) is not None and flags[name] > flags["num_train_timesteps"]:
            raise ValueError(
                f"`{name}` expects at most `num_train_timesteps`, {flags['num_train_timesteps']}, got {flags[name]}."
            )
    for name, needed in (
        ("subfolder", "pretrained_model_name_or_path"),
        ("shuffle_buffer_size", "streaming"),
        ("balance_causes", "graph"),
    ):
        default = TrainingArguments.__dataclass_fields__[name].default if name == "shuffle_buffer_size" else None
        if flags.get(name, default) != default and not flags.get(needed):
            raise ValueError(f"`{name}` expects `--{needed}` beside it, got {flags[name]!r} alone.")
    if flags.get("balance_causes") is not None and flags.get("streaming"):
        raise ValueError(
            f"`balance_causes` expects no `--streaming`, as it draws from all rows, got {flags['balance_causes']} and "
            "`--streaming`."
        )
    check_publication(flags)
    check_data_source(flags["dataset_name"], flags["train_data_dir"], flags["dataset_config_name"])
    if flags.get("graph") is not None:
        check_json("graph", flags["graph"], "the JSON file of a causal graph")
    for name, expected in (
        ("model_config_name_or_path", "the JSON file of a network"),
        ("pretrained_model_name_or_path", "the Hub name or folder of a network"),
    ):
        check_name_or_path(name, flags[name], expected)
    if flags.get("from_unet") is None:
        check_source(flags["pretrained_model_name_or_path"], flags["model_config_name_or_path"])


def check_source(pretrained_model_name_or_path: str | Path | None, model_config_name_or_path: str | Path | None):
    """Raises a `ValueError` if a network is neither to be made anew nor to be loaded, or both."""
    if (pretrained_model_name_or_path is None) == (model_config_name_or_path is None):
        raise ValueError(
            "Exactly one of `pretrained_model_name_or_path` and `model_config_name_or_path` is expected, got "
            f"{pretrained_model_name_or_path!r} and {model_config_name_or_path!r}."
        )


def add_training_arguments(parser: argparse.ArgumentParser, labels: bool, diffusion: bool = True):
    """
    Adds the flags of the scripts that train a network, spelled as in diffusers' own examples.

    Args:
        parser (`argparse.ArgumentParser`): The parser to add them to.
        labels (`bool`): Whether the data need a `--label_column`.
        diffusion (`bool`, *optional*, defaults to `True`): Whether the network is trained on noisy images.
    """
    data = add_data_arguments(parser, labels)
    data.add_argument("--train_split", default="train", help="Split to train on.")
    data.add_argument(
        "--streaming", action="store_true", help="Read the data set while training, without a copy on disk."
    )
    data.add_argument("--shuffle_buffer_size", type=positive_int, help="Rows shuffled at once when streaming.")
    data.add_argument(
        "--cache_images", action="store_true", help="Decode the data set once, into memory, a byte per value."
    )
    data.add_argument(
        "--balance_causes",
        type=fraction,
        help="Share of the rows that is drawn as if the causes were independent of each other, with `--graph`.",
    )
    data.add_argument("--resolution", type=positive_int, help="Height and width of the images. Default: the model's.")
    data.add_argument("--dataloader_num_workers", type=non_negative_int, help="Processes that read data.")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model_config_name_or_path", help="JSON file with the model's architecture, to train from scratch."
    )
    model.add_argument("--pretrained_model_name_or_path", help="Model to go on from: a Hub name or a local folder.")
    model.add_argument("--subfolder", help="Folder of the model inside `--pretrained_model_name_or_path`.")
    model.add_argument("--gradient_checkpointing", action="store_true", help="Trade computation for memory.")
    model.add_argument("--torch_compile", action="store_true", help="Compile the network, with inductor.")

    if diffusion:
        schedule = parser.add_argument_group("diffusion")
        schedule.add_argument(
            "--num_train_timesteps", type=positive_int, default=1000, help="Number of diffusion steps."
        )
        schedule.add_argument(
            "--beta_schedule",
            choices=["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"],
            default="linear",
            help="Noise schedule, as in DDPMScheduler.",
        )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--train_batch_size", type=positive_int, help="Batch size per process.")
    optimisation.add_argument(
        "--gradient_accumulation_steps", type=positive_int, help="Batches of each process in one optimizer step."
    )
    optimisation.add_argument("--max_train_steps", type=positive_int, help="Optimizer steps in all.")
    optimisation.add_argument("--learning_rate", type=positive_float, help="Adam's, after the warm-up.")
    optimisation.add_argument(
        "--lr_scheduler",
        choices=LR_SCHEDULERS,
        help="Schedule of the learning rate, as in diffusers' `get_scheduler`.",
    )
    optimisation.add_argument("--lr_warmup_steps", type=non_negative_int, help="Optimizer steps of the warm-up.")
    optimisation.add_argument("--adam_beta1", type=rate, help="Decay of Adam's first moment.")
    optimisation.add_argument("--adam_beta2", type=rate, help="Decay of Adam's second moment.")
    optimisation.add_argument("--adam_weight_decay", type=non_negative_float, help="Adam's weight decay.")
    optimisation.add_argument("--adam_epsilon", type=positive_float, help="Adam's epsilon.")
    optimisation.add_argument("--max_grad_norm", type=positive_float, help="Gradients are clipped to this norm.")
    optimisation.add_argument(
        "--mixed_precision", choices=["no", "fp16", "bf16"], help="Default: accelerate's configuration."
    )
    optimisation.add_argument(
        "--use_ema", action="store_true", help="Keep an exponential moving average of the weights."
    )
    optimisation.add_argument("--ema_max_decay", type=rate, help="Ceiling of the EMA's decay.")
    optimisation.add_argument("--ema_inv_gamma", type=positive_float, help="Inverse factor of the EMA's warm-up.")
    optimisation.add_argument("--ema_power", type=positive_float, help="Power of the EMA's warm-up.")
    optimisation.add_argument("--seed", type=non_negative_int, help="Seed of weights, data order and noise.")

    output = parser.add_argument_group("checkpoints and logs")
    output.add_argument("--output_dir", required=True, help="Where the model, checkpoints and logs are written.")
    output.add_argument("--checkpointing_steps", type=positive_int, help="Optimizer steps between checkpoints.")
    output.add_argument(
        "--checkpoints_total_limit", type=positive_int, help="How many checkpoints to keep. Default: all."
    )
    output.add_argument("--resume_from_checkpoint", help="`latest`, or a checkpoint's folder.")
    output.add_argument("--validation_steps", type=positive_int, help="Optimizer steps between validations.")
    output.add_argument("--logging_steps", type=positive_int, help="Optimizer steps between entries of the log.")
    output.add_argument(
        "--dry_run", action="store_true", help="Print sizes and the first batch's shape, and neither train nor write."
    )
    output.add_argument("--report_to", help="Tracker that accelerate knows, `all` or `none`.")
    output.add_argument("--logging_dir", help="Folder of the logs inside `--output_dir`.")
    add_publication_arguments(output)

    parser.set_defaults(**{f.name: f.default for f in fields(TrainingArguments) if f.default is not MISSING})


def add_several_networks_arguments(parser: argparse.ArgumentParser):
    """
    Adds the flags of the scripts that train several small networks on clean images, one after the other. The data
    have to be labelled.

    Args:
        parser (`argparse.ArgumentParser`): The parser to add them to.
    """
    data = add_data_arguments(parser)
    data.add_argument("--train_split", default="train", help="Split to train on.")

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--train_batch_size", type=positive_int, default=128, help="Batch size.")
    optimisation.add_argument(
        "--learning_rate", type=positive_float, default=1e-3, help="Adam's, of every network, after its warm-up."
    )
    optimisation.add_argument(
        "--seed", type=non_negative_int, default=0, help="Seed of weights, data order and noise."
    )

    output = parser.add_argument_group("checkpoints")
    output.add_argument("--output_dir", required=True, help="Where the networks are written.")
    output.add_argument(
        "--checkpointing_steps", type=positive_int, default=1000, help="Optimizer steps between checkpoints."
    )
    output.add_argument(
        "--resume_from_checkpoint",
        choices=["latest"],
        help="Go on with the network that an interrupted run was at. Those that are complete are never trained again.",
    )
