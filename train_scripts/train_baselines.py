# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the networks of the methods that Diff-SCM is compared with (paper, Sec. 5) as their authors did.

    python train_scripts/train_baselines.py --dataset_name ylecun/mnist --output_dir outputs/mnist-baselines

The output folder holds a `VanLooverenKlaisePipeline` in `van_looveren_klaise` and a `SchutPipeline` in `schut`. A
network that an earlier run has completed there is not trained again, so both `--settings` cost one training.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from tqdm.auto import tqdm

from diffscm_diffusers.baselines import ClassPrototypes, SchutPipeline, VanLooverenKlaisePipeline
from diffscm_diffusers.data.images import ImageCollator, decode_images, load_image_dataset
from diffscm_diffusers.metrics.networks import ImageAutoencoder, ImageClassifier, MLPEnsemble
from diffscm_diffusers.training.arguments import (
    add_labelled_data_arguments,
    non_negative_int,
    positive_float,
    positive_int,
)
from diffscm_diffusers.training.components import save_whole


CONFIGS = Path(__file__).resolve().parent / "configs"

# "tuned" is chosen by hand on MNIST's validation images, for a low CLD at an effectiveness of at least 99 %
# (docs/results.md). "published" is the pipelines' defaults.
SETTINGS = {
    "published": {"van_looveren_klaise": {}, "schut": {}},
    "tuned": {
        "van_looveren_klaise": {
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = add_labelled_data_arguments(parser)
    data.add_argument("--train_split", default="train", help="Split to train on.")
    data.add_argument(
        "--num_validation_images",
        type=positive_int,
        default=5000,
        help="The last images of the split, left for validation: no network is trained on them.",
    )

    models = parser.add_argument_group("models")
    for flag, file in (
        ("classifier", "van_looveren_klaise_classifier_mnist.json"),
        ("autoencoder", "autoencoder_mnist.json"),
        ("ensemble", "mlp_ensemble_mnist.json"),
    ):
        models.add_argument(
            f"--{flag}_config_name_or_path",
            default=str(CONFIGS / file),
            help="JSON file with the architecture. Default: that for MNIST.",
        )

    models.add_argument(
        "--settings", choices=list(SETTINGS), default="tuned", help="Settings of the methods themselves."
    )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--classifier_epochs", type=positive_int, default=3)
    optimisation.add_argument("--autoencoder_epochs", type=positive_int, default=4)
    optimisation.add_argument(
        "--ensemble_epochs", type=positive_int, default=12, help="Of the ensemble; its authors took 100."
    )
    optimisation.add_argument(
        "--adversarial_step", type=positive_float, default=0.15, help="Step of the ensemble's adversarial training."
    )
    optimisation.add_argument("--train_batch_size", type=positive_int, default=128)
    optimisation.add_argument("--learning_rate", type=positive_float, default=1e-3, help="Adam's, of every network.")
    optimisation.add_argument(
        "--seed", type=non_negative_int, default=0, help="Seed of weights, data order and dropout."
    )
    parser.add_argument("--output_dir", required=True, help="Where the two methods are written.")
    return parser.parse_args(argv)


def classification_loss(classifier, images, labels) -> torch.Tensor:
    """Cross-entropy of the class given the image."""
    return F.cross_entropy(classifier(images), labels)


def reconstruction_loss(autoencoder, images, labels) -> torch.Tensor:
    """Mean squared error per pixel."""
    return F.mse_loss(autoencoder(images), images)


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


def load_or_train(
    args, folder, model_class, config, train_data, validation_data, loss_fn, validation_fn, num_epochs, num_orders=()
) -> ModelMixin:
    """
    Loads a network if an earlier run completed it; else trains it with Adam and saves it.

    Args:
        loss_fn (`Callable`): `loss_fn(model, images, labels)` gives the scalar to minimise.
        validation_fn (`Callable`): `validation_fn(model, images, labels)` gives one number per image; its mean over
            the validation images is printed after each epoch.
        num_orders (`tuple[int]`, *optional*, defaults to `()`):
            `(num_members,)` shows the images to each member of an ensemble in an order of its own.
    """
    if (folder / SAFETENSORS_WEIGHTS_NAME).exists():
        tqdm.write(f"{folder} is already there.")
        return model_class.from_pretrained(folder)
    # Each network starts from the seed, whether or not others were trained before it in this process.
    set_seed(args.seed)
    # Convolutions with few channels are up to twice as fast on CPUs in this layout.
    model = model_class.from_config(config).to(Accelerator().device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    images, labels = train_data
    for epoch in range(1, num_epochs + 1):
        model.train()
        order = torch.rand(*num_orders, len(images)).argsort(dim=-1)
        for rows in tqdm(order.split(args.train_batch_size, dim=-1), desc=f"{folder.name}, epoch {epoch}"):
            loss = loss_fn(model, images[rows].to(model.device), labels[rows].to(model.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not loss.isfinite():
            raise FloatingPointError(f"{folder.name}: the loss is {loss.item()}. Try a lower `--learning_rate`.")
        model.eval()
        with torch.no_grad():
            results = [
                validation_fn(model, *(tensor.to(model.device) for tensor in batch))
                for batch in zip(*(tensor.split(args.train_batch_size) for tensor in validation_data), strict=True)
            ]
        measure = validation_fn.__name__.replace("_", " ")
        tqdm.write(f"{folder.name}, epoch {epoch}: {measure} {torch.cat(results).mean():.4f}")
    save_whole(model, folder)
    return model


def main(argv=None):
    args = parse_args(argv)
    dataset = load_image_dataset(args, args.label_column)[args.train_split]
    num_train_images = len(dataset) - args.num_validation_images
    if num_train_images < 1:
        raise ValueError(
            f"`--num_validation_images` takes less than the {len(dataset)} images of the split, got "
            f"{args.num_validation_images}."
        )
    names = dataset.features[args.label_column].names
    classes = {"num_classes": len(names), "id2label": {str(i): name for i, name in enumerate(names)}}
    # Made once to check them before anything is trained, and for their defaults.
    classifier_config = ImageClassifier.from_config(
        ImageClassifier.load_config(args.classifier_config_name_or_path), **classes
    ).config
    autoencoder_config = ImageAutoencoder.from_config(
        ImageAutoencoder.load_config(args.autoencoder_config_name_or_path)
    ).config
    ensemble_config = MLPEnsemble.from_config(
        MLPEnsemble.load_config(args.ensemble_config_name_or_path), **classes
    ).config

    size, channels = classifier_config.sample_size, classifier_config.in_channels
    collate = ImageCollator(size, channels, args.image_column, args.label_column)
    images, labels = decode_images(dataset, collate, "Reading images")
    train_data = images[:num_train_images], labels[:num_train_images]
    validation_data = images[num_train_images:], labels[num_train_images:]

    folder = Path(args.output_dir, "van_looveren_klaise")
    classifier = load_or_train(
        args,
        folder / "classifier",
        ImageClassifier,
        classifier_config,
        train_data,
        validation_data,
        classification_loss,
        accuracy,
        args.classifier_epochs,
    )
    autoencoder = load_or_train(
        args,
        folder / "autoencoder",
        ImageAutoencoder,
        autoencoder_config,
        train_data,
        validation_data,
        reconstruction_loss,
        reconstruction_error,
        args.autoencoder_epochs,
    )
    with torch.no_grad():
        encodings = torch.cat(
            [autoencoder.encode(batch.to(autoencoder.device)) for batch in train_data[0].split(1000)]
        )
    prototypes = ClassPrototypes(len(names), encodings.shape[1:])
    prototypes.fit(encodings.cpu(), train_data[1])
    settings = SETTINGS[args.settings]["van_looveren_klaise"]
    save_whole(VanLooverenKlaisePipeline(classifier, autoencoder, prototypes, **settings), folder)

    folder = Path(args.output_dir, "schut")
    ensemble = load_or_train(
        args,
        folder / "classifier",
        MLPEnsemble,
        ensemble_config,
        train_data,
        validation_data,
        partial(adversarial_loss, step=args.adversarial_step),
        ensemble_accuracy,
        args.ensemble_epochs,
        num_orders=(ensemble_config.num_members,),
    )
    save_whole(SchutPipeline(ensemble, **SETTINGS[args.settings]["schut"]), folder)


if __name__ == "__main__":
    main()
