# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the networks of the methods that Diff-SCM is compared with (paper, Sec. 5) as their authors did.

    python train_scripts/train_baselines.py --dataset_name ylecun/mnist --output_dir outputs/mnist-baselines

The output folder holds a `VanLooverenKlaisePipeline` in `van-looveren-klaise` and a `SchutPipeline` in `schut`. A
network that is complete there is not trained again, so both `--settings` cost one training, and a run that was
interrupted goes on when started anew; with `--resume_from_checkpoint latest` also in the middle of a network.
"""

import argparse
import math
import shutil
from functools import partial
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser, bad_input_in_one_line, positive_float, positive_int
from diffscm_diffusers.refusals import check_data_source, check_name_or_path, check_output_dir, refuse_early
from diffscm_diffusers.training.arguments import TrainingArguments, add_several_networks_arguments


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch.utils.data import Dataset, Subset
from tqdm.auto import tqdm

from diffscm_diffusers.baselines import ClassPrototypes, SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.data.classes import check_every_class
from diffscm_diffusers.data.images import DecodedImages, ImageCollator, load_flagged_dataset
from diffscm_diffusers.data.samples import draw_numbers
from diffscm_diffusers.files import load_whole, locked, save_whole
from diffscm_diffusers.metrics.networks import ImageAutoencoder, ImageClassifier, MLPEnsemble
from diffscm_diffusers.training.components import is_trained, load_model_config, record_training, save_trained
from diffscm_diffusers.training.losses import classification_loss, reconstruction_loss
from diffscm_diffusers.training.run_record import describe_run, fingerprint_data
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


CONFIGS = Path(__file__).resolve().parent / "configs"

# "tuned" is chosen by hand on MNIST's validation images, for a low CLD at an effectiveness of at least 99 %
# (docs/results.md). "published" is the pipelines' defaults.
SETTINGS = {
    "published": {"van-looveren-klaise": {}, "schut": {}},
    "tuned": {
        "van-looveren-klaise": {
            "kappa": 0.999,
            "beta": 0.001,
            "c_init": 1000.0,
            "c_steps": 1,
            "max_iterations": 50,
            "learning_rate": 0.0005,
        },
        "schut": {"confidence": 0.999999, "step_size": 0.5, "max_changes_per_pixel": 2},
    },
}


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_several_networks_arguments(parser)
    parser.add_argument(
        "--num_validation_images",
        type=positive_int,
        default=5000,
        help="Images of the split that are left for validation, of every class: no network is trained on them.",
    )
    for name, file, epochs, note in (
        ("classifier", "van_looveren_klaise_classifier_mnist.json", 3, ""),
        ("autoencoder", "autoencoder_mnist.json", 4, ""),
        ("ensemble", "mlp_ensemble_mnist.json", 12, " Its authors took 100."),
    ):
        parser.add_argument(
            f"--{name}_config_name_or_path",
            default=str(CONFIGS / file),
            help="JSON file with the architecture. Default: that for MNIST.",
        )
        parser.add_argument(
            f"--{name}_epochs", type=positive_int, default=epochs, help=f"Epochs of its training.{note}"
        )
    parser.add_argument(
        "--adversarial_step", type=positive_float, default=0.15, help="Step of the ensemble's adversarial training."
    )
    parser.add_argument(
        "--settings", choices=list(SETTINGS), default="tuned", help="Settings of the methods themselves."
    )
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used."""
    check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    check_output_dir(args.output_dir)
    for name in ("classifier", "autoencoder", "ensemble"):
        flag = f"{name}_config_name_or_path"
        check_name_or_path(flag, getattr(args, flag), "the JSON file of a network")


class MemberImages(Dataset):
    """
    Shows the images of a data set to each member of an ensemble in an order of its own.

    Args:
        dataset (`torch.utils.data.Dataset`): Gives whole batches by `__getitems__`.
        num_members (`int`): Number of members.
        seed (`int`): Seed of the members' orders.
    """

    def __init__(self, dataset: Dataset, num_members: int, seed: int):
        self.dataset = dataset
        generator = torch.Generator().manual_seed(seed)
        self.orders = torch.rand(num_members, len(dataset), generator=generator).argsort(dim=-1)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = self.orders[:, indices]
        batch = self.dataset.__getitems__(rows.flatten().tolist())
        return {name: value.unflatten(0, rows.shape) for name, value in batch.items()}


