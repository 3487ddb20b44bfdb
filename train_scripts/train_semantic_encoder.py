# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the encoder and decoder of the semantic code: a conditional variational autoencoder whose code says nothing
about the causes.

    accelerate launch train_scripts/train_semantic_encoder.py \
        --dataset_name outputs/typeface \
        --model_config_name_or_path train_scripts/configs/encoder_mnist.json \
        --train_batch_size 128 --max_train_steps 4500 --mixed_precision bf16 --cache_images \
        --use_ema --ema_max_decay 0.999 --output_dir outputs/typeface-encoder

The output folder is a `SemanticEncoder2DModel`. The cause is the class of `--label_column` or, with `--graph`, all
parents of the image in a causal graph, each in the column of its name.
"""

import argparse
import math
import sys
from pathlib import Path

from diffscm_diffusers.flags import (
    ArgumentParser,
    bad_input_in_one_line,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    value_of,
)
from diffscm_diffusers.refusals import refuse_early
from diffscm_diffusers.training.arguments import TrainingArguments, add_training_arguments, check_flags


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
from tqdm.auto import tqdm

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import ImageCollator, check_split, load_flagged_dataset
from diffscm_diffusers.data.samples import draw_rows
from diffscm_diffusers.files import save_whole
from diffscm_diffusers.hub.publishing import create_repository
from diffscm_diffusers.models import SemanticEncoder2DModel
from diffscm_diffusers.training.balance import balance_causes
from diffscm_diffusers.training.components import create_model, record_training
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.independence import CauseAdversary, cause_features, code_kernel, dependence
from diffscm_diffusers.training.pictures import log_picture, make_picture
from diffscm_diffusers.training.publication import publish_network
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


DESCRIPTION = """
A semantic code of images given their causes, and the images that a code means under any causes: what an intervention
keeps, as part of the exogenous noise of a diffusion causal model.

```python
from diffscm_diffusers import SemanticEncoder2DModel

encoder = SemanticEncoder2DModel.from_pretrained("{name}")
```

`train_code_mechanism.py` takes out of the code what the causes made. A denoiser is trained given the decoded code
(`train_diffusion.py --encoder`), and both are joined by `diffscm join-checkpoint`.
""".strip()


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser, labels=True, diffusion=False)
    parser.add_argument(
        "--graph", help="JSON file of a causal graph. Its image's parents are the causes, instead of `--label_column`."
    )
    parser.add_argument("--code_dim", type=positive_int, help="Length of the code. Default: the configuration's.")
    parser.add_argument(
        "--num_corrections",
        type=non_negative_int,
        help="How often the encoder corrects a code by what its decoded image is read as. Default: the model's.",
    )
    parser.add_argument(
        "--gain_causes",
        nargs="+",
        metavar="CAUSE",
        help="Causes that make decoded images brighter or darker and change nothing else. Default: the model's.",
    )
    parser.add_argument(
        "--sigma",
        type=positive_float,
        default=0.1,
        help="Standard deviation of a pixel in [0, 1] around the decoded one. A smaller one makes a richer code.",
    )
    parser.add_argument(
        "--likelihood",
        choices=["gaussian", "laplace"],
        default="gaussian",
        help="Law of a pixel around the decoded one, which is so its mean or its median. Medians have sharper edges.",
    )
    parser.add_argument(
        "--residual_std",
        type=positive_float,
        help="Standard deviation of images around decoded ones, in units of half a decoded image's range. A denoiser "
        "then predicts only what such a normal law does not. Default: the model's, or else it predicts all.",
    )
    parser.add_argument(
        "--adversary_weight",
        type=non_negative_float,
        default=15.0,
        help="What the encoder pays for each nat by which the adversary's answer differs from the marginal.",
    )
    parser.add_argument(
        "--adversary_learning_rate", type=positive_float, default=2e-3, help="Adam's, of the adversary."
    )
    parser.add_argument(
        "--adversary_steps",
        type=positive_int,
        default=1,
        help="Its optimizer steps for each of the encoder's. More keep up with a code that changes.",
    )
    parser.add_argument(
        "--mean_weight",
        type=non_negative_float,
        default=40.0,
        help="What the encoder pays for the variance of the code's mean given the causes.",
    )
    parser.add_argument(
        "--kernel_weight",
        type=non_negative_float,
        default=0.0,
        help="What the encoder pays for dependence of any moment of the code on the causes, by a Gaussian kernel.",
    )
    parser.add_argument(
        "--consistency_weight",
        type=non_negative_float,
        default=0.0,
        help="What the encoder pays where it reads another code in the image that a code means under other causes.",
    )
    parser.add_argument(
        "--max_shift",
        type=non_negative_int,
        default=0,
        help="Most pixels by which training images are shifted, both ways, so that fewer are known by heart.",
    )
    parser.add_argument(
        "--loss_warmup_steps",
        type=non_negative_int,
        default=300,
        help="Optimizer steps in which the weights of all terms but the likelihood rise from 0.",
    )
    parser.add_argument("--validation_split", default="test", help="Split of the validation images.")
    parser.add_argument("--num_validation_images", type=positive_int, default=1000, help="How many of its images.")
    parser.add_argument(
        "--validation_grid_size", type=positive_int, default=8, help="Rows of the picture of counterfactuals."
    )
    parser.set_defaults(
        learning_rate=2e-3, lr_scheduler="cosine", lr_warmup_steps=200, adam_beta2=0.98, max_grad_norm=50.0
    )
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used."""
    if args.train_batch_size < 4:
        raise ValueError(
            "`--train_batch_size` expects at least 4, from which dependence is estimated, got "
            f"{args.train_batch_size}."
        )
    check_flags(vars(args))


