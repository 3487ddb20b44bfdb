# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Time and memory of one counterfactual at ImageNet's full size: 256x256 pixels, 1,000 classes, the networks of the
paper's Table 2 with random weights.

    python benchmarks/imagenet256_size.py --num_inference_steps 2
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel

from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
from diffscm_diffusers.conversion.class_names import imagenet_id2label
from diffscm_diffusers.flags import non_negative_float, positive_int


CONFIGS = Path(__file__).resolve().parents[1] / "train_scripts" / "configs"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="`cpu` or a CUDA device.")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--num_inference_steps", type=positive_int, default=2, help="DDIM steps each way.")
    parser.add_argument("--guidance_scale", type=non_negative_float, default=5.0)
    parser.add_argument("--model_cpu_offload", action="store_true", help="Keep one network on the device at a time.")
    return parser.parse_args(argv)


def create_pipeline(dtype: torch.dtype) -> DiffSCMCounterfactualPipeline:
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    unet = UNet2DModel.from_config(UNet2DModel.load_config(CONFIGS / "unet_imagenet256.json"))
    classifier = AntiCausalClassifier2DModel.from_config(
        AntiCausalClassifier2DModel.load_config(CONFIGS / "classifier_imagenet256.json"), id2label=imagenet_id2label()
    )
    torch.set_default_dtype(torch.float32)
    for name, model in (("unet", unet), ("classifier", classifier)):
        print(f"{name}: {model.num_parameters() / 1e6:.1f} M parameters")
    return DiffSCMCounterfactualPipeline(unet.eval(), classifier.eval(), DDPMScheduler(variance_type="learned_range"))


def peak_memory(device: str) -> float:
    """The most memory in use at once so far, in GiB: the process' on a CPU, PyTorch's on an accelerator."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(argv=None):
    args = parse_args(argv)
    pipe = create_pipeline(getattr(torch, args.dtype))
    if args.model_cpu_offload:
        pipe.enable_model_cpu_offload(device=args.device)
    else:
        pipe.to(args.device)
    print(f"{args.dtype} weights loaded: peak memory {peak_memory(args.device):.2f} GiB")

    image = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    noise = pipe.abduct(image, num_inference_steps=args.num_inference_steps, marginal_abduction=True)
    abducted = time.perf_counter()
    output = pipe.predict(
        noise,
        281,  # "tabby, tabby cat"
        guidance_scale=args.guidance_scale,
        num_inference_steps=args.num_inference_steps,
        output_type="pt",
    )
    predicted = time.perf_counter()
    assert output.images.shape == (1, 3, 256, 256) and output.images.isfinite().all()
    print(
        f"{args.num_inference_steps} steps each way on {args.device}: abduction {abducted - start:.1f} s, prediction "
        f"{predicted - abducted:.1f} s, peak memory {peak_memory(args.device):.2f} GiB"
    )


if __name__ == "__main__":
    main()
