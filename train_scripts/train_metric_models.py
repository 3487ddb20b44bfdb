# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the networks that measure counterfactuals: an oracle classifier, a variational autoencoder (VAE) for CLD, and
for IM1 and IM2 one autoencoder of all classes and one per class.

    accelerate launch train_scripts/train_metric_models.py \
        --dataset_name ylecun/mnist --output_dir outputs/mnist-metrics

`MetricModels.from_pretrained` loads the output folder. A network that is complete there is not trained again, so a run
that was interrupted goes on when started anew; with `--resume_from_checkpoint latest` also in the middle of a network.
The data set must fit into memory, a byte per value.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser, bad_input_in_one_line, positive_int
from diffscm_diffusers.refusals import check_data_source, check_name_or_path, check_output_dir, refuse_early
from diffscm_diffusers.training.arguments import TrainingArguments, add_several_networks_arguments


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
from accelerate import PartialState
from torch.utils.data import Subset
from tqdm.auto import tqdm

from diffscm_diffusers.data.classes import check_every_class, unique_names
from diffscm_diffusers.data.images import DecodedImages, ImageCollator, check_split, load_flagged_dataset
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.metrics.networks import ImageAutoencoder, ImageClassifier, LatentVAE
from diffscm_diffusers.training.components import is_trained, load_model_config, record_training, save_trained
from diffscm_diffusers.training.losses import classification_loss, reconstruction_loss
from diffscm_diffusers.training.run_record import describe_run, fingerprint_data
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


CONFIGS = Path(__file__).resolve().parent / "configs"


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_several_networks_arguments(parser)
    parser.add_argument("--validation_split", default="test", help="Split on which the networks are measured.")
    parser.add_argument(
        "--mixed_precision", choices=["no", "fp16", "bf16"], help="Default: accelerate's configuration."
    )
    for name, epochs in (("oracle", 5), ("vae", 15), ("autoencoder", 4), ("class_autoencoder", 30)):
        parser.add_argument(
            f"--{name}_config_name_or_path",
            default=str(CONFIGS / f"{name}_mnist.json"),
            help="JSON file with the architecture. Default: that for MNIST.",
        )
        parser.add_argument(f"--{name}_epochs", type=positive_int, default=epochs, help="Epochs of its training.")
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used."""
    check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    check_output_dir(args.output_dir)
    for name in ("oracle", "vae", "autoencoder", "class_autoencoder"):
        flag = f"{name}_config_name_or_path"
        check_name_or_path(flag, getattr(args, flag), "the JSON file of a network")


def variational_loss(vae, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative evidence lower bound in nats per image."""
    return -vae.elbo(images).mean()


