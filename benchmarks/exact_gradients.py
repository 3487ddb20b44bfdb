# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Compares the gradients of a joint predictor with the exact ones, where a confounder made digit and hue go together.

    python benchmarks/exact_gradients.py --predictors outputs/confounding/strength-0.9/joint-predictor \
        --denoisers outputs/confounding/strength-0.9/denoiser --output_dir outputs/exact-gradients

A world that renders knows them. By Bayes' rule, the gradient of `log p(hue | x_t, digit)` is that of
`log p(x_t | digit, hue)` minus that of `log p(x_t | digit)`: the difference of two means of the clean image, over the
styles and hues that could have given the noisy one. The styles are some thousands drawn from the world, the hues a
grid. The noisy images are those that `do(digit)` asks for: of printed digits in a hue that the confounder hardly ever
gives them. Where the noise is too weak, a single style explains the noisy image, and the mean is that of too few;
`styles` says how many it is of. A denoiser that is told its causes gives the same gradients, as differences of its
predictions.

Of the digit, of the hue given the digit, and of both together: the mean cosine between an estimated gradient and the
exact one, and the ratio of their mean norms. Writes `exact-gradients.json` and the table `exact-gradients.md`.
"""

import argparse

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from results import write_results
from tqdm.auto import tqdm

from diffscm_diffusers import CausalPredictor2DModel, CausalUNet2DModel
from diffscm_diffusers.flags import non_negative_int, positive_int, rate
from diffscm_diffusers.worlds import TypefaceWorld
from diffscm_diffusers.worlds.typeface import _hue_to_rgb


NUM_HUES = 60
PARTS = ("digit", "hue", "both")


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictors", nargs="+", default=[], help="Joint predictors, by `train_classifier.py`.")
    parser.add_argument("--denoisers", nargs="+", default=[], help="Told digit and hue, by `train_diffusion.py`.")
    parser.add_argument("--strength", type=rate, default=0.9, help="Of the confounder in their training data.")
    parser.add_argument("--timesteps", type=non_negative_int, nargs="+", default=[500, 600, 700, 800, 900])
    parser.add_argument("--num_samples", type=positive_int, default=32, help="Noisy images at each timestep.")
    parser.add_argument("--num_styles", type=positive_int, default=6000)
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True)
    args = parser.parse_args(argv)
    if not args.predictors and not args.denoisers:
        parser.error("--predictors or --denoisers expects at least one folder, got none")
    return args


class ExactGradients:
    """
    The exact gradients of `log p(digit | x_t)` and `log p(hue | x_t, digit)`.

    Args:
        strength (`float`): Of the confounder.
        num_styles (`int`): How many styles to draw.
        generator (`torch.Generator`): Draws them.
    """

    def __init__(self, strength: float, num_styles: int, generator: torch.Generator):
        world = TypefaceWorld()
        styles = world.sample(num_styles, generator)
        # The ink of each digit in each style, and the colour of each hue.
        self.ink = [world.counterfactual(styles, {"digit": digit}).images.flatten(1) for digit in range(10)]
        hues = (torch.arange(NUM_HUES) + 0.5) / NUM_HUES
        self.color = _hue_to_rgb(hues)
        # A digit has the confounder's hue, or that of chance.
        agrees = (hues * 10).long() == torch.arange(10)[:, None]
        law = (1 - strength) / NUM_HUES + strength * agrees / agrees.sum(dim=1, keepdim=True)
        self.log_law = law.log()

    def __call__(
        self, sample: torch.Tensor, alpha_prod: float, digit: int, hue: float
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """
        Args:
            sample (`torch.Tensor` of shape `(3, 28, 28)`): A noisy image.
            alpha_prod (`float`): Its level of noise.
            digit, hue (`int`, `float`): The causes.

        Returns:
            `tuple`: both gradients, like `sample`, and the number of styles that the mean given both causes is of.
        """
        # A clean image is `2 * ink * color - 1`, so its distance from the noisy one takes products with the ink alone.
        scale, variance = alpha_prod**0.5, 1 - alpha_prod
        shifted = (sample + scale).flatten(1)
        log_likelihood = [
            (
                2 * scale * (ink @ shifted.T) @ self.color.T
                - 2 * alpha_prod * ink.square().sum(dim=1, keepdim=True) * self.color.square().sum(dim=1)
            )
            / variance
            for ink in self.ink
        ]

        def mean_of_images(log_weight: torch.Tensor, digits: list[int]) -> torch.Tensor:
            weight = (log_weight - log_weight.amax()).exp()
            weight = weight / weight.sum()
            return sum((w @ self.color).T @ self.ink[k] for k, w in zip(digits, weight, strict=True))

        joint = torch.stack(log_likelihood) + self.log_law[:, None]
        of_hue = torch.full_like(joint[digit], -torch.inf)
        nearest = round(hue * NUM_HUES - 0.5) % NUM_HUES
        of_hue[:, nearest] = log_likelihood[digit][:, nearest]
        means = [
            mean_of_images(joint, list(range(10))),
            mean_of_images(joint[digit : digit + 1], [digit]),
            mean_of_images(of_hue[None], [digit]),
        ]
        gradients = [2 * scale / variance * (after - before) for before, after in zip(means, means[1:], strict=False)]
        weight = of_hue[:, nearest].softmax(dim=0)
        return *(gradient.view_as(sample) for gradient in gradients), 1 / weight.square().sum().item()


def estimate(
    network,
    prediction_type: str | None,
    sample: torch.Tensor,
    timestep: int,
    alpha_prod: float,
    condition: torch.Tensor,
) -> list[torch.Tensor]:
    """The gradients of digit and hue by a predictor, or by a denoiser that is told them."""
    if isinstance(network, CausalPredictor2DModel):
        weights = torch.eye(2)[:, None].expand(2, len(sample), 2)
        return [network.log_prob_gradient(sample, timestep, condition, w)[0] for w in weights]
    told = torch.tensor([[False, False], [True, False], [True, True]])
    predictions = [network(sample, timestep, condition, keep.expand(len(sample), -1)).sample for keep in told]
    # Differences of the velocity are those of the noise but for this factor.
    scale = (alpha_prod if prediction_type == "v_prediction" else 1) ** 0.5 / (1 - alpha_prod) ** 0.5
    return [scale * (before - after) for before, after in zip(predictions, predictions[1:], strict=False)]


def compare(estimates: list[torch.Tensor], exact: list[torch.Tensor]) -> dict[str, float]:
    """Mean cosine of each gradient and of their sum, and the ratio of their mean norms."""
    measures = {}
    for part, estimated, true in zip(PARTS, [*estimates, sum(estimates)], [*exact, sum(exact)], strict=True):
        estimated, true = estimated.flatten(1), true.flatten(1)
        measures[f"cosine, {part}"] = F.cosine_similarity(estimated, true).mean().item()
        measures[f"norm, {part}"] = (estimated.norm(dim=1).mean() / true.norm(dim=1).mean()).item()
    return measures


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    networks = {folder: (CausalPredictor2DModel.from_pretrained(folder), None) for folder in args.predictors}
    for folder in args.denoisers:
        prediction_type = DDPMScheduler.from_pretrained(folder, subfolder="scheduler").config.prediction_type
        if prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"`--denoisers` expects to predict the noise or the velocity, got {prediction_type!r}.")
        networks[folder] = CausalUNet2DModel.from_pretrained(folder, subfolder="unet"), prediction_type
    alphas_cumprod = DDPMScheduler().alphas_cumprod.tolist()

    # 1. Printed digits in a hue that is not the confounder's, but by chance
    generator = torch.Generator().manual_seed(args.seed)
    exact_gradients = ExactGradients(args.strength, args.num_styles, generator)
    world = TypefaceWorld(color=True, confounding=0.0)
    factual = world.sample(args.num_samples, generator)
    digit = (factual.variables["digit"] + torch.randint(1, 10, (args.num_samples,), generator=generator)) % 10
    images, hue = 2 * world.counterfactual(factual, {"digit": digit}).images - 1, factual.variables["hue"]
    condition = torch.cat([F.one_hot(digit, 10).float(), 2 * hue[:, None] - 1], dim=1)

    # 2. Gradients at each level of noise
    lines = ["| timestep | styles | network | " + " | ".join(f"cosine, norm: {part}" for part in PARTS) + " |"]
    lines.append("| --- |" + " --- |" * 5)
    results = {}
    for timestep in tqdm(args.timesteps, "Noise levels"):
        alpha_prod = alphas_cumprod[timestep]
        noise = torch.randn(images.shape, generator=generator)
        sample = alpha_prod**0.5 * images + (1 - alpha_prod) ** 0.5 * noise
        rows = zip(sample, digit.tolist(), hue.tolist(), strict=True)
        *exact, styles = zip(*(exact_gradients(x, alpha_prod, *causes) for x, *causes in rows), strict=True)
        exact, styles = [torch.stack(gradient) for gradient in exact], torch.tensor(styles).median().item()
        results[timestep] = {"styles": styles}
        for folder, (network, prediction_type) in networks.items():
            estimates = estimate(network, prediction_type, sample, timestep, alpha_prod, condition)
            measures = compare(estimates, exact)
            results[timestep][folder] = measures
            cells = [f"{measures[f'cosine, {part}']:.2f}, {measures[f'norm, {part}']:.2f}" for part in PARTS]
            lines.append(f"| {timestep} | {styles:.0f} | {folder} | " + " | ".join(cells) + " |")
            print(lines[-1])

    write_results(args.output_dir, "exact-gradients", {"settings": vars(args), "timesteps": results}, lines)


if __name__ == "__main__":
    main()
