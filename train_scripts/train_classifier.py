# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Trains the anti-causal predictor: a classifier of the cause given the noisy effect, at every noise level (paper, Sec.
3.3).

    accelerate launch train_scripts/train_classifier.py \
        --dataset_name ylecun/mnist \
        --model_config_name_or_path train_scripts/configs/classifier_mnist.json \
        --train_batch_size 128 --max_train_steps 3000 --learning_rate 5e-4 \
        --use_ema --output_dir outputs/mnist-classifier

The output folder is an `AntiCausalClassifier2DModel`. Use the diffusion flags of the denoiser that it will guide.
With `--graph` it is a `CausalPredictor2DModel`, the joint predictor of all parents of the image in a causal graph,
each in the column of its name, of a configuration such as `train_scripts/configs/causal_predictor_mnist.json`.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from diffscm_diffusers.flags import ArgumentParser, bad_input_in_one_line, positive_int, value_of
from diffscm_diffusers.refusals import check_name_or_path, refuse_early
from diffscm_diffusers.training.arguments import TrainingArguments, add_training_arguments, check_flags


if __name__ == "__main__":
    refuse_early(__file__)  # before the imports below, which take seconds

import torch
import torch.nn.functional as F
from diffusers import DDPMPipeline, DDPMScheduler
from tqdm.auto import tqdm

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.checksums import check_pipeline
from diffscm_diffusers.data.classes import check_every_class, name_empty_classes
from diffscm_diffusers.data.images import ImageCollator, check_split, load_flagged_dataset
from diffscm_diffusers.data.samples import draw_rows
from diffscm_diffusers.files import save_whole
from diffscm_diffusers.hub.publishing import create_repository
from diffscm_diffusers.models import AntiCausalClassifier2DModel, CausalPredictor2DModel
from diffscm_diffusers.training.balance import balance_causes
from diffscm_diffusers.training.components import create_model, record_training
from diffscm_diffusers.training.dry_run import print_dry_run
from diffscm_diffusers.training.noise import draw_noise
from diffscm_diffusers.training.publication import publish_network
from diffscm_diffusers.training.trainer import Trainer, create_accelerator


DESCRIPTION = """
An anti-causal predictor, `p(class | noisy image)` at every noise level: the classifier that steers a diffusion causal
model (Diff-SCM, [Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166)) under an intervention.

```python
from diffscm_diffusers import AntiCausalClassifier2DModel

classifier = AntiCausalClassifier2DModel.from_pretrained("{name}")
```

Together with a denoiser (`diffscm join-checkpoint`) it estimates counterfactuals.
""".strip()

JOINT_DESCRIPTION = """
A joint anti-causal predictor, `p({causes} | noisy image)` at every noise level. Its gradient turns the score of the
images into that of their mechanism, and it reads causes that are not given.

```python
from diffscm_diffusers import CausalPredictor2DModel

predictor = CausalPredictor2DModel.from_pretrained("{name}")
```

`diffscm join-checkpoint` makes it part of a pipeline that estimates counterfactuals.
""".strip()


def parse_args(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser, labels=True)
    parser.add_argument(
        "--graph", help="JSON file of a causal graph. Its image's parents are the causes, instead of `--label_column`."
    )
    parser.add_argument(
        "--not_chained",
        action="store_true",
        help="Tell no cause to the heads of the others, with `--graph`: biased where causes go together.",
    )
    parser.add_argument("--from_unet", help="Denoiser, a `DDPMPipeline`, whose encoder the classifier starts from.")
    parser.add_argument("--validation_split", default="test", help="Split on which accuracy is measured.")
    parser.add_argument("--num_validation_images", type=positive_int, default=1000, help="How many of its images.")
    parser.add_argument("--num_noise_levels", type=positive_int, default=10, help="Bands of diffusion time to report.")
    return parser.parse_args(argv)


def check_args(args):
    """Raises a `ValueError` for flags that cannot be used, or do not fit each other."""
    if args.not_chained and args.graph is None:
        raise ValueError("`--not_chained` expects a `--graph`, got none.")
    if args.from_unet is not None:
        if args.graph is not None:
            raise ValueError(f"`--from_unet` expects no `--graph`, got {args.from_unet!r} and {args.graph!r}.")
        if args.pretrained_model_name_or_path is not None or args.model_config_name_or_path is not None:
            raise ValueError(
                "`--from_unet` expects no other source of the model, got `--pretrained_model_name_or_path` or "
                "`--model_config_name_or_path` too."
            )
        check_name_or_path("from_unet", args.from_unet, "the Hub name or folder of a `DDPMPipeline`")
    check_flags(vars(args))