def train(args, name, model_class, config, dataset, loss_fn, num_epochs, lr_scheduler):
    """Trains a network and writes it to the folder `name` of the output folder, unless an earlier run has."""
    folder = Path(args.output_dir, name)
    batch_size = min(args.train_batch_size, len(dataset))
    num_steps = num_epochs * (len(dataset) // batch_size)
    training_args = TrainingArguments(
        output_dir=Path(args.output_dir, "checkpoints", name),
        train_batch_size=batch_size,
        max_train_steps=num_steps,
        learning_rate=args.learning_rate,
        lr_scheduler=lr_scheduler,
        lr_warmup_steps=num_steps // 10,
        max_grad_norm=math.inf,
        mixed_precision=args.mixed_precision,
        checkpointing_steps=args.checkpointing_steps,
        checkpoints_total_limit=1,
        resume_from_checkpoint=args.resume_from_checkpoint,
        report_to="none",
        seed=args.seed,
    )
    # Each network starts from the seed, whether or not others were trained before it in this process.
    accelerator = create_accelerator(training_args)
    # Convolutions of few channels are up to twice as fast on CPUs in this layout.
    model = model_class.from_config(config).to(memory_format=torch.channels_last)
    record_training(model, value_range=(0, 1))
    record = describe_run(
        training_args, {}, model, fingerprint_data(dataset, None), 1, accelerator.mixed_precision, is_finished=True
    )
    if is_trained(folder, record):
        tqdm.write(f"{name} is already there.")
        return
    trainer = Trainer(accelerator, model, dataset, training_args, description=name)
    for batch in trainer.batches():
        images = batch["pixel_values"] / 2 + 0.5
        with trainer.accumulate():
            with accelerator.autocast():
                loss = loss_fn(trainer.network, images, batch["labels"])
            trainer.backward(loss)
            trainer.step()

    with trainer.averaged_model() as model:
        save_trained(model.to(memory_format=torch.contiguous_format), folder, record)
    shutil.rmtree(Path(args.output_dir, "checkpoints"))


@torch.no_grad()
def measure(models: MetricModels, images: torch.Tensor, labels: torch.Tensor, seed: int) -> dict:
    """
    Accuracy of the oracle, evidence lower bound of the VAE (nats per image), and mean squared errors per pixel of all
    reconstructions; those of each class's autoencoder on images of its own class and on all others.
    """
    generator = torch.Generator().manual_seed(seed)
    device = models.vae.device
    batches = list(zip(images.split(500), labels.split(500), strict=True))

    def measure_all(quantity):
        return torch.cat([quantity(batch.to(device), batch_labels.to(device)) for batch, batch_labels in batches])

    def measure_error(model):
        return measure_all(lambda batch, _: (model(batch) - batch).square().mean(dim=(1, 2, 3))).cpu()

    results = {
        "oracle": {"accuracy": measure_all(lambda x, y: models.oracle(x).argmax(dim=1) == y).float().mean().item()},
        "vae": {
            "elbo": measure_all(lambda x, _: models.vae.elbo(x, generator)).mean().item(),
            "reconstruction_error": measure_error(models.vae).mean().item(),
        },
        "autoencoder": {"reconstruction_error": measure_error(models.autoencoder).mean().item()},
        "class_autoencoders": {},
    }
    for c, name in enumerate(unique_names(models.oracle.id2label)):
        error = measure_error(models.class_autoencoders[c])
        results["class_autoencoders"][name] = {
            "reconstruction_error": error[labels == c].mean().item(),
            "reconstruction_error_of_other_classes": error[labels != c].mean().item(),
        }
    return results


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    with locked(args.output_dir):
        train_all(args)


def train_all(args):
    """Trains the networks one after the other."""
    state = PartialState()
    if state.num_processes > 1:
        raise ValueError(f"The metric models are expected to train in one process, got {state.num_processes}.")
    splits = load_flagged_dataset(args, "train_split", args.label_column)
    check_split(splits, args.validation_split, "--validation_split")
    names = splits[args.train_split].features[args.label_column].names

    oracle_config = load_model_config(ImageClassifier, args.oracle_config_name_or_path, "oracle_config_name_or_path")
    oracle_config.update(num_classes=len(names), id2label={str(i): name for i, name in enumerate(names)})
    vae_config = load_model_config(LatentVAE, args.vae_config_name_or_path, "vae_config_name_or_path")
    autoencoder_config = load_model_config(
        ImageAutoencoder, args.autoencoder_config_name_or_path, "autoencoder_config_name_or_path"
    )
    class_autoencoder_config = load_model_config(
        ImageAutoencoder, args.class_autoencoder_config_name_or_path, "class_autoencoder_config_name_or_path"
    )
    # Refuses models that do not fit together before any is trained.
    with torch.device("meta"):
        untrained = MetricModels(
            LatentVAE.from_config(vae_config),
            ImageAutoencoder.from_config(autoencoder_config),
            torch.nn.ModuleList(ImageAutoencoder.from_config(class_autoencoder_config) for _ in names),
            ImageClassifier.from_config(oracle_config),
        )

    image_shape = untrained.vae.config.sample_size, untrained.vae.config.in_channels
    collate = ImageCollator(*image_shape, args.image_column, args.label_column)
    for argument in ("train_split", "validation_split"):
        split = getattr(args, argument)
        check_every_class(splits[split][args.label_column][:], names, argument, split)
    images = DecodedImages(splits[args.train_split], collate, "Reading training images")
    of_class = [Subset(images, (images.classes == c).nonzero().flatten().tolist()) for c in range(len(names))]

    train(args, "oracle", ImageClassifier, oracle_config, images, classification_loss, args.oracle_epochs, "cosine")
    train(args, "vae", LatentVAE, vae_config, images, variational_loss, args.vae_epochs, "cosine")
    settings = reconstruction_loss, args.autoencoder_epochs, "constant"
    train(args, "autoencoder", ImageAutoencoder, autoencoder_config, images, *settings)
    settings = reconstruction_loss, args.class_autoencoder_epochs, "constant"
    for c, subset in enumerate(of_class):
        train(args, f"class_autoencoders/{c}", ImageAutoencoder, class_autoencoder_config, subset, *settings)

    models = MetricModels.from_pretrained(args.output_dir).to(state.device)
    validation_data = DecodedImages(splits[args.validation_split], collate, "Reading validation images")
    measured = measure(models, validation_data.images(slice(None)), validation_data.classes, args.seed)
    results = json.dumps(measured, indent=2, allow_nan=False)
    with written_whole(Path(args.output_dir, "metrics.json")) as unfinished:
        unfinished.write_text(results + "\n")
    print(results)


if __name__ == "__main__":
    with bad_input_in_one_line(Path(__file__).name):
        main()
