# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the networks that measure counterfactuals: an oracle classifier, a variational autoencoder (VAE) for CLD, and
for IM1 and IM2 one autoencoder of all classes and one per class.

    accelerate launch train_scripts/train_metric_models.py \
        --dataset_name ylecun/mnist --output_dir outputs/mnist-metrics

`MetricModels.from_pretrained` loads the output folder. A model that is already there is not trained again, so a run
that was interrupted goes on when started anew. The data set must fit into memory.
"""

import argparse
import functools
import json
import os
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_scheduler
from tqdm.auto import tqdm

from diffscm_diffusers.data.images import ImageCollator, decode_images, load_image_dataset
from diffscm_diffusers.metrics import MetricModels
from diffscm_diffusers.metrics.networks import ImageAutoencoder, ImageClassifier, LatentVAE
from diffscm_diffusers.training.arguments import (
    add_labelled_data_arguments,
    non_negative_int,
    positive_float,
    positive_int,
)
from diffscm_diffusers.training.checkpoints import UNFINISHED_PREFIX


CONFIGS = Path(__file__).resolve().parent / "configs"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = add_labelled_data_arguments(parser)
    data.add_argument("--train_split", default="train", help="Split to train on.")
    data.add_argument("--validation_split", default="test", help="Split on which the trained models are measured.")

    models = parser.add_argument_group("models")
    for name in ("oracle", "vae", "autoencoder", "class_autoencoder"):
        models.add_argument(
            f"--{name}_config_name_or_path",
            default=str(CONFIGS / f"{name}_mnist.json"),
            help="JSON file with the architecture. Default: that for MNIST.",
        )

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--oracle_epochs", type=positive_int, default=5)
    optimisation.add_argument("--vae_epochs", type=positive_int, default=15)
    optimisation.add_argument("--autoencoder_epochs", type=positive_int, default=4)
    optimisation.add_argument("--class_autoencoder_epochs", type=positive_int, default=30)
    optimisation.add_argument("--train_batch_size", type=positive_int, default=128)
    optimisation.add_argument("--learning_rate", type=positive_float, default=1e-3, help="Adam's, of every model.")
    optimisation.add_argument(
        "--mixed_precision", choices=["no", "fp16", "bf16"], help="Default: accelerate's configuration."
    )
    optimisation.add_argument(
        "--seed", type=non_negative_int, default=0, help="Seed of weights, data order and noise."
    )
    parser.add_argument("--output_dir", required=True, help="Where the models and `metrics.json` are written.")
    return parser.parse_args(argv)


def classification_loss(model, images, labels) -> torch.Tensor:
    """Cross-entropy of the class given the image."""
    return F.cross_entropy(model(images).float(), labels)


def variational_loss(model, images, labels) -> torch.Tensor:
    """Negative evidence lower bound in nats per image."""
    return -model.elbo(images).mean()


def reconstruction_loss(model, images, labels) -> torch.Tensor:
    """Mean squared error per pixel."""
    return F.mse_loss(model(images).float(), images)


def train_unless_there(
    args, accelerator, name, model_class, config, images, labels, loss_fn, num_epochs, lr_scheduler_type
):
    """
    Trains a model with Adam and writes it, complete before it gets its name, into the folder `name` of the output
    folder. One that is already there stays, if it has this configuration.
    """
    # Each model starts from the seed, whether or not others were trained before it in this process.
    set_seed(args.seed)
    model = model_class.from_config(config)
    folder = Path(args.output_dir, name)
    if folder.exists():
        wanted, found = json.loads(model.to_json_string()), model_class.load_config(folder)
        differing = sorted(key for key, value in wanted.items() if key[0] != "_" and found.get(key) != value)
        if differing:
            raise ValueError(
                f"`--output_dir` holds {name!r} of another configuration: {differing} differ. Remove it, or take "
                "another folder."
            )
        tqdm.write(f"{name} is already there.")
        return

    # Convolutions of few channels are up to twice as fast on CPUs in this layout.
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    num_steps = num_epochs * -(-len(images) // args.train_batch_size)
    lr_scheduler = get_scheduler(
        lr_scheduler_type, optimizer, num_warmup_steps=num_steps // 10, num_training_steps=num_steps
    )
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    generator = torch.Generator().manual_seed(args.seed)
    with tqdm(total=num_steps, desc=name) as bar:
        for _ in range(num_epochs):
            for rows in torch.randperm(len(images), generator=generator).split(args.train_batch_size):
                with accelerator.autocast():
                    loss = loss_fn(model, images[rows].to(accelerator.device), labels[rows].to(accelerator.device))
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                lr_scheduler.step()
                bar.set_postfix(loss=loss.item(), refresh=False)
                bar.update()
    if not loss.isfinite():
        raise FloatingPointError(f"The last loss of {name} is {loss.item()}: try a lower `--learning_rate`.")

    unfinished = Path(args.output_dir, UNFINISHED_PREFIX + "model")
    shutil.rmtree(unfinished, ignore_errors=True)
    model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.to(memory_format=torch.contiguous_format).save_pretrained(unfinished)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, folder)


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
    for c, name in models.oracle.id2label.items():
        error = measure_error(models.class_autoencoders[c])
        results["class_autoencoders"][name] = {
            "reconstruction_error": error[labels == c].mean().item(),
            "reconstruction_error_of_other_classes": error[labels != c].mean().item(),
        }
    return results


def main(argv=None):
    args = parse_args(argv)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    if accelerator.num_processes > 1:
        raise ValueError(f"The metric models train in one process, got {accelerator.num_processes}.")
    splits = load_image_dataset(args, args.label_column)
    if args.validation_split not in splits:
        raise ValueError(
            f"`--validation_split` names {args.validation_split!r}, but the data set has {sorted(splits)}."
        )
    names = splits[args.train_split].features[args.label_column].names

    oracle_config = ImageClassifier.load_config(args.oracle_config_name_or_path)
    oracle_config.update(num_classes=len(names), id2label={str(i): name for i, name in enumerate(names)})
    vae_config = LatentVAE.load_config(args.vae_config_name_or_path)
    autoencoder_config = ImageAutoencoder.load_config(args.autoencoder_config_name_or_path)
    class_autoencoder_config = ImageAutoencoder.load_config(args.class_autoencoder_config_name_or_path)
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
    images, labels = decode_images(splits[args.train_split], collate, "Reading training images")
    absent = [name for c, name in enumerate(names) if not (labels == c).any()]
    if absent:
        raise ValueError(f"`--train_split` {args.train_split!r} holds no image of the classes {absent}.")

    train = functools.partial(train_unless_there, args, accelerator)
    train("oracle", ImageClassifier, oracle_config, images, labels, classification_loss, args.oracle_epochs, "cosine")
    train("vae", LatentVAE, vae_config, images, labels, variational_loss, args.vae_epochs, "cosine")
    settings = reconstruction_loss, args.autoencoder_epochs, "constant"
    train("autoencoder", ImageAutoencoder, autoencoder_config, images, labels, *settings)
    settings = reconstruction_loss, args.class_autoencoder_epochs, "constant"
    for c in range(len(names)):
        of_class = labels == c
        train(
            f"class_autoencoders/{c}",
            ImageAutoencoder,
            class_autoencoder_config,
            images[of_class],
            labels[of_class],
            *settings,
        )

    models = MetricModels.from_pretrained(args.output_dir).to(accelerator.device)
    validation_data = decode_images(splits[args.validation_split], collate, "Reading validation images")
    results = json.dumps(measure(models, *validation_data, args.seed), indent=2)
    Path(args.output_dir, "metrics.json").write_text(results + "\n")
    print(results)


if __name__ == "__main__":
    main()
