# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The command line that the training scripts share, with flags spelled as in diffusers' own examples."""

import argparse

from diffusers.optimization import SchedulerType


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number of at least 1, got {text}")
    return value


def non_negative_int(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"takes a whole number of at least 0, got {text}")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a positive number, got {text}")
    return value


def non_negative_float(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"takes a number of at least 0, got {text}")
    return value


def rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"takes a number in [0, 1), got {text}")
    return value


def add_training_arguments(parser: argparse.ArgumentParser):
    """Adds data, optimisation, checkpoint and logging flags to a script's parser."""
    data = parser.add_argument_group("data")
    data.add_argument("--dataset_name", help="Data set: a Hub name or a local folder that `datasets` loads.")
    data.add_argument("--dataset_config_name", help="Configuration of the data set, where it has several.")
    data.add_argument("--train_data_dir", help="Folder of images; one subfolder per class makes them labelled.")
    data.add_argument("--train_split", default="train", help="Split to train on.")
    data.add_argument("--image_column", default="image", help="Column with the images, the effect.")
    data.add_argument(
        "--streaming", action="store_true", help="Read the data set while training, without a copy on disk."
    )
    data.add_argument(
        "--shuffle_buffer_size", type=positive_int, default=10000, help="Rows shuffled at once when streaming."
    )
    data.add_argument(
        "--cache_images", action="store_true", help="Decode the data set once, into memory, a byte per value."
    )
    data.add_argument("--cache_dir", help="Where data sets and pretrained weights are cached.")
    data.add_argument("--resolution", type=positive_int, help="Height and width of the images. Default: the model's.")
    data.add_argument("--dataloader_num_workers", type=non_negative_int, default=0, help="Processes that read data.")

    model = parser.add_argument_group("model")
    model.add_argument(
        "--model_config_name_or_path", help="JSON file with the model's architecture, to train from scratch."
    )
    model.add_argument("--pretrained_model_name_or_path", help="Model to go on from: a Hub name or a local folder.")
    model.add_argument("--subfolder", help="Folder of the model inside `--pretrained_model_name_or_path`.")
    model.add_argument("--gradient_checkpointing", action="store_true", help="Trade computation for memory.")
    model.add_argument("--torch_compile", action="store_true", help="Compile the network, with inductor.")

    diffusion = parser.add_argument_group("diffusion")
    diffusion.add_argument("--num_train_timesteps", type=positive_int, default=1000, help="Number of diffusion steps.")
    diffusion.add_argument(
        "--beta_schedule",
        choices=["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"],
        default="linear",
        help="Noise schedule, as in DDPMScheduler.",
    )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--train_batch_size", type=positive_int, default=128, help="Batch size per process.")
    optimisation.add_argument("--gradient_accumulation_steps", type=positive_int, default=1)
    optimisation.add_argument("--max_train_steps", type=positive_int, default=20000, help="Optimizer steps in all.")
    optimisation.add_argument("--learning_rate", type=positive_float, default=1e-4)
    optimisation.add_argument(
        "--lr_scheduler",
        choices=[s.value for s in SchedulerType if s != SchedulerType.PIECEWISE_CONSTANT],
        default="constant_with_warmup",
    )
    optimisation.add_argument("--lr_warmup_steps", type=non_negative_int, default=500)
    optimisation.add_argument("--adam_beta1", type=rate, default=0.9)
    optimisation.add_argument("--adam_beta2", type=rate, default=0.999)
    optimisation.add_argument("--adam_weight_decay", type=non_negative_float, default=0.0)
    optimisation.add_argument("--adam_epsilon", type=positive_float, default=1e-8)
    optimisation.add_argument("--max_grad_norm", type=positive_float, default=1.0)
    optimisation.add_argument(
        "--mixed_precision", choices=["no", "fp16", "bf16"], help="Default: accelerate's configuration."
    )
    optimisation.add_argument(
        "--use_ema", action="store_true", help="Keep an exponential moving average of the weights."
    )
    optimisation.add_argument("--ema_max_decay", type=rate, default=0.9999, help="Ceiling of the EMA's decay.")
    optimisation.add_argument(
        "--ema_inv_gamma", type=positive_float, default=1.0, help="Inverse factor of the EMA's warm-up."
    )
    optimisation.add_argument("--ema_power", type=positive_float, default=3 / 4, help="Power of the EMA's warm-up.")
    optimisation.add_argument(
        "--seed", type=non_negative_int, default=0, help="Seed of weights, data order and noise."
    )

    output = parser.add_argument_group("checkpoints and logs")
    output.add_argument("--output_dir", required=True, help="Where the model, checkpoints and logs are written.")
    output.add_argument("--checkpointing_steps", type=positive_int, default=1000)
    output.add_argument(
        "--checkpoints_total_limit", type=positive_int, help="How many checkpoints to keep. Default: all."
    )
    output.add_argument("--resume_from_checkpoint", help="`latest`, or a checkpoint's folder.")
    output.add_argument(
        "--validation_steps", type=positive_int, default=1000, help="Optimizer steps between validations."
    )
    output.add_argument(
        "--logging_steps", type=positive_int, default=10, help="Optimizer steps between entries of the log."
    )
    output.add_argument(
        "--dry_run", action="store_true", help="Print sizes and the first batch's shape, and neither train nor write."
    )
    output.add_argument("--report_to", default="tensorboard", help="Tracker that accelerate knows, `all` or `none`.")
    output.add_argument("--logging_dir", default="logs", help="Folder of the logs inside `--output_dir`.")
    output.add_argument(
        "--push_to_hub",
        action="store_true",
        help="Publish the model at the end, after `hf auth login`.",
    )
    output.add_argument("--hub_model_id", help="Repository to publish to. Default: the output folder's name.")


def add_labelled_data_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """
    Adds the data flags of scripts that decode a labelled data set into memory, and returns their group for further
    ones. `load_image_dataset` takes what they parse to, together with a `train_split`.
    """
    parser.set_defaults(streaming=False)
    data = parser.add_argument_group("data")
    data.add_argument("--dataset_name", help="Data set: a Hub name or a local folder that `datasets` loads.")
    data.add_argument("--dataset_config_name", help="Configuration of the data set, where it has several.")
    data.add_argument("--train_data_dir", help="Folder of images: a folder per split, in it a subfolder per class.")
    data.add_argument("--image_column", default="image", help="Column with the images, the effect.")
    data.add_argument("--label_column", default="label", help="Column with the class labels, the cause.")
    data.add_argument("--cache_dir", help="Where data sets and pretrained weights are cached.")
    return data
