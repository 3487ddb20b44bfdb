# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What comes after the training of a network that was saved: its card, and its repository on the Hub."""

from typing import TYPE_CHECKING

from diffscm_diffusers.hub.cards import make_component_card, save_card
from diffscm_diffusers.hub.publishing import upload_folder


if TYPE_CHECKING:
    from .trainer import Trainer


def publish_component(
    output_dir: str,
    description: str,
    script: str,
    argv: list[str],
    num_steps: int,
    split: str,
    num_processes: int = 1,
    dataset_name: str | None = None,
    train_data_dir: str | None = None,
    hub_model_id: str | None = None,
    ignore_patterns: list[str] | None = None,
):
    """
    Writes the card of a network in its output folder, and uploads the folder.

    Args:
        output_dir (`str`): The folder that the network was saved in.
        description (`str`): Markdown that says what the network is and how to load it.
        script (`str`): Name of the training script.
        argv (`list[str]`): The flags it was called with.
        num_steps (`int`): Number of optimizer steps.
        split (`str`): The split it was trained on.
        num_processes (`int`, *optional*, defaults to 1): How many processes trained it.
        dataset_name (`str`, *optional*): See [`load_image_dataset`].
        train_data_dir (`str`, *optional*): See [`load_image_dataset`].
        hub_model_id (`str`, *optional*): The repository; see [`create_repository`]. Default: nothing is uploaded.
        ignore_patterns (`list[str]`, *optional*): What of the folder is not uploaded.
    """
    card = make_component_card(
        hub_model_id or output_dir,
        description,
        script=script,
        argv=argv,
        num_processes=num_processes,
        num_steps=num_steps,
        split=split,
        dataset_name=dataset_name,
        train_data_dir=train_data_dir,
    )
    save_card(card, output_dir)
    if hub_model_id is not None:
        upload_folder(output_dir, hub_model_id, "Publish the trained model", ignore_patterns=ignore_patterns)


def publish_network(
    trainer: "Trainer",
    description: str,
    script: str,
    argv: list[str],
    split: str,
    dataset_name: str | None = None,
    train_data_dir: str | None = None,
    hub_model_id: str | None = None,
):
    """
    Writes the card of the network in a run's output folder, uploads the folder without the run's checkpoints and logs,
    and ends the run. The main process does it.

    Args:
        trainer ([`Trainer`]): The run.
        description (`str`): Markdown that says what the network is and how to load it.
        script (`str`): Name of the training script.
        argv (`list[str]`): The flags it was called with.
        split (`str`): The split it was trained on.
        dataset_name (`str`, *optional*): See [`load_image_dataset`].
        train_data_dir (`str`, *optional*): See [`load_image_dataset`].
        hub_model_id (`str`, *optional*): The repository; see [`create_repository`]. Default: nothing is uploaded.
    """
    accelerator, training_args = trainer.accelerator, trainer.training_args
    if accelerator.is_main_process:
        publish_component(
            training_args.output_dir,
            description,
            script=script,
            argv=argv,
            num_steps=training_args.max_train_steps,
            split=split,
            num_processes=accelerator.num_processes,
            dataset_name=dataset_name,
            train_data_dir=train_data_dir,
            hub_model_id=hub_model_id,
            ignore_patterns=["checkpoint-*", f"{training_args.logging_dir}/*"],
        )
    accelerator.end_training()
