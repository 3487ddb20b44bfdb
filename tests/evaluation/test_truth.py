# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the data of a world know of counterfactuals, and the criteria that a causal model is held to."""

import json
import shutil

import pytest
import torch

from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import write_chunk
from diffscm_diffusers.evaluation.criteria import list_criteria, score_criteria, score_noise
from diffscm_diffusers.evaluation.measuring import MeasuringNetwork
from diffscm_diffusers.evaluation.methods import Draws, Method
from diffscm_diffusers.evaluation.pairs import load_pairs_and_images, read_classes
from diffscm_diffusers.evaluation.truth import find_attributes, has_truth, load_truth

from .small_world import CLASSES, LEVELS, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world") / "small", num_train=300, num_test=24)


@pytest.fixture(scope="module")
def splits(world, cache_dir):
    return load_image_dataset(str(world), label_column="label", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def loaded(world, splits):
    """Pairs, factuals, references and truth."""
    collate, rows = ImageCollator(8, 1, "image", "label"), splits["test"]
    interventions = read_classes(rows, collate, CLASSES, "intervention")
    pairs, factuals, reference = load_pairs_and_images(
        splits, "test", "train", collate, CLASSES, 0, show_progress=False, interventions=interventions
    )
    truth = load_truth(str(world), rows, splits["train"], pairs, collate, CLASSES, show_progress=False)
    return pairs, factuals, reference, truth


class ExactNetwork:
    """Measures as the world was rendered."""

    def measure(self, images):
        levels = images * 255
        is_row = levels[:, 0, 0, 0] == levels[:, 0, 0, 1]
        darkest = levels.flatten(1).amin(1)
        grey = (darkest[:, None] - LEVELS).abs().argmin(1)
        return {"grey": grey, "pattern": (~is_row).long(), "shift": darkest - LEVELS[grey]}


class TestTruth:
    def test_pairs_meet_the_interventions_of_the_data(self, splits, loaded):
        pairs, factuals, _, truth = loaded
        assert torch.equal(pairs.intervention, (pairs.factual_class + 1) % 3)
        # Only the grey level differs.
        change = (truth.images.pixels.int() - factuals.pixels.int())[:, 0]
        expected = LEVELS[pairs.intervention] - LEVELS[pairs.factual_class]
        assert torch.equal(change, expected[:, None, None].expand(-1, 8, 8).int())

    def test_only_the_test_split_has_it(self, splits):
        assert has_truth(splits["test"]) and not has_truth(splits["train"])
        assert not has_truth(splits["test"].remove_columns("counterfactual"))
        half = splits["test"].map(lambda row, index: {"intervention": None if index == 3 else 1}, with_indices=True)
        with pytest.raises(ValueError, match="'intervention' expects an intervention in every row.* none in row 3"):
            has_truth(half)

    def test_attributes_are_causes_and_noise_with_a_meaning(self, world, splits, loaded, tmp_path):
        graph, cause = find_attributes(str(world), splits["test"], "label")
        assert cause == "grey" and set(graph.image_parents) == {"grey", "pattern", "shift"}
        assert find_attributes("someone/small", splits["test"], "label") == (None, "")
        pairs, _, _, truth = loaded
        assert torch.equal(truth.attributes["grey"], pairs.intervention)
        assert truth.attributes["shift"].tolist() == [splits["test"][row]["shift"] for row in pairs.row.tolist()]
        assert truth.attribute_labels["error_shift"] == "error of shift (grey levels)"
        assert truth.attribute_labels["error_pattern"] == "wrong pattern"

        # What the class causes would have become another value, which the data do not hold.
        folder = shutil.copytree(world, tmp_path / "caused")
        content = json.loads((folder / "graph.json").read_text())
        content["nodes"]["shift"] = content["exogenous_noise"].pop("shift")
        content["edges"] += [["grey", "shift"], ["shift", "image"]]
        (folder / "graph.json").write_text(json.dumps(content))
        assert set(find_attributes(str(folder), splits["test"], "label")[0].image_parents) == {"grey", "pattern"}

    def test_errors(self, loaded):
        pairs, factuals, _, truth = loaded
        scores = truth.score(truth.images.images(slice(None)), ExactNetwork())
        assert scores["error_l1"].max() == scores["error_rms"].max() == scores["error_pattern"].max() == 0
        assert scores["error_grey"].max() == 0 and scores["error_shift"].max() < 0.51  # whole grey levels

        scores = truth.score(factuals.images(slice(None)), ExactNetwork())
        change = (LEVELS[pairs.intervention] - LEVELS[pairs.factual_class]).abs() / 255
        torch.testing.assert_close(scores["error_l1"], change)
        torch.testing.assert_close(scores["error_rms"], change)
        assert scores["error_grey"].min() == 1 and scores["error_shift"].max() < 0.51

        checkered = truth.images.images(slice(None)).transpose(2, 3) + 3 / 255
        scores = truth.score(checkered, ExactNetwork())
        assert scores["error_pattern"].min() == 1
        assert scores["error_shift"].mean().item() == pytest.approx(3, abs=0.3)
        assert "error_shift" not in truth.score(checkered, None)


class TestMeasuringNetwork:
    def test_learns_numbers_and_categories(self, loaded, tmp_path):
        _, _, reference, truth = loaded
        network = MeasuringNetwork.train(truth.graph, reference, truth.reference_attributes, 200, 0, False)
        scores = truth.score(truth.images.images(slice(None)), network)
        assert scores["error_grey"].mean() <= 0.05 and scores["error_pattern"].mean() <= 0.05
        assert scores["error_shift"].mean() < 7  # of -30 to 30: by chance it would be 15

        network.save(tmp_path / "network", {"seed": 0})
        loaded_network = MeasuringNetwork.load(truth.graph, tmp_path / "network", {"seed": 0})
        again = truth.score(truth.images.images(slice(None)), loaded_network)
        assert torch.equal(again["error_shift"], scores["error_shift"])
        assert MeasuringNetwork.load(truth.graph, tmp_path / "nothing", {"seed": 0}) is None
        with pytest.raises(ValueError, match="expects a network that was trained with .*1.*, got one .*0"):
            MeasuringNetwork.load(truth.graph, tmp_path / "network", {"seed": 1})


class TestCriteria:
    def make_method(self, loaded, step=0.0, with_draws=False):
        """Changes the grey level as the truth does and adds `step`. Draws are the truth and a noise of 0.02."""
        pairs, factuals, _, truth = loaded

        def estimate(images, factual_class, intervention):
            change = (LEVELS[intervention] - LEVELS[factual_class]) / 255 + step
            return images + change[:, None, None, None]

        def draw(index, num_draws, generator):
            noise = torch.randn(num_draws, len(index), 1, 8, 8, generator=generator)
            code = torch.randn(num_draws, len(index), 5, generator=generator) + 30 * pairs.factual_class[index, None]
            return Draws(truth.images.images(index) + 0.02 * noise.clamp(-3, 3), noise, code)

        def generate(index):
            return estimate(factuals.images(index), pairs.factual_class[index], pairs.intervention[index])

        return Method(generate, {}, estimate, draw if with_draws else None)

    def score(self, loaded, folder, method, num_repeated=24):
        pairs, factuals, _, truth = loaded
        write_chunk(folder / "counterfactuals", range(24), method.generate(torch.arange(24)), 1.0)
        where = folder / "criteria", folder / "counterfactuals"
        criteria = list_criteria(method, *where, pairs, factuals, 1000, num_repeated, 19, 0, with_draws=True)
        for criterion in criteria:
            for chunk in (range(0, 10), range(10, criterion.num_pairs)):
                write_chunk(criterion.folder, chunk, seconds=1.0, **criterion.generate(torch.tensor(chunk)))
        return score_criteria(criteria, pairs, factuals, truth, 0)

    def test_an_exact_mechanism_loses_nothing(self, loaded, tmp_path):
        scores, _ = self.score(loaded, tmp_path, self.make_method(loaded))
        for name in ("null_intervention", "there_and_back", "ten_times_there_and_back"):
            assert len(scores[name]) == 24 and scores[name].max() < 1e-5

    def test_what_each_call_adds(self, loaded, tmp_path):
        step = 0.001
        scores, _ = self.score(loaded, tmp_path, self.make_method(loaded, step), num_repeated=12)
        for name, num_calls, num_samples in (
            ("null_intervention", 1, 24),
            ("there_and_back", 2, 24),
            ("ten_times_there_and_back", 20, 12),
        ):
            assert len(scores[name]) == num_samples
            assert scores[name].mean().item() == pytest.approx(num_calls * step, rel=1e-3)

    def test_draws_and_noise(self, loaded, tmp_path):
        scores, noise = self.score(loaded, tmp_path, self.make_method(loaded, with_draws=True))
        assert scores["error_of_one_draw"].mean().item() == pytest.approx(0.02 * 0.798, rel=0.05)  # E|N(0, 1)|
        assert scores["error_of_mean"].mean().item() == pytest.approx(0.02 * 0.798 / 19**0.5, rel=0.1)
        # The truth is the centre of the draws, and not one more of them: it is never outside.
        assert scores["coverage"].mean() > 0.95
        torch.testing.assert_close(scores["coverage_of_ink"], scores["coverage"], atol=0.02, rtol=0)
        assert scores["crps"].mean().item() == pytest.approx(0.02 * 0.234, rel=0.1)  # of N(0, 1) at its centre

        spatial, code = noise["noise"], noise["code"]
        assert abs(spatial["std"] - 1) < 0.05 and abs(spatial["kurtosis"] - 3) < 0.4
        assert spatial["p_value"] > 0.01 and spatial["probe_accuracy"] <= 1
        # The code tells the class.
        assert code["p_value"] < 0.01 < 0.5 < code["distance_correlation"]
        assert code["probe_accuracy"] > code["probe_chance"]

    def test_draws_of_several_chunks_differ(self, loaded, tmp_path):
        pairs, factuals, _, _ = loaded
        where = tmp_path / "criteria", tmp_path / "counterfactuals"
        method = self.make_method(loaded, with_draws=True)
        (one,) = [
            criterion
            for criterion in list_criteria(method, *where, pairs, factuals, 24, 24, 19, 0, with_draws=False)
            if criterion.folder.name == "one-draw"
        ]
        first, second, again = (one.generate(torch.arange(*ends))["noise"] for ends in ((0, 4), (4, 8), (0, 4)))
        assert torch.equal(first, again) and (first - second).abs().min() > 0

    def test_of_a_method_that_only_generates_there_are_none(self, loaded, tmp_path):
        pairs, factuals, _, _ = loaded
        method = Method(factuals.images)
        assert list_criteria(method, tmp_path, tmp_path, pairs, factuals, 9, 9, 19, 0, with_draws=True) == []

    def test_too_few_samples_tell_nothing_of_the_class(self):
        noise = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        assert set(score_noise(noise, torch.arange(9) % 3, 0)) == {"mean", "std", "kurtosis"}
