# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the denoiser, the diffusion model of the images (paper, Eq. 1). By default the causes play no part in it.

    accelerate launch train_scripts/train_diffusion.py \
        --dataset_name ylecun/mnist \
        --model_config_name_or_path train_scripts/configs/unet_mnist.json \
        --train_batch_size 128 --max_train_steps 20000 --learning_rate 5e-4 --lr_scheduler cosine \
        --use_ema --output_dir outputs/mnist-denoiser

The output folder is a `DDPMPipeline` that diffusers loads by itself. A denoiser can be told the causes in three ways,
and then the folder has its parts, `unet` and `scheduler`:

    --label_column label --class_dropout 0.1
        the class, which is dropped at that rate: a `UNet2DModel` whose last class is "no class"
    --label_column label --encoder outputs/typeface-encoder
        the class by the image that a semantic code means under it: a `UNet2DModel` with further input channels
    --graph graph.json --parent_dropout 0.1 [--encoder outputs/morphomnist-encoder]
        all parents of the image in a causal graph, each in the column of its name: a `CausalUNet2DModel`
"""

import argparse
import sys
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser, bad_input_in_one_line, positive_int, rate, value_of
from diffscm_diffusers.refusals import check_name_or_path, refuse_early
from diffscm_diffusers.training.arguments import TrainingArguments, add_training_arguments, check_flags


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import ImageCollator, load_flagged_dataset
from diffscm_diffusers.files import save_whole
from diffscm_diffusers.hub.publishing import create_repository
from diffscm_diffusers.models import CausalUNet2DModel
from diffscm_diffusers.training.balance import balance_causes
from diffscm_diffusers.training.components import create_model, load_encoder, record_training
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.pictures import log_picture, make_picture
from diffscm_diffusers.training.publication import publish_network
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


DESCRIPTION = """
An unconditional diffusion model of the images, which serves as the denoiser of a diffusion causal model (Diff-SCM,
[Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166)). Alone it draws images:

```python
from diffusers import DDPMPipeline

image = DDPMPipeline.from_pretrained("{name}")().images[0]
```

Together with an anti-causal predictor (`diffscm join-checkpoint`) it estimates counterfactuals.
""".strip()

CAUSAL_DESCRIPTION = """
A diffusion model of the images given {causes}, the denoiser of a diffusion causal model. Its noise schedule is in
`scheduler`.

```python
from {library} import {model}

unet = {model}.from_pretrained("{name}", subfolder="unet")
```

`diffscm join-checkpoint` makes it a pipeline that estimates counterfactuals.
""".strip()


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser, labels=False)
    causes = parser.add_argument_group("causes")
    causes.add_argument("--label_column", help="Column with the class labels, the cause.")
    causes.add_argument(
        "--class_dropout", type=rate, help="Rate at which a denoiser that is told the class is not told it."
    )
    causes.add_argument(
        "--graph", help="JSON file of a causal graph. Its image's parents are the causes, instead of `--label_column`."
    )
    causes.add_argument(
        "--parent_dropout", type=rate, help="Rate at which each parent is dropped, with `--graph`. Default: 0.1."
    )
    causes.add_argument(
        "--encoder", help="Semantic encoder, frozen, whose decoded code the denoiser sees: a Hub name or a folder."
    )
    parser.add_argument(
        "--prediction_type",
        choices=["epsilon", "v_prediction", "sample"],
        default="epsilon",
        help="What the denoiser predicts, as in DDPMScheduler.",
    )
    parser.add_argument("--validation_grid_size", type=positive_int, default=4, help="Rows and columns of samples.")
    parser.add_argument("--validation_inference_steps", type=positive_int, default=50, help="DDIM steps of a sample.")
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used, or do not say one way in which causes are told."""
    check_flags(vars(args))
    check_name_or_path("encoder", args.encoder, "a `SemanticEncoder2DModel`, a Hub name or a folder")
    if args.graph is not None and args.label_column is not None:
        raise ValueError(
            f"`--graph` expects no `--label_column`, as it names the causes itself, got {args.label_column!r}."
        )
    if args.class_dropout is not None and (args.label_column is None or args.encoder is not None):
        raise ValueError(
            f"`--class_dropout` expects a `--label_column` and no `--encoder`, got {args.label_column!r} and "
            f"{args.encoder!r}."
        )
    if args.encoder is not None and args.graph is None and args.label_column is None:
        raise ValueError(f"`--encoder` expects `--graph` or `--label_column`, its causes, got {args.encoder!r} alone.")
    if args.label_column is not None and args.class_dropout is None and args.encoder is None:
        raise ValueError(
            f"`--label_column` expects `--class_dropout` or `--encoder`, by which a denoiser is told the class, got "
            f"{args.label_column!r} alone."
        )
    if args.parent_dropout is not None and args.graph is None:
        raise ValueError(f"`--parent_dropout` expects a `--graph`, whose parents it drops, got {args.parent_dropout}.")