def create_classifier(args, names: list[str]) -> AntiCausalClassifier2DModel:
    """Makes a classifier of the named classes; its encoder is a denoiser's if the flags name one."""
    id2label = {str(i): name for i, name in enumerate(names)}
    if args.from_unet is None:
        return create_model(
            AntiCausalClassifier2DModel,
            model_config_name_or_path=args.model_config_name_or_path,
            pretrained_model_name_or_path=args.pretrained_model_name_or_path,
            subfolder=args.subfolder,
            resolution=args.resolution,
            cache_dir=args.cache_dir,
            num_classes=len(names),
            id2label=id2label,
        )
    with value_of("from_unet", args.from_unet, "the Hub name or folder of a `DDPMPipeline`"):
        denoiser = DDPMPipeline.from_pretrained(args.from_unet, cache_dir=args.cache_dir, use_safetensors=True)
        check_pipeline(denoiser, {})
    unet = denoiser.unet
    for name in ("num_train_timesteps", "beta_schedule"):
        if getattr(args, name) != denoiser.scheduler.config[name]:
            raise ValueError(
                f"`--{name}` expects the denoiser's, {denoiser.scheduler.config[name]!r}, with `--from_unet`, got "
                f"{getattr(args, name)!r}."
            )
    if args.resolution not in (unet.config.sample_size, None):
        raise ValueError(
            f"`--resolution` expects the denoiser's, {unet.config.sample_size}, with `--from_unet`, got "
            f"{args.resolution}."
        )
    return AntiCausalClassifier2DModel.from_unet(unet, len(names), id2label)


@torch.no_grad()
def accuracy_by_noise_level(classifier, batches, noise_scheduler, num_noise_levels, seed) -> dict[str, float]:
    """Measures accuracy on images noised to the middle of each of `num_noise_levels` equal bands of diffusion time."""
    num_train_timesteps = noise_scheduler.config.num_train_timesteps
    accuracy = {}
    for level in range(num_noise_levels):
        timestep = (2 * level + 1) * num_train_timesteps // (2 * num_noise_levels)
        correct = []
        for step, batch in enumerate(batches):
            images, labels = batch["pixel_values"].to(classifier.device), batch["labels"].to(classifier.device)
            noise, timesteps = draw_noise(images, num_train_timesteps, seed, step)
            timesteps = torch.full_like(timesteps, timestep)
            logits = classifier(noise_scheduler.add_noise(images, noise, timesteps), timesteps).logits
            correct.append(logits.argmax(dim=1) == labels)
        accuracy[f"accuracy/t={timestep}"] = torch.cat(correct).float().mean().item()
    return accuracy


def create_predictor(args, graph: CausalGraph) -> CausalPredictor2DModel:
    """Makes a joint predictor of the image's parents."""
    return create_model(
        CausalPredictor2DModel,
        model_config_name_or_path=args.model_config_name_or_path,
        pretrained_model_name_or_path=args.pretrained_model_name_or_path,
        subfolder=args.subfolder,
        resolution=args.resolution,
        cache_dir=args.cache_dir,
        condition_widths=[[name, width] for name, width in graph.condition_widths.items()],
        chained=not args.not_chained,
    )


