# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures what a code's mechanism is worth, by the true counterfactuals of the world of typefaces.

    python benchmarks/code_mechanism.py --encoders outputs/mechanism-0.003 outputs/mechanism-0.0003 \
        --output_dir outputs/code-mechanism

Each encoder, from `train_code_mechanism.py`, reads the code of the same samples and decodes it under another digit,
without a denoiser: once the code as it is, and once what its mechanism makes of its noise. Beside the error to the
truth, how many images a judge sees as the target. Writes `code-mechanism.json` and a table.
"""

import argparse

import torch
import torch.nn.functional as F
from judges import train_judge
from results import write_results
from tqdm.auto import tqdm

from diffscm_diffusers import SemanticEncoder2DModel
from diffscm_diffusers.flags import non_negative_int, positive_int
from diffscm_diffusers.metrics.functional import counterfactual_error
from diffscm_diffusers.training.code_mechanism import read_codes
from diffscm_diffusers.worlds import TypefaceWorld


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", required=True, help="Folders of encoders with a mechanism.")
    parser.add_argument("--num_samples", type=positive_int, default=1000)
    parser.add_argument("--num_references", type=positive_int, default=10000, help="Images of the judge.")
    parser.add_argument("--judge_steps", type=positive_int, default=400, help="Training steps of the judge.")
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args(argv)


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    encoders = {folder: SemanticEncoder2DModel.from_pretrained(folder).eval() for folder in args.encoders}
    for folder, encoder in encoders.items():
        if encoder.mechanism is None:
            raise ValueError(f"`--encoders` expects encoders with a mechanism, got {folder!r} without one.")
    world, generator = TypefaceWorld(), torch.Generator().manual_seed(args.seed)
    factual, reference = (world.sample(n, generator) for n in (args.num_samples, args.num_references))
    digit = factual.variables["digit"]
    target = (digit + torch.randint(1, 10, digit.shape, generator=generator)) % 10
    truth = world.counterfactual(factual, {"digit": target}).images
    judge = train_judge(reference.images, reference.variables["digit"], args.judge_steps, args.seed)

    condition, other_condition = F.one_hot(digit, 10).float(), F.one_hot(target, 10).float()
    results = {}
    for folder, encoder in tqdm(encoders.items(), "Encoders"):
        batches = zip((2 * factual.images - 1).split(250), condition.split(250), strict=True)
        code, std, _ = read_codes(encoder, batches)
        other_code = encoder.predict(encoder.abduct(code, condition), other_condition)
        results[folder] = {"change of the code": ((other_code - code) / std).square().mean().sqrt().item()}
        for name, decoded in (("without", code), ("with", other_code)):
            images = encoder.decode(decoded, other_condition) / 2 + 0.5
            results[folder] |= {
                f"error, {name} the mechanism": counterfactual_error(images, truth).mean().item(),
                f"target seen, {name} the mechanism": (judge(images).argmax(1) == target).double().mean().item(),
            }

    columns = list(next(iter(results.values())))
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    lines += [f"| {name} | {' | '.join(f'{value:.4f}' for value in row.values())} |" for name, row in results.items()]
    print("\n".join(lines))
    write_results(args.output_dir, "code-mechanism", {"settings": vars(args), **results}, lines)


if __name__ == "__main__":
    main()