def adversarial_loss(ensemble, images, labels, step: float) -> torch.Tensor:
    """
    Cross-entropy, summed over the members, on clean images and on their adversaries by the fast gradient sign method
    ([Goodfellow et al., 2015](https://huggingface.co/papers/1412.6572)), which each member makes for itself.

    Args:
        ensemble ([`MLPEnsemble`]): The members.
        images (`torch.Tensor` of shape `(num_members, batch, channels, height, width)`): Each member's images.
        labels (`torch.Tensor` of shape `(num_members, batch)`): Their classes.
        step (`float`): How far an adversary's pixels are from the clean image's.
    """
    images.requires_grad_()
    loss = F.cross_entropy(ensemble(images).flatten(0, 1), labels.flatten(), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    images = images.detach()
    adversaries = (images + step * gradient.sign()).clamp(0, 1)
    logits = ensemble(torch.cat([images, adversaries], dim=1))
    labels = torch.cat([labels, labels], dim=1)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]


def accuracy(classifier, images, labels) -> torch.Tensor:
    """1 where the classifier is right, 0 where it is not."""
    return (classifier(images).argmax(dim=-1) == labels).float()


def ensemble_accuracy(ensemble, images, labels) -> torch.Tensor:
    """1 where the members' mean probability is right, 0 where it is not."""
    return (ensemble(images).softmax(dim=-1).mean(dim=0).argmax(dim=-1) == labels).float()


def reconstruction_error(autoencoder, images, labels) -> torch.Tensor:
    """Mean squared error per pixel of each image."""
    return (autoencoder(images) - images).square().mean(dim=(1, 2, 3))


def train(args, name, model_class, config, dataset, validation_data, loss_fn, validation_fn, num_epochs):
    """
    Trains a network and writes it to the folder `name` of the output folder, unless an earlier run has.

    `loss_fn(model, images, labels)` gives the scalar to minimise, `validation_fn(model, images, labels)` one number
    per image; its mean over the validation images is printed after each epoch.
    """
    folder = Path(args.output_dir, name)
    batch_size = min(args.train_batch_size, len(dataset))
    steps_per_epoch = len(dataset) // batch_size
    training_args = TrainingArguments(
        output_dir=Path(args.output_dir, "checkpoints", name),
        train_batch_size=batch_size,
        max_train_steps=num_epochs * steps_per_epoch,
        learning_rate=args.learning_rate,
        lr_scheduler="constant",
        max_grad_norm=math.inf,
        mixed_precision="no",
        checkpointing_steps=args.checkpointing_steps,
        checkpoints_total_limit=1,
        resume_from_checkpoint=args.resume_from_checkpoint,
        validation_steps=steps_per_epoch,
        report_to="none",
        seed=args.seed,
    )
    # Each network starts from the seed, whether or not others were trained before it in this process.
    accelerator = create_accelerator(training_args)
    # Convolutions with few channels are up to twice as fast on CPUs in this layout.
    model = model_class.from_config(config).to(memory_format=torch.channels_last)
    record_training(model, value_range=(0, 1))
    record = describe_run(
        training_args,
        {"adversarial_step": args.adversarial_step},
        model,
        fingerprint_data(dataset, None),
        1,
        accelerator.mixed_precision,
        is_finished=True,
    )
    if is_trained(folder, record):
        tqdm.write(f"{name} is already there.")
        return
    trainer = Trainer(
        accelerator, model, dataset, training_args, description=name, flags={"adversarial_step": args.adversarial_step}
    )
    for batch in trainer.batches():
        images = batch["pixel_values"] / 2 + 0.5
        with trainer.accumulate():
            loss = loss_fn(trainer.network, images, batch["labels"])
            trainer.backward(loss)
            trainer.step()

        if trainer.should_validate:
            with trainer.averaged_model() as model, torch.no_grad():
                results = [
                    validation_fn(model, *(tensor.to(model.device) for tensor in batch))
                    for batch in zip(*(tensor.split(batch_size) for tensor in validation_data), strict=True)
                ]
            measure = validation_fn.__name__.replace("_", " ")
            epoch = trainer.global_step // steps_per_epoch
            tqdm.write(f"{name}, epoch {epoch}: {measure} {torch.cat(results).mean():.4f}")

    with trainer.averaged_model() as model:
        save_trained(model, folder, record)
    shutil.rmtree(Path(args.output_dir, "checkpoints"))


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    with locked(args.output_dir):
        train_all(args)