@torch.no_grad()
def errors_by_noise_level(predictor, graph, batches, noise_scheduler, num_noise_levels, seed) -> dict[str, float]:
    """
    Measures what the joint predictor reads on images noised to the middle of each of `num_noise_levels` equal bands of
    diffusion time: the accuracy of each category, and the mean absolute error of each number in its unit.
    """
    num_train_timesteps = noise_scheduler.config.num_train_timesteps
    errors = {}
    for level in range(num_noise_levels):
        timestep = (2 * level + 1) * num_train_timesteps // (2 * num_noise_levels)
        found = {name: [] for name in graph.image_parents}
        for step, batch in enumerate(batches):
            images = batch["pixel_values"].to(predictor.device)
            noise, timesteps = draw_noise(images, num_train_timesteps, seed, step)
            timesteps = torch.full_like(timesteps, timestep)
            read = graph.values(predictor.predict(noise_scheduler.add_noise(images, noise, timesteps), timesteps))
            for name, value in read.items():
                factual = batch["attributes"][name].to(value.device)
                is_number = graph.nodes[name].kind == "continuous"
                found[name].append((value - factual).abs() if is_number else (value == factual).float())
        for name, values in found.items():
            measure = "error" if graph.nodes[name].kind == "continuous" else "accuracy"
            errors[f"{measure} of {name}/t={timestep}"] = torch.cat(values).mean().item()
    return errors


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    training_args = TrainingArguments.from_flags(vars(args))
    accelerator = create_accelerator(training_args)
    # Before the run, so that a missing login shows early.
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        args.hub_model_id = create_repository(args.hub_model_id, args.output_dir)

    # 1. Data, network and noise schedule
    graph = None
    if args.graph is not None:
        with value_of("graph", args.graph, "the JSON file of a causal graph"):
            graph = CausalGraph.from_json(args.graph)
    label_column = args.label_column if graph is None else None
    splits = load_flagged_dataset(args, "train_split", label_column, graph)
    check_split(splits, args.validation_split, "--validation_split")
    dataset = splits[args.train_split]
    if graph is None:
        names = dataset.features[label_column].names
        if not args.streaming:
            check_every_class(dataset[label_column][:], names, "train_split", args.train_split)
        classifier = create_classifier(args, names)
    else:
        names = None
        classifier = create_predictor(args, graph)
    noise_scheduler = DDPMScheduler(num_train_timesteps=args.num_train_timesteps, beta_schedule=args.beta_schedule)
    record_training(classifier, noise_scheduler, class_names=names, graph=graph)
    size, channels = classifier.config.sample_size, classifier.config.in_channels
    collate = ImageCollator(size, channels, args.image_column, label_column, graph)
    if args.dry_run:
        print_dry_run(vars(args), accelerator, classifier, dataset, training_args, collate)
        return
    rows = draw_rows(
        splits[args.validation_split],
        args.num_validation_images,
        args.seed,
        "num_validation_images",
        args.image_column,
        label_column,
        args.skip_broken,
    )
    validation_batches = [
        collate(rows[i : i + args.train_batch_size]) for i in range(0, len(rows), args.train_batch_size)
    ]

    # 2. Training
    rows = balance_causes(accelerator, dataset, graph, args.balance_causes, args.seed)
    accelerator.init_trackers("diffscm-diffusers", config={k: v for k, v in vars(args).items() if v is not None})
    trainer = Trainer(accelerator, classifier, dataset, training_args, collate, flags=vars(args), rows=rows)
    # A stream's classes are known only as they come.
    counts_classes = args.streaming and graph is None
    if counts_classes:
        seen = torch.zeros(len(names), dtype=torch.int64, device=accelerator.device)
    for batch in trainer.batches():
        clean_images = batch["pixel_values"]
        noise, timesteps = trainer.draw_noise(clean_images, args.num_train_timesteps)
        noisy_images, terms = noise_scheduler.add_noise(clean_images, noise, timesteps), {}
        with trainer.accumulate():
            with accelerator.autocast():
                # `-log p(y | x_t)` of the cause given the noisy effect (paper, Sec. 3.3), or of all causes.
                if graph is None:
                    logits = trainer.network(noisy_images, timesteps).logits
                    loss = F.cross_entropy(logits.float(), batch["labels"])
                else:
                    log_prob, weight = trainer.network(noisy_images, timesteps, batch["condition"])
                    loss = -(weight * log_prob).sum(dim=1).mean()
                    terms = {"log_prob": log_prob.detach().sum(dim=1).mean()}
            trainer.backward(loss, **terms)
            trainer.step()

        if counts_classes:
            seen[batch["labels"]] = 1
        if trainer.should_validate:
            if counts_classes:
                counts = accelerator.reduce(seen, "sum").tolist()
                if accelerator.is_main_process:
                    where = f"What was read of `train_split` {args.train_split!r} until step {trainer.global_step}"
                    name_empty_classes(dict(zip(names, counts, strict=True)), where)
            with trainer.averaged_model() as classifier:
                if accelerator.is_main_process:
                    measure = accuracy_by_noise_level
                    if graph is not None:
                        measure = partial(errors_by_noise_level, graph=graph)
                    measures = measure(
                        classifier,
                        batches=validation_batches,
                        noise_scheduler=noise_scheduler,
                        num_noise_levels=args.num_noise_levels,
                        seed=args.seed,
                    )
                    accelerator.log(measures, step=trainer.global_step)
                    for name in dict.fromkeys(key.split("/")[0] for key in measures):
                        found = {key.split("/")[1]: value for key, value in measures.items() if key.startswith(name)}
                        summary = ", ".join(f"{timestep}: {value:.3f}" for timestep, value in found.items())
                        tqdm.write(f"Step {trainer.global_step}, validation {name} at {summary}")

    # 3. The classifier, its card, and the Hub
    with trainer.averaged_model() as classifier:
        if accelerator.is_main_process:
            save_whole(classifier, args.output_dir)
    name = args.hub_model_id or args.output_dir
    publish_network(
        trainer,
        DESCRIPTION.format(name=name)
        if graph is None
        else JOINT_DESCRIPTION.format(name=name, causes=", ".join(graph.image_parents)),
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
