# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Calibrates the anti-causal predictor at each noise level, on held-out images.

    diffscm calibrate --dataset_name ylecun/mnist --split "test[:5000]" \
        --pretrained_model_name_or_path checkpoints/diffscm-mnist --output_dir outputs/diffscm-mnist-calibrated

At each level, the temperature of the highest likelihood is fitted on one half of the images and judged on the other,
by the expected calibration error and the negative log likelihood before and after. With the temperatures, the gradient
that guides at scale 1 is that of the likelihood. Writes a whole new checkpoint, with the old weights and with the
temperatures in the predictor's configuration, and in it `calibration.json` and the pictures `calibration.png` and
`calibration.pdf`.
"""

import argparse
import json
import logging
import shlex
import shutil
import sys
from pathlib import Path

import matplotlib
import torch
from diffusers.utils.torch_utils import get_device
from tqdm.auto import tqdm

from diffscm_diffusers import DiffSCMCounterfactualPipeline
from diffscm_diffusers.data.classes import unique_names
from diffscm_diffusers.data.images import DecodedImages, ImageCollator, load_flagged_dataset
from diffscm_diffusers.data.splits import select_rows
from diffscm_diffusers.evaluation.pairs import read_classes
from diffscm_diffusers.evaluation.temperatures import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    fit_temperature,
    measure_reliability,
)
from diffscm_diffusers.figures import STYLE, draw_calibration, save_figure
from diffscm_diffusers.files import locked, written_whole
from diffscm_diffusers.flags import (
    ArgumentParser,
    add_data_arguments,
    non_negative_int,
    positive_int,
    value_of_checkpoint,
)
from diffscm_diffusers.hub.cards import read_section
from diffscm_diffusers.refusals import check_checkpoint, check_data_source, check_output_dir


logger = logging.getLogger(__name__)


def parse_args(argv=None):
    parser = ArgumentParser(
        "diffscm calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = add_data_arguments(parser)
    data.add_argument(
        "--split",
        default="test",
        help="Split of the images, or slices of splits: none that the predictor was trained on.",
    )
    data.add_argument("--max_samples", type=positive_int, help="How many images at most. Default: all.")

    model = parser.add_argument_group("causal model")
    model.add_argument(
        "--pretrained_model_name_or_path",
        required=True,
        help="`DiffSCMCounterfactualPipeline`: a Hub name or a local folder.",
    )
    model.add_argument(
        "--timesteps",
        type=non_negative_int,
        nargs="+",
        help="Noise levels with a temperature of their own; between them it is interpolated. Default: eleven, evenly "
        "spaced from the lowest to the highest.",
    )
    model.add_argument("--seed", type=non_negative_int, default=0, help="Seed of the halves and of the noise.")
    model.add_argument("--batch_size", type=positive_int, default=100, help="Images that the networks see at once.")
    parser.add_argument("--output_dir", required=True, help="New folder for the calibrated checkpoint.")
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace):
    """Raises a `ValueError` for flags that cannot be used."""
    check_data_source(args.dataset_name, args.train_data_dir, args.dataset_config_name)
    check_checkpoint(args.pretrained_model_name_or_path)
    check_output_dir(args.output_dir, is_new=True)
    timesteps = args.timesteps
    if timesteps is not None and (sorted(set(timesteps)) != timesteps or len(timesteps) < 2):
        raise ValueError(f"`--timesteps` expects at least two timesteps, in increasing order, got {timesteps}.")


@torch.no_grad()
def compute_logits(
    pipe: DiffSCMCounterfactualPipeline, images: torch.Tensor, timestep: int, noise: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """What the predictor says of images in [0, 1] at a noise level, without a temperature."""
    alpha_prod = pipe.scheduler.alphas_cumprod[timestep].to(images.device).float()
    noisy = alpha_prod.sqrt() * (2 * images - 1) + (1 - alpha_prod).sqrt() * noise
    batches = noisy.to(pipe.classifier.dtype).split(batch_size)
    return torch.cat([pipe.classifier(batch, timestep).logits.float() for batch in batches])


def describe(command: list[str], levels: list[dict]) -> str:
    """The section on the calibration for the checkpoint's card."""
    rows = [
        f"| {level['timestep']} | {level['temperature']:.3f} | {level['before']['ece']:.4f} | "
        f"{level['after']['ece']:.4f} | {level['before']['nll']:.4f} | {level['after']['nll']:.4f} |"
        for level in levels
    ]
    return (
        f"### Calibration\n\nThe anti-causal predictor has a temperature at each noise level, by\n\n```bash\n"
        f"{shlex.join(['diffscm', 'calibrate', *command])}\n```\n\n"
        "| timestep | temperature | calibration error before | after | NLL before | after |\n"
        "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    name = args.pretrained_model_name_or_path
    source = {"cache_dir": args.cache_dir, "use_safetensors": True}
    with value_of_checkpoint(name):
        folder = Path(name) if Path(name).is_dir() else Path(DiffSCMCounterfactualPipeline.download(name, **source))
        pipe = DiffSCMCounterfactualPipeline.from_pretrained(folder, **source).to(get_device())
    if pipe.classifier.config.temperatures is not None:
        raise ValueError(f"`--pretrained_model_name_or_path` expects a predictor without temperatures, got {name!r}.")
    highest = pipe.scheduler.config.num_train_timesteps - 1
    timesteps = args.timesteps or torch.linspace(0, highest, 11).round().int().unique().tolist()
    if timesteps[-1] > highest:
        raise ValueError(f"`--timesteps` expects timesteps from 0 to {highest}, got {timesteps}.")

    # 1. Images, in two halves
    splits = load_flagged_dataset(args, label_column=args.label_column)
    rows = select_rows(splits, args.split)
    generator = torch.Generator().manual_seed(args.seed)
    order = torch.randperm(len(rows), generator=generator)[: args.max_samples]
    if len(order) < 2:
        raise ValueError(f"`--split` and `--max_samples` expect at least two images, got {len(order)}.")
    channels, height, _ = pipe.image_shape
    collate = ImageCollator(height, channels, args.image_column, args.label_column)
    classes = read_classes(rows, collate, unique_names(pipe.classifier.id2label))[order]
    if classes.min() < 0:
        raise ValueError(f"`--label_column` expects a label for every image of {args.split!r}, got some without.")
    images = DecodedImages(rows.select(order), collate, "Reading images", numbers=order.tolist()).images(slice(None))
    fitted = slice(len(order) // 2)
    measured = slice(len(order) // 2, None)

    # 2. A temperature for each level
    levels, images = [], images.to(pipe.device)
    for timestep in tqdm(timesteps, "Levels"):
        noise = torch.randn(images.shape, generator=generator).to(pipe.device)
        logits = compute_logits(pipe, images, timestep, noise, args.batch_size).cpu()
        temperature = fit_temperature(logits[fitted], classes[fitted])
        levels.append(
            {
                "timestep": timestep,
                "temperature": temperature,
                "before": measure_reliability(logits[measured], classes[measured]),
                "after": measure_reliability(logits[measured] / temperature, classes[measured]),
            }
        )
    limits = (1.01 * LOWEST_TEMPERATURE, 0.99 * HIGHEST_TEMPERATURE)
    extreme = [level["timestep"] for level in levels if not limits[0] < level["temperature"] < limits[1]]
    if extreme:
        logger.warning(
            "At the timesteps %s the likelihood has no maximum from %g to %g; the temperature is that end of it. More "
            "images may give one.",
            extreme,
            LOWEST_TEMPERATURE,
            HIGHEST_TEMPERATURE,
        )

    # 3. The new checkpoint: the old one's files, so that weights keep their type and bits
    calibration = {
        "settings": vars(args),
        "num_fitted": len(classes[fitted]),
        "num_measured": len(classes[measured]),
        "levels": levels,
    }
    with locked(args.output_dir, is_new=True), written_whole(args.output_dir) as unfinished:
        shutil.copytree(folder, unfinished, ignore=shutil.ignore_patterns(".*"))
        config = unfinished / "classifier" / "config.json"
        temperatures = [[level["timestep"], level["temperature"]] for level in levels]
        content = {**json.loads(config.read_text()), "temperatures": temperatures}
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        (unfinished / "calibration.json").write_text(json.dumps(calibration, indent=2) + "\n")
        with matplotlib.rc_context(STYLE):
            save_figure(draw_calibration(calibration), unfinished, "calibration")
        card = unfinished / "README.md"
        if card.exists():
            # Where `diffscm card` keeps it.
            training = read_section(card.read_text(), "Training")
            section = describe(sys.argv[1:] if argv is None else argv, levels)
            text = card.read_text().replace(training, f"{training}\n\n{section}") if training else card.read_text()
            card.write_text(text)
        DiffSCMCounterfactualPipeline.from_pretrained(unfinished)  # what cannot be loaded gets no name
    for level in levels:
        measures = [f"{level[state][measure]:.4f}" for measure in ("ece", "nll") for state in ("before", "after")]
        print(
            "timestep {}: temperature {:.3f}, calibration error {} -> {}, negative log likelihood {} -> {}".format(
                level["timestep"], level["temperature"], *measures
            )
        )
