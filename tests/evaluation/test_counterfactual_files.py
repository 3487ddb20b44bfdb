# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
import os
from unittest import mock

import pytest
import torch

from diffscm_diffusers.evaluation.counterfactual_files import missing_chunks, read_chunks, record_settings, write_chunk


def write(folder, *chunks: range):
    """Writes images that show the number of their pair."""
    for chunk in chunks:
        numbers = torch.arange(chunk.start, chunk.stop).float()
        write_chunk(folder, chunk, numbers.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2), seconds=0.5 * len(chunk))


def test_chunks_come_back_in_the_order_of_the_pairs(tmp_path):
    write(tmp_path, range(8, 10), range(0, 4), range(4, 8))
    counterfactual, seconds = read_chunks(tmp_path)
    assert counterfactual[:, 0, 0, 0].tolist() == list(range(10))
    assert seconds.tolist() == [0.5] * 10
    assert read_chunks(tmp_path, 5)[0][:, 0, 0, 0].tolist() == list(range(5))


def test_chunks_before_the_first_pair_are_not_opened(tmp_path):
    write(tmp_path, range(0, 4), range(4, 8), range(8, 10))
    (tmp_path / "00000-00003.safetensors").write_bytes(b"damaged")
    counterfactual, seconds = read_chunks(tmp_path, 9, first=5)
    assert counterfactual[:, 0, 0, 0].tolist() == [5, 6, 7, 8] and seconds.tolist() == [0.5] * 4
    (tmp_path / "00004-00007.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold all counterfactuals of 9 pairs"):
        read_chunks(tmp_path, 9, first=5)


def test_only_missing_pairs_are_asked_for(tmp_path):
    assert missing_chunks(tmp_path, 10, 4) == [range(0, 4), range(4, 8), range(8, 10)]
    write(tmp_path, range(0, 4), range(8, 10))
    assert missing_chunks(tmp_path, 10, 4) == [range(4, 8)]
    assert missing_chunks(tmp_path, 3, 4) == []
    # More pairs keep what there is, the last chunk too, which was cut short.
    assert missing_chunks(tmp_path, 17, 4) == [range(4, 8), range(10, 12), range(12, 16), range(16, 17)]
    # Another batch size never spans what there is.
    assert missing_chunks(tmp_path, 14, 100) == [range(4, 8), range(10, 14)]


def test_a_gap_is_an_error(tmp_path):
    write(tmp_path, range(0, 4), range(8, 10))
    with pytest.raises(ValueError, match="does not hold all counterfactuals of 10 pairs"):
        read_chunks(tmp_path)
    assert len(read_chunks(tmp_path, 4)[0]) == 4


def test_an_interrupted_write_leaves_no_chunk(tmp_path):
    with mock.patch.object(os, "replace", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        write(tmp_path, range(0, 4))
    assert missing_chunks(tmp_path, 4, 4) == [range(0, 4)]
    write(tmp_path, range(0, 4))
    assert missing_chunks(tmp_path, 4, 4) == []


def test_a_damaged_chunk_is_named(tmp_path):
    write(tmp_path, range(0, 4), range(4, 8))
    path = tmp_path / "00004-00007.safetensors"
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for content in (whole[:0], whole[:5], whole[:-1], flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="00004-00007.safetensors' is damaged: delete it and run again"):
            read_chunks(tmp_path)
    assert len(read_chunks(tmp_path, 4)[0]) == 4


def test_other_settings_are_refused_by_name(tmp_path):
    settings = {"guidance_scale": 8.0, "split": "test"}
    record_settings(tmp_path, settings)
    write(tmp_path, range(0, 4))
    record_settings(tmp_path, settings)
    with pytest.raises(ValueError, match="`guidance_scale` 8.0 there and 4.0 here. Take another") as error:
        record_settings(tmp_path, {**settings, "guidance_scale": 4.0})
    assert "split" not in str(error.value)
    with pytest.raises(ValueError, match="`seed` None there and 1 here"):
        record_settings(tmp_path, {**settings, "seed": 1})


def test_settings_of_a_run_that_finished_nothing_are_written_over(tmp_path):
    record_settings(tmp_path, {"guidance_scale": 8.0})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "unfinished-train-00000000.parquet").touch()
    (tmp_path / "unfinished-00000-00003.safetensors").touch()
    record_settings(tmp_path, {"guidance_scale": 4.0})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"guidance_scale": 4.0}
    assert not list(tmp_path.glob("unfinished-*.json"))

    (tmp_path / "data" / "train-00000000.parquet").touch()
    with pytest.raises(ValueError, match="`guidance_scale` 4.0 there and 8.0 here"):
        record_settings(tmp_path, {"guidance_scale": 8.0})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"guidance_scale": 4.0}


@pytest.mark.parametrize("text", ["", '{"guidance_scale": 8'])
def test_damaged_settings_are_refused_beside_counterfactuals(tmp_path, text):
    path = tmp_path / "settings.json"
    path.write_text(text)
    record_settings(tmp_path, {"guidance_scale": 8.0})
    assert json.loads(path.read_text()) == {"guidance_scale": 8.0}

    write(tmp_path, range(0, 4))
    path.write_text(text)
    with pytest.raises(ValueError, match="settings.json' is damaged.* delete it and run again"):
        record_settings(tmp_path, {"guidance_scale": 8.0})
    assert path.read_text() == text