def train_all(args):
    """Trains the networks one after the other."""
    state = PartialState()
    if state.num_processes > 1:
        raise ValueError(f"The baselines are expected to train in one process, got {state.num_processes}.")
    dataset = load_flagged_dataset(args, "train_split", args.label_column)[args.train_split]
    if args.num_validation_images >= len(dataset):
        raise ValueError(
            f"`--num_validation_images` expects less than the {len(dataset)} images of the split, got "
            f"{args.num_validation_images}."
        )
    names = dataset.features[args.label_column].names
    labels = dataset[args.label_column][:]
    validation_rows = draw_numbers(labels, args.num_validation_images, args.seed, "num_validation_images")
    train_rows = sorted(set(range(len(dataset))) - set(validation_rows))
    check_every_class([labels[row] for row in train_rows], names, "train_split", args.train_split)
    classes = {"num_classes": len(names), "id2label": {str(i): name for i, name in enumerate(names)}}
    # Made once to check them before anything is trained, and for their defaults.
    classifier_config = ImageClassifier.from_config(
        load_model_config(ImageClassifier, args.classifier_config_name_or_path, "classifier_config_name_or_path"),
        **classes,
    ).config
    autoencoder_config = ImageAutoencoder.from_config(
        load_model_config(ImageAutoencoder, args.autoencoder_config_name_or_path, "autoencoder_config_name_or_path")
    ).config
    ensemble_config = MLPEnsemble.from_config(
        load_model_config(MLPEnsemble, args.ensemble_config_name_or_path, "ensemble_config_name_or_path"), **classes
    ).config

    size, channels = classifier_config.sample_size, classifier_config.in_channels
    collate = ImageCollator(size, channels, args.image_column, args.label_column)
    images = DecodedImages(dataset, collate, "Reading images")
    train_data = Subset(images, train_rows)
    validation_data = images.images(validation_rows), images.classes[validation_rows]

    folder = Path(args.output_dir, "van-looveren-klaise")
    train(
        args,
        "van-looveren-klaise/classifier",
        ImageClassifier,
        classifier_config,
        train_data,
        validation_data,
        classification_loss,
        accuracy,
        args.classifier_epochs,
    )
    train(
        args,
        "van-looveren-klaise/autoencoder",
        ImageAutoencoder,
        autoencoder_config,
        train_data,
        validation_data,
        reconstruction_loss,
        reconstruction_error,
        args.autoencoder_epochs,
    )
    classifier = load_whole(ImageClassifier, folder / "classifier")
    autoencoder = load_whole(ImageAutoencoder, folder / "autoencoder").to(state.device)
    with torch.no_grad():
        batches = images.images(train_rows).split(1000)
        encodings = torch.cat([autoencoder.encode(batch.to(state.device)).cpu() for batch in batches])
    prototypes = ClassPrototypes(len(names), encodings.shape[1:])
    prototypes.fit(encodings, images.classes[train_rows])
    settings = SETTINGS[args.settings]["van-looveren-klaise"]
    save_whole(VanLooverenKlaisePipeline(classifier, autoencoder, prototypes, **settings), folder)

    train(
        args,
        "schut/classifier",
        MLPEnsemble,
        ensemble_config,
        MemberImages(train_data, ensemble_config.num_members, args.seed),
        validation_data,
        partial(adversarial_loss, step=args.adversarial_step),
        ensemble_accuracy,
        args.ensemble_epochs,
    )
    folder = Path(args.output_dir, "schut")
    ensemble = load_whole(MLPEnsemble, folder / "classifier")
    save_whole(SchutPipeline(ensemble, **SETTINGS[args.settings]["schut"]), folder)


if __name__ == "__main__":
    with bad_input_in_one_line(Path(__file__).name):
        main()