def draw_counterfactuals(encoder, images, condition, condition_widths, num_rows) -> torch.Tensor:
    """
    In each row a factual, its reconstruction, and what its code means under other causes: each class of a categorical
    one, or the 5 %, 50 % and 95 % quantiles of a number, with the other causes as they are.
    """
    code = encoder.encode(images[:num_rows], condition[:num_rows]).mean
    columns, start = [condition[:num_rows]], 0
    for width in condition_widths.values():
        if width == 1:
            levels = torch.tensor([0.05, 0.5, 0.95], device=condition.device)
            values = condition[:, start : start + 1].quantile(levels, dim=0)
        else:
            values = torch.eye(width, device=condition.device)
        for value in values:
            columns.append(columns[0].clone())
            columns[-1][:, start : start + width] = value
        start += width
    return torch.stack([images[:num_rows], *(encoder.decode(code, column) for column in columns)], dim=1).flatten(0, 1)


def shift_images(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Shifts each image by whole pixels, `(down, right)`. What comes in is the border, repeated."""
    rows, columns = (
        (torch.arange(size, device=images.device) - shift[:, None]).clamp(0, size - 1)
        for size, shift in zip(images.shape[2:], shifts.T, strict=True)
    )
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # Indexed dimensions come first.
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def reconstruction_loss(decoded: torch.Tensor, images: torch.Tensor, sigma: float, likelihood: str) -> torch.Tensor:
    """Nats per image by which pixels in [0, 1] are less probable than the decoded ones themselves."""
    error = (decoded - images).flatten(1) / 2
    if likelihood == "laplace":
        return math.sqrt(2) * error.abs().sum(dim=1).mean() / sigma
    return error.square().sum(dim=1).mean() / (2 * sigma**2)


@torch.no_grad()
def validate(encoder, adversary, batches) -> dict[str, float]:
    """Mean absolute error of pixels in [0, 1], size of the code, and what the adversary reads from drawn codes."""
    generator = torch.Generator(encoder.device).manual_seed(0)
    measures = []
    for images, condition in batches:
        noise = torch.randn((len(images), encoder.config.code_dim), generator=generator, device=encoder.device)
        _, code, mean, std = encoder(images, condition, noise, return_dict=False)
        measures.append(
            torch.stack(
                [
                    (encoder.decode(mean, condition) - images).abs().mean() / 2,
                    kl_divergence(mean, std),
                    adversary(code, condition)[2],
                ]
            )
        )
    names = ("validation/l1", "validation/kl", "validation/information")
    return dict(zip(names, torch.stack(measures).mean(dim=0).tolist(), strict=True))


def kl_divergence(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Nats per image that the code's posterior holds over the standard Gaussian."""
    return (mean.square() + std.square() - 1 - 2 * std.log()).sum(dim=1).mean() / 2


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    training_args = TrainingArguments.from_flags(vars(args))
    accelerator = create_accelerator(training_args)
    # Before the run, so that a missing login shows early.
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    # 1. Data, network and adversary
    graph = None
    if args.graph is not None:
        with value_of("graph", args.graph, "the JSON file of a causal graph"):
            graph = CausalGraph.from_json(args.graph)
    parents = [args.label_column] if graph is None else list(graph.image_parents)
    unknown = sorted({*(args.gain_causes or ())} - {*parents})
    if unknown:
        raise ValueError(f"`--gain_causes` expects parents of the image, {parents}, got {unknown}.")
    label_column = args.label_column if graph is None else None
    splits = load_flagged_dataset(args, "train_split", label_column, graph)
    check_split(splits, args.validation_split, "--validation_split")
    dataset = splits[args.train_split]
    class_names = None
    if graph is None:
        class_names = dataset.features[args.label_column].names
        graph = CausalGraph.of_classes(args.label_column, class_names, args.image_column)
    condition_widths = graph.condition_widths
    options = {} if args.code_dim is None else {"code_dim": args.code_dim}
    if args.gain_causes is not None:
        names = [name for name, width in condition_widths.items() for _ in range(width)]
        options["gain_conditions"] = [entry for entry, name in enumerate(names) if name in args.gain_causes]
    encoder = create_model(
        SemanticEncoder2DModel,
        model_config_name_or_path=args.model_config_name_or_path,
        pretrained_model_name_or_path=args.pretrained_model_name_or_path,
        subfolder=args.subfolder,
        resolution=args.resolution,
        cache_dir=args.cache_dir,
        condition_dim=sum(condition_widths.values()),
        **options,
    )
    # A mechanism is that of one code. `train_code_mechanism.py` fits another to what becomes of the code here.
    encoder.mechanism = None
    encoder.register_to_config(mechanism_features=0)
    if args.num_corrections is not None:
        encoder.register_to_config(num_corrections=args.num_corrections)
    if args.residual_std is not None:
        encoder.register_to_config(residual_std=args.residual_std)
    record_training(encoder, class_names=class_names, graph=graph if args.graph is not None else None)
    collate = ImageCollator(encoder.config.sample_size, encoder.config.in_channels, args.image_column, graph=graph)
    if args.dry_run:
        print_dry_run(vars(args), accelerator, encoder, dataset, training_args, collate)
        return
    adversary = CauseAdversary(encoder.config.code_dim, condition_widths)
    adversary_optimizer = torch.optim.Adam(adversary.parameters(), lr=args.adversary_learning_rate)
    rows = draw_rows(
        splits[args.validation_split],
        args.num_validation_images,
        args.seed,
        "num_validation_images",
        args.image_column,
        skip_broken=args.skip_broken,
    )
    validation_batches = [
        tuple(batch[name].to(accelerator.device) for name in ("pixel_values", "condition"))
        for batch in (collate(rows[i : i + args.train_batch_size]) for i in range(0, len(rows), args.train_batch_size))
    ]

    # 2. Training
    rows = balance_causes(accelerator, dataset, graph, args.balance_causes, args.seed)
    accelerator.init_trackers("diffscm-diffusers", config={k: v for k, v in vars(args).items() if v is not None})
    trainer = Trainer(
        accelerator,
        encoder,
        dataset,
        training_args,
        collate,
        flags=vars(args),
        rows=rows,
        others=(adversary, adversary_optimizer),
    )
    adversary, adversary_optimizer = trainer.others
    for batch in trainer.batches():
        images, condition = batch["pixel_values"], batch["condition"]
        if args.max_shift > 0:
            uniform = trainer.draw(torch.rand, (len(images), 2), stream=1)
            images = shift_images(images, (uniform * (2 * args.max_shift + 1)).long() - args.max_shift)
        # One draw of the codes for each step of the adversary. The encoder's is the first.
        noise_shape = (len(images), args.adversary_steps, encoder.config.code_dim)
        code_noise = trainer.draw(torch.randn, noise_shape, stream=0)
        # The causes of the next image.
        other_condition = condition.roll(1, dims=0) if args.consistency_weight > 0 else None
        warmup = min(1, (trainer.global_step + 1) / max(args.loss_warmup_steps, 1))
        with trainer.accumulate():
            with accelerator.autocast():
                decoded, code, mean, std, *transferred = trainer.network(
                    images, condition, code_noise[:, 0], return_dict=False, other_condition=other_condition
                )

            # The adversary learns to read the causes from the drawn code ...
            for noise in code_noise.unbind(dim=1):
                adversary_loss, _, information = adversary((mean + std * noise).detach(), condition)
                accelerator.backward(adversary_loss)
                adversary_optimizer.step()
                adversary_optimizer.zero_grad()

            # ... and the encoder to leave it with the marginals.
            reconstruction = reconstruction_loss(decoded, images, args.sigma, args.likelihood)
            kl = kl_divergence(mean, std)
            reader = accelerator.unwrap_model(adversary).requires_grad_(False)
            _, divergence, _ = reader(code, condition)
            reader.requires_grad_(True)
            features = cause_features(condition, condition_widths)
            cause_kernel = features @ features.T
            mean_dependence = dependence(code @ code.T, cause_kernel)
            kernel_dependence = dependence(code_kernel(code), cause_kernel)
            inconsistency = torch.zeros_like(kl)
            if transferred:
                # In nats under a posterior of fixed width, which would be narrowed otherwise.
                inconsistency = ((code - transferred[0]) / std.detach()).square().sum(dim=1).mean() / 2
            loss = reconstruction + warmup * (
                kl
                + args.adversary_weight * divergence
                + args.mean_weight * mean_dependence
                + args.kernel_weight * kernel_dependence
                + args.consistency_weight * inconsistency
            )
            trainer.backward(
                loss,
                reconstruction=reconstruction,
                kl=kl,
                information=information,
                divergence=divergence,
                mean_dependence=mean_dependence,
                kernel_dependence=kernel_dependence,
                inconsistency=inconsistency,
            )
            trainer.step()

        if trainer.should_validate:
            with trainer.averaged_model() as encoder, torch.no_grad():
                if accelerator.is_main_process:
                    measures = validate(encoder, accelerator.unwrap_model(adversary), validation_batches)
                    accelerator.log(measures, step=trainer.global_step)
                    summary = ", ".join(f"{name.split('/')[1]} {value:.4g}" for name, value in measures.items())
                    tqdm.write(f"Step {trainer.global_step}, validation: {summary}")
                    images, condition = (torch.cat(parts) for parts in zip(*validation_batches, strict=True))
                    num_rows = min(args.validation_grid_size, len(images))
                    tiles = draw_counterfactuals(encoder, images, condition, condition_widths, num_rows)
                    log_picture(accelerator, make_picture(tiles, num_rows), args.output_dir, trainer.global_step)

    # 3. The model, its card, and the Hub
    with trainer.averaged_model() as encoder:
        if accelerator.is_main_process:
            save_whole(encoder, args.output_dir)
    name = args.hub_model_id or args.output_dir
    publish_network(
        trainer,
        DESCRIPTION.format(name=name),
        script=Path(__file__).name,
        argv=sys.argv[1:] if argv is None else argv,
        split=args.train_split,
        dataset_name=args.dataset_name,
        train_data_dir=args.train_data_dir,
        hub_model_id=args.hub_model_id,
    )


if __name__ == "__main__":
    with bad_input_in_one_line(Path(__file__).name):
        main()
