# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Measures what a semantic code says of the causes, of which it should say nothing.

    python benchmarks/code_independence.py --encoder checkpoints/diffscm-mnist-semantic/encoder \
        --dataset_name ylecun/mnist --output_dir outputs/code-independence
    python benchmarks/code_independence.py --encoder checkpoints/diffscm-morphomnist-graph/encoder \
        --dataset_name outputs/morpho-mnist --graph outputs/morpho-mnist/graph.json --output_dir outputs/independence

A code has dozens of entries, and what it says can be in how they go together. It takes tens of thousands of codes to
learn to read that: a probe on hundreds finds nothing. So each image of the split gives a code, drawn from its
posterior. Of a class, accuracy and chance; of a number, the coefficient of determination. Beside them, the size of the
code in nats. Where the code has a mechanism, the same of its exogenous noise, and how far it lies from the code, root
mean square, in posterior standard deviations. Writes `code-independence.json`.
"""

import argparse
import json
from pathlib import Path

import torch
from torch.distributions import Normal, kl_divergence
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffscm_diffusers import SemanticEncoder2DModel
from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.files import written_whole
from diffscm_diffusers.flags import non_negative_int, positive_int
from diffscm_diffusers.metrics import probe_accuracy, probe_r2
from diffscm_diffusers.training.code_mechanism import read_codes


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="checkpoints/diffscm-mnist-semantic/encoder")
    parser.add_argument("--dataset_name", default="ylecun/mnist", help="On the Hub, or a local folder.")
    parser.add_argument("--split", default="train", help="Images whose codes the probe reads, 4/5 to learn.")
    parser.add_argument("--graph", help="JSON file of a causal graph. Default: the class in `label` is the cause.")
    parser.add_argument("--batch_size", type=positive_int, default=1000)
    parser.add_argument("--seed", type=non_negative_int, default=0)
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args(argv)


@torch.no_grad()
def main(argv=None):
    args = parse_args(argv)
    encoder = SemanticEncoder2DModel.from_pretrained(args.encoder).float().eval()
    graph = None if args.graph is None else CausalGraph.from_json(args.graph)
    labels = "label" if graph is None else None
    dataset = load_image_dataset(args.dataset_name, split=args.split, label_column=labels, graph=graph)[args.split]
    if graph is None:
        graph = CausalGraph.of_classes("label", dataset.features["label"].names)
    collate = ImageCollator(encoder.config.sample_size, encoder.config.in_channels, "image", graph=graph)

    batches = tqdm(DataLoader(dataset, args.batch_size, collate_fn=collate), desc="Codes")
    mean, std, condition = read_codes(encoder, ((batch["pixel_values"], batch["condition"]) for batch in batches))
    code = mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(args.seed))

    summary = {"settings": vars(args), "codes": len(code)}
    summary["nats"] = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(dim=1).mean().item()
    parts = {"read": code}
    if encoder.mechanism is not None:
        noise = encoder.abduct(code, condition)
        parts["read from the noise"] = noise
        summary["displacement"] = ((noise - code) / std).square().mean().sqrt().item()
    for part, values in parts.items():
        summary[part] = {}
        for name, cause in graph.values(condition).items():
            if cause.is_floating_point():
                summary[part][name] = {"R2": probe_r2(values, cause, args.seed)}
            else:
                summary[part][name] = probe_accuracy(values, cause, args.seed)
    print(json.dumps(summary, indent=2))
    with written_whole(Path(args.output_dir) / "code-independence.json") as unfinished:
        unfinished.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
