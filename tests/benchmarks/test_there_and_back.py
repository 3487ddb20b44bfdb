# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest
import torch

from diffscm_diffusers import DiffSCMSemanticCounterfactualPipeline
from diffscm_diffusers.worlds import TypefaceWorld


def test_each_row_is_taken_there_and_back(load_benchmark, tmp_path):
    flags = ["--num_samples", "2", "--num_cycles", "2", "--num_inference_steps", "2", "--seed", "3"]
    load_benchmark("there_and_back").main([*flags, "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "there-and-back.json").read_text())["cycles"]
    table = (tmp_path / "there-and-back.md").read_text().splitlines()
    assert table[0] == "| cycles | 1 | 2 |" and len(table) == 7
    for (name, errors), line in zip(results.items(), table[2:], strict=True):
        assert line == f"| {name} | {errors[0]:.4f} | {errors[1]:.4f} |" and 0 < errors[0] < 0.2

    # Two calls of the pipeline, one of them of what the other gives.
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained("checkpoints/diffscm-typeface")
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    factual = TypefaceWorld().sample(2, generator)
    digit, images = factual.variables["digit"], factual.images
    target = (digit + torch.randint(1, 10, digit.shape, generator=generator)) % 10
    errors = []
    for _ in range(2):
        for start, end in ((digit, target), (target, digit)):
            images = pipe(images, end, start, num_inference_steps=2, abduction="source", output_type="pt").images
        errors.append((images - factual.images).abs().mean().item())
    assert results["explicit moves"] == pytest.approx(errors, abs=1e-5)


def test_labelled_digits_can_be_taken(load_benchmark, labelled_digits, tmp_path):
    flags = ["--dataset_name", labelled_digits, "--num_samples", "2", "--num_cycles", "1"]
    load_benchmark("there_and_back").main([*flags, "--num_inference_steps", "2", "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "there-and-back.json").read_text())["cycles"]
    assert 0 < results["encoder and decoder alone"][0] < 0.03


@torch.no_grad()
def test_a_code_that_is_given_is_not_read_anew(load_benchmark):
    there_and_back = load_benchmark("there_and_back")
    pipe = DiffSCMSemanticCounterfactualPipeline.from_pretrained("checkpoints/diffscm-typeface")
    pipe.set_progress_bar_config(disable=True)
    factual = TypefaceWorld().sample(2, torch.Generator().manual_seed(0))
    digit, target = factual.variables["digit"], torch.tensor([3, 5])
    code = there_and_back.encode(pipe, factual.images, digit)
    arguments = (pipe, factual.images, digit, target, 2, "source")
    read, given, other = (there_and_back.estimate(*arguments, c) for c in (None, code, code + 1))
    torch.testing.assert_close(given, read)
    assert (other - read).abs().mean() > 1e-3
