# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json

import pytest


@pytest.mark.filterwarnings("ignore:.*less probable", "ignore:Implicit abduction of")
@pytest.mark.parametrize("world", ["typeface", "morphomnist-graph"])
def test_codes_that_are_less_certain_cover_more(load_benchmark, world, labelled_digits, tmp_path):

    flags = ["--pretrained_model_name_or_path", f"checkpoints/diffscm-{world}", "--num_inference_steps", "2"]
    flags += ["--dataset_name", labelled_digits, "--split", "test", "--num_samples", "1"]
    flags += ["--transfer_scales", "0", "4", "--noise_decays", "0", "0.1", "--output_dir", str(tmp_path)]
    load_benchmark("draws").main(flags)
    narrow, fresh, wide, _ = json.loads((tmp_path / "draws.json").read_text())["draws"]
    assert narrow["transfer scale"] == fresh["transfer scale"] == 0 and fresh["noise decay"] == 0.1
    assert narrow["error of one draw"] != fresh["error of one draw"]
    name = "coverage of the 90 % interval, where there is ink"
    assert 0 <= narrow[name] < wide[name] <= 1
    assert narrow["error of one draw"] != wide["error of one draw"]
    assert narrow["std of u"] == wide["std of u"] and narrow["kurtosis of u"] == wide["kurtosis of u"]
    table = (tmp_path / "draws.md").read_text().splitlines()
    assert len(table) == 6 and table[4].startswith(f"| 4 | 0 | {wide['error of one draw']:.4f} | ")


def test_too_few_draws_for_an_interval_are_refused(load_benchmark, tmp_path, capsys):
    with pytest.raises(SystemExit):
        load_benchmark("draws").parse_args(["--num_draws", "18", "--output_dir", str(tmp_path)])
    assert "--num_draws expects at least 19 draws for an interval of 90 %, got 18" in capsys.readouterr().err
