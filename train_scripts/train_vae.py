# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains a variational autoencoder of the image given its parents in a causal graph, to compare a diffusion causal model
with.

    accelerate launch train_scripts/train_vae.py \
        --dataset_name outputs/morpho-mnist --graph outputs/morpho-mnist/graph.json \
        --model_config_name_or_path train_scripts/configs/conditional_vae_mnist.json \
        --train_batch_size 64 --max_train_steps 5000 --mixed_precision bf16 --cache_images \
        --use_ema --ema_max_decay 0.999 --output_dir outputs/morphomnist-conditional-vae

The output folder is a `ConditionalVAE2DModel` or, by `configs/hierarchical_vae_mnist.json`, a
`HierarchicalVAE2DModel`. The parents are read from the columns of their names.
"""

import argparse
import sys
from pathlib import Path

from diffscm_diffusers.flags import (
    ArgumentParser,
    bad_input_in_one_line,
    non_negative_float,
    non_negative_int,
    positive_int,
    value_of,
)
from diffscm_diffusers.refusals import refuse_early
from diffscm_diffusers.training.arguments import TrainingArguments, add_training_arguments, check_flags


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
from accelerate.utils import send_to_device

from diffscm_diffusers.baselines import ConditionalVAE2DModel
from diffscm_diffusers.baselines.vae_pipeline import VAE_MODELS
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import ImageCollator, load_flagged_dataset
from diffscm_diffusers.files import save_whole
from diffscm_diffusers.hub.publishing import create_repository
from diffscm_diffusers.training.balance import balance_causes
from diffscm_diffusers.training.components import create_model, record_training
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.pictures import log_picture, make_picture
from diffscm_diffusers.training.publication import publish_network
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


DESCRIPTION = """
A variational autoencoder of images given {causes}, to compare a diffusion causal model with.

```python
from diffscm_diffusers.baselines import {model}, VAECounterfactualPipeline

vae = {model}.from_pretrained("{name}")
```

`VAECounterfactualPipeline(vae, scm)` estimates counterfactuals, with a structural causal model of the attributes.
""".strip()


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser, labels=False, diffusion=False)
    parser.add_argument(
        "--graph", required=True, help="JSON file of a causal graph. Its image's parents are what the model is told."
    )
    parser.add_argument(
        "--kl_weight", type=non_negative_float, default=1.0, help="Weight of the divergence from the prior; 1: ELBO."
    )
    parser.add_argument(
        "--loss_warmup_steps", type=non_negative_int, default=500, help="Optimizer steps in which it rises from 0."
    )
    parser.add_argument(
        "--validation_grid_size", type=positive_int, default=8, help="Columns of the picture of counterfactuals."
    )
    parser.set_defaults(learning_rate=1e-3, lr_scheduler="cosine", lr_warmup_steps=200, max_grad_norm=10.0)
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used."""
    check_flags(vars(args))


@torch.no_grad()
def draw_counterfactuals(vae, images, condition) -> torch.Tensor:
    """Three rows: factuals, what their latents mean under their own parents, and under those of the next image."""
    latents = vae.encode(images, condition)
    rows = [images, vae.decode(latents, condition)[0], vae.decode(latents, condition.roll(-1, dims=0))[0]]
    return torch.cat(rows).clamp(-1, 1)


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    training_args = TrainingArguments.from_flags(vars(args))
    accelerator = create_accelerator(training_args)
    # Before the run, so that a missing login shows early.
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    # 1. Data and network
    with value_of("graph", args.graph, "the JSON file of a causal graph"):
        graph = CausalGraph.from_json(args.graph)
    dataset = load_flagged_dataset(args, "train_split", graph=graph)[args.train_split]
    source = args.pretrained_model_name_or_path or args.model_config_name_or_path
    subfolder = args.subfolder if args.pretrained_model_name_or_path is not None else None
    config = {}
    if source is not None:
        config = ConditionalVAE2DModel.load_config(source, subfolder=subfolder, cache_dir=args.cache_dir)
    vae = create_model(
        VAE_MODELS.get(config.get("_class_name"), ConditionalVAE2DModel),
        model_config_name_or_path=args.model_config_name_or_path,
        pretrained_model_name_or_path=args.pretrained_model_name_or_path,
        subfolder=args.subfolder,
        resolution=args.resolution,
        cache_dir=args.cache_dir,
        condition_dim=sum(graph.condition_widths.values()),
    )
    record_training(vae, graph=graph)
    latent_dim = vae.latent_dim
    num_values = vae.config.in_channels * vae.config.sample_size**2
    collate = ImageCollator(vae.config.sample_size, vae.config.in_channels, args.image_column, graph=graph)
    if args.dry_run:
        print_dry_run(vars(args), accelerator, vae, dataset, training_args, collate)
        return
    # Shuffled because image folders are sorted by class.
    rows = list(dataset.shuffle(seed=args.seed).take(args.validation_grid_size))
    factuals = send_to_device(collate(rows), accelerator.device)

    # 2. Training
    rows = balance_causes(accelerator, dataset, graph, args.balance_causes, args.seed)
    accelerator.init_trackers("diffscm-diffusers", config={k: v for k, v in vars(args).items() if v is not None})
    trainer = Trainer(accelerator, vae, dataset, training_args, collate, flags=vars(args), rows=rows)
    for batch in trainer.batches():
        images, condition = batch["pixel_values"], batch["condition"]
        noise = trainer.draw(torch.randn, (len(images), latent_dim), stream=0)
        warmup = min(1, (trainer.global_step + 1) / max(args.loss_warmup_steps, 1))
        with trainer.accumulate():
            with accelerator.autocast():
                log_likelihood, kl = trainer.network(images, condition, noise)
            # In nats per value.
            reconstruction, kl = -log_likelihood.mean() / num_values, kl.mean() / num_values
            trainer.backward(reconstruction + warmup * args.kl_weight * kl, reconstruction=reconstruction, kl=kl)
            trainer.step()

        if trainer.should_validate:
            with trainer.averaged_model() as vae:
                if accelerator.is_main_process:
                    tiles = draw_counterfactuals(vae, factuals["pixel_values"], factuals["condition"])
                    log_picture(accelerator, make_picture(tiles, 3), args.output_dir, trainer.global_step)

    # 3. The model, its card, and the Hub
    with trainer.averaged_model() as vae:
        if accelerator.is_main_process:
            save_whole(vae, args.output_dir)
    name = args.hub_model_id or args.output_dir
    causes = ", ".join(f"`{cause}`" for cause in graph.image_parents)
    publish_network(
        trainer,
        DESCRIPTION.format(causes=causes, model=trainer.model_class.__name__, name=name),
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