@torch.no_grad()
def decode_code(encoder, batch, noise=None) -> torch.Tensor:
    """What codes say of the images under their own causes: drawn by standard Gaussian noise, or the means."""
    return encoder(batch["pixel_values"], batch["condition"], noise, return_dict=False)[0]


def get_target(
    noise_scheduler: DDPMScheduler, clean_images: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What the denoiser is to predict of the noisy images, by the `prediction_type` of the noise schedule."""
    if noise_scheduler.config.prediction_type == "v_prediction":
        return noise_scheduler.get_velocity(clean_images, noise, timesteps)
    return noise if noise_scheduler.config.prediction_type == "epsilon" else clean_images


@torch.no_grad()
def draw_samples(
    unet, noise_scheduler, num_inference_steps, grid_size, seed, factuals=None, encoder=None, decoded=None, **causes
):
    """
    Draws a square grid of samples by DDIM, always from the same noise. Where the denoiser is told causes, they are
    those of `factuals`, and a row of these stands above each row of samples.
    """
    scheduler = DDIMScheduler.from_config(noise_scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    shape = (grid_size**2, unet.config.out_channels, unet.config.sample_size, unet.config.sample_size)
    sample = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(unet.device)
    for timestep in scheduler.timesteps:
        inputs, mean, std = sample, 0.0, 1.0
        if decoded is not None:
            alpha_prod = scheduler.alphas_cumprod[timestep].item()
            inputs, mean, std = encoder.residual_prior(sample, decoded, alpha_prod, scheduler.config.prediction_type)
            inputs = torch.cat([inputs, decoded], dim=1)
        prediction = mean + std * unet(inputs, timestep, **causes).sample
        sample = scheduler.step(prediction, timestep, sample).prev_sample
    rows = [part.unflatten(0, (grid_size, grid_size)) for part in (factuals, sample) if part is not None]
    return make_picture(torch.stack(rows, dim=1).flatten(0, 2), len(rows) * grid_size)


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    training_args = TrainingArguments.from_flags(vars(args))
    accelerator = create_accelerator(training_args)
    # Before the run, so that a missing login shows early.
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    # 1. Data, networks and noise schedule
    graph = None
    if args.graph is not None:
        with value_of("graph", args.graph, "the JSON file of a causal graph"):
            graph = CausalGraph.from_json(args.graph)
    dataset = load_flagged_dataset(args, "train_split", args.label_column, graph)[args.train_split]
    class_names = None
    if args.label_column is not None:
        class_names = dataset.features[args.label_column].names
        graph = CausalGraph.of_classes(args.label_column, class_names, args.image_column)
    encoder, config = None, {}
    if args.encoder is not None:
        encoder = load_encoder(args.encoder, graph, args.cache_dir).to(accelerator.device)
        config |= {"in_channels": 2 * encoder.config.in_channels, "out_channels": encoder.config.in_channels}
    if args.graph is not None:
        config["condition_widths"] = [[name, width] for name, width in graph.condition_widths.items()]
    if args.class_dropout is not None:
        config["num_class_embeds"] = len(class_names) + 1
    unet = create_model(
        CausalUNet2DModel if args.graph is not None else UNet2DModel,
        model_config_name_or_path=args.model_config_name_or_path,
        pretrained_model_name_or_path=args.pretrained_model_name_or_path,
        subfolder=args.subfolder,
        resolution=args.resolution,
        cache_dir=args.cache_dir,
        **config,
    )
    channels, size = unet.config.out_channels, unet.config.sample_size
    if encoder is None and unet.config.in_channels != channels:
        raise ValueError(
            "The denoiser is expected to predict one value of each pixel, in as many channels as the image has, "
            f"{unet.config.in_channels}, got a model with {channels} output channels."
        )
    if encoder is not None and encoder.config.sample_size != size:
        raise ValueError(
            f"`--encoder` expects images of {size} pixels, as the denoiser does, got {encoder.config.sample_size}."
        )
    noise_scheduler = DDPMScheduler(
        num_train_timesteps=args.num_train_timesteps,
        beta_schedule=args.beta_schedule,
        prediction_type=args.prediction_type,
    )
    record_training(
        unet,
        noise_scheduler,
        noise_scheduler.config.prediction_type,
        class_names,
        graph=graph if args.graph is not None else None,
        residual_std=None if encoder is None else encoder.config.residual_std,
    )
    collate = ImageCollator(size, channels, args.image_column, graph=graph)
    if args.dry_run:
        print_dry_run(vars(args), accelerator, unet, dataset, training_args, collate)
        return
    validation = {}  # what samples are drawn with
    if graph is not None:
        # Shuffled because image folders are sorted by class.
        rows = list(dataset.shuffle(seed=args.seed).take(args.validation_grid_size**2))
        if len(rows) < args.validation_grid_size**2:
            raise ValueError(
                f"`--validation_grid_size` expects no more samples than the {len(rows)} images, whose causes they "
                f"have, got {args.validation_grid_size}."
            )
        factuals = send_to_device(collate(rows), accelerator.device)
        validation["factuals"] = factuals["pixel_values"]
        if encoder is not None:
            validation |= {"encoder": encoder, "decoded": decode_code(encoder, factuals)}
        if args.class_dropout is not None:
            validation["class_labels"] = factuals["attributes"][args.label_column]
        if args.graph is not None:
            validation["condition"] = factuals["condition"]

    # 2. Training
    parent_dropout = 0.1 if args.parent_dropout is None else args.parent_dropout
    rows = balance_causes(accelerator, dataset, graph, args.balance_causes, args.seed)
    accelerator.init_trackers("diffscm-diffusers", config={k: v for k, v in vars(args).items() if v is not None})
    trainer = Trainer(accelerator, unet, dataset, training_args, collate, flags=vars(args), rows=rows)
    alphas_cumprod = noise_scheduler.alphas_cumprod.to(accelerator.device)
    for batch in trainer.batches():
        clean_images = batch["pixel_values"]
        noise, timesteps = trainer.draw_noise(clean_images, args.num_train_timesteps)
        if encoder is not None and encoder.config.residual_std is not None:
            # Little is open but the residual, which more noise than its own hides.
            timesteps = timesteps.pow(3) // args.num_train_timesteps**2
        noisy_images = noise_scheduler.add_noise(clean_images, noise, timesteps)
        causes = {}
        if args.class_dropout is not None:
            labels = batch["attributes"][args.label_column]
            is_dropped = trainer.draw(torch.rand, labels.shape, stream=1) < args.class_dropout
            causes["class_labels"] = torch.where(is_dropped, len(class_names), labels)
        if args.graph is not None:
            shape = (len(clean_images), len(graph.image_parents))
            causes["condition"] = batch["condition"]
            causes["keep"] = trainer.draw(torch.rand, shape, stream=1) >= parent_dropout
        with trainer.accumulate():
            with accelerator.autocast():
                inputs, mean, std = noisy_images, 0.0, 1.0
                if encoder is not None:
                    code_noise = trainer.draw(torch.randn, (len(inputs), encoder.config.code_dim), stream=0)
                    decoded = decode_code(encoder, batch, code_noise)
                    alpha_prod = alphas_cumprod[timesteps][:, None, None, None]
                    inputs, mean, std = encoder.residual_prior(inputs, decoded, alpha_prod, args.prediction_type)
                    inputs = torch.cat([inputs, decoded], dim=1)
                prediction = mean + std * trainer.network(inputs, timesteps, **causes).sample.float()
                # The paper's Eq. 1; in its epsilon form the weight is 1.
                loss = F.mse_loss(prediction, get_target(noise_scheduler, clean_images, noise, timesteps))
            trainer.backward(loss)
            trainer.step()

        if trainer.should_validate:
            with trainer.averaged_model() as unet:
                if accelerator.is_main_process:
                    picture = draw_samples(
                        unet,
                        noise_scheduler,
                        args.validation_inference_steps,
                        args.validation_grid_size,
                        args.seed,
                        **validation,
                    )
                    log_picture(accelerator, picture, args.output_dir, trainer.global_step)

    # 3. The pipeline or its parts, the card, and the Hub
    with trainer.averaged_model() as unet:
        if accelerator.is_main_process:
            if graph is None:
                save_whole(DDPMPipeline(unet, noise_scheduler), args.output_dir)
            else:
                # No pipeline of diffusers' own tells a denoiser its causes.
                save_whole(unet, Path(args.output_dir, "unet"))
                save_whole(noise_scheduler, Path(args.output_dir, "scheduler"))
    name = args.hub_model_id or args.output_dir
    description = DESCRIPTION.format(name=name)
    if graph is not None:
        library = "diffscm_diffusers" if args.graph is not None else "diffusers"
        description = CAUSAL_DESCRIPTION.format(
            causes=", ".join(f"`{cause}`" for cause in graph.image_parents)
            + (" and the semantic code of an encoder" if encoder is not None else ""),
            library=library,
            model=trainer.model_class.__name__,
            name=name,
        )
    publish_network(
        trainer,
        description,
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
