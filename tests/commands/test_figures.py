# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import json
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from datasets import ClassLabel

from diffscm_diffusers import DiffSCMCounterfactualPipeline, LatentVAE, figures
from diffscm_diffusers.data.images import ImageCollator, load_image_dataset
from diffscm_diffusers.evaluation.counterfactual_files import write_chunk
from diffscm_diffusers.evaluation.pairs import load_pairs_and_images
from diffscm_diffusers.figures.grid import draw_image_grid
from diffscm_diffusers.figures.inputs import read_evaluation, read_factuals, read_references, spread
from diffscm_diffusers.files import locked
from tests.helpers import load_script, to_argv


make_figures = load_script("figures")

NAMES = ["dark", "grey", "light"]
FACTUAL_CLASS = [2, 0, 2, 1, 0, 1]
INTERVENTION = [0, 1, 1, 2, 2, 0]
FIRST_OF_EACH_CLASS = [1, 3, 0]


@pytest.fixture
def pipe(checkpoint):
    pipe = DiffSCMCounterfactualPipeline.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def evaluation(tmp_path):
    """What `diffscm evaluate` writes, of images of one grey value each: method + number of the pair, in hundredths."""
    folder = tmp_path / "evaluation"
    samples = []
    for i, method in enumerate(["schut", "factual", "diff-scm"]):
        values = torch.tensor([20.0 * i + number for number in range(6)]) / 100
        images = values.view(6, 1, 1, 1).expand(6, 1, 8, 8)
        write_chunk(folder / "counterfactuals" / method, range(0, 4), images[:4], 1.0)
        write_chunk(folder / "counterfactuals" / method, range(4, 6), images[4:], 1.0)
        columns = {"index": range(6), "row": range(6), "factual_class": FACTUAL_CLASS, "intervention": INTERVENTION}
        effectiveness = [1, 1, 1, 0, 1, 1] if method == "schut" else [1] * 6
        samples.append(pd.DataFrame({"method": method, **columns, "effectiveness": effectiveness}))
    pd.concat(samples).to_csv(folder / "samples.csv", index=False)
    (folder / "summary.json").write_text(json.dumps({"class_names": NAMES}))
    return folder


@pytest.fixture
def search(tmp_path):
    """What `diffscm search-scale` writes."""
    folder = tmp_path / "search"
    folder.mkdir()
    levels = {"cld": [1.3, 1.0, 1.1], "cld_floor": [0.9] * 3, "effectiveness": [0.0, 0.98, 1.0], "l1": [0.0, 0.1, 0.2]}
    scales = [
        {
            "guidance_scale": scale,
            **{name: {"mean": v[i], "low": v[i] - 0.01, "high": v[i] + 0.02} for name, v in levels.items()},
        }
        for i, scale in enumerate([0.0, 1.0, 3.0])
    ]
    content = {"chosen": 1.0, "min_effectiveness": 0.97, "num_pairs": 6, "scales": scales}
    (folder / "search.json").write_text(json.dumps(content))
    return folder


def shown_images(figure, rows: int) -> np.ndarray:
    """The images of a grid where they are seen: `(rows, columns, height, width)`, and `3` at the end in colour."""
    images = sorted(figure.axes[0].images, key=lambda image: (image.get_extent()[3], image.get_extent()[0]))
    images = [np.asarray(image.get_array()) for image in images]
    return np.stack(images).reshape(rows, -1, *images[0].shape)


def framed_images(figure) -> list[tuple[int, int]]:
    """Row and column of the images with a frame."""
    grid = figure.axes[0]
    lefts = sorted({image.get_extent()[0] for image in grid.images})
    tops = sorted({image.get_extent()[3] for image in grid.images})
    return [(tops.index(frame.get_y()), lefts.index(frame.get_x())) for frame in grid.patches]


def run(flags: dict, output_dir, *names: str, **more):
    argv = to_argv({**flags, **more, "output_dir": output_dir})
    make_figures.main([*argv, "--figures", *names] if names else argv)


def test_every_figure_is_written_as_png_and_pdf(flags, evaluation, search, tmp_path):
    run(flags, tmp_path / "figures", evaluation=evaluation, search=search)
    names = ["latents", "methods", "scale_search", "one_noise", "targets", "scales", "difference"]
    written = {path.name for path in (tmp_path / "figures").glob("[!.]*")}
    assert written == {f"{name}.{extension}" for name in names for extension in ("png", "pdf")}
    for name in names:
        pixels = np.asarray(PIL.Image.open(tmp_path / "figures" / f"{name}.png").convert("L"))
        assert pixels.shape[1] > 300
        assert 0.02 < (pixels < 250).mean() < 0.98, name
        assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_is_the_same_in_every_run(flags, tmp_path):
    for folder in ("a", "b"):
        run(flags, tmp_path / folder, "one_noise")
    for name in ("one_noise.png", "one_noise.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_methods_are_columns_and_the_first_pair_of_each_class_rows(evaluation):
    pairs, images, effective = read_evaluation(evaluation, NAMES, 10)
    assert pairs.factual_class.tolist() == [0, 1, 2]
    assert pairs.intervention.tolist() == [INTERVENTION[number] for number in FIRST_OF_EACH_CLASS]

    figure = figures.draw_methods(
        images["factual"], {"Diff-SCM": images["diff-scm"], "Schut et al.": images["schut"]}, NAMES, effective
    )
    expected = [[0.2 + number / 100, 0.4 + number / 100, number / 100] for number in FIRST_OF_EACH_CLASS]
    np.testing.assert_allclose(shown_images(figure, 3)[..., 0, 0], expected, atol=1e-6)
    # The oracle misses the target in pair 3 by Schut et al.
    assert framed_images(figure) == [(1, 2)]


def test_difference_is_red_where_brighter_and_blue_where_darker():
    factual = torch.full((2, 3, 8, 8), 0.5)
    counterfactual = factual.clone()
    counterfactual[1, :, 0, 0] = 1
    counterfactual[1, :, 7, 7] = 0
    figure = figures.draw_difference(factual, counterfactual, ["a", "b"])
    factual_row, counterfactual_row, difference_row = shown_images(figure, 3)
    np.testing.assert_array_equal(factual_row[1], factual[1].movedim(0, -1))
    np.testing.assert_array_equal(counterfactual_row[1], counterfactual[1].movedim(0, -1))
    unchanged, brighter, darker = difference_row[0, 0, 0], difference_row[1, 0, 0], difference_row[1, 7, 7]
    assert unchanged.min() > 0.95
    assert brighter[0] > brighter[2] + 0.3
    assert darker[2] > darker[0] + 0.3


def test_figures_say_what_images_and_classes_they_need(pipe, metric_models):
    images = torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="`factual` expects images of 1 or 3 channels, .* got the shape"):
        figures.draw_truth(images, {"do": (images, images)})
    grey = images[:, :1]
    with pytest.raises(ValueError, match="`intervention` expects one class for each of 2, got 3"):
        figures.draw_scales(pipe, grey, torch.tensor([0, 1, 2]), [1.0], num_inference_steps=2)
    vae = LatentVAE.from_pretrained(metric_models, subfolder="vae")
    with pytest.raises(ValueError, match="`reference` expects at least 3 images, got 2"):
        figures.draw_latents(vae, grey, torch.tensor([0, 2]), grey[0], grey[1], 0, 2, NAMES, seed=0)


def test_one_noise_is_shared_by_a_row(pipe):
    shown = shown_images(figures.draw_one_noise(pipe, 2, [0, 2], seed=3), 2)
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    np.testing.assert_allclose(shown[:, 0], (noise[:, 0] / 6 + 0.5).clamp(0, 1), atol=1e-6)
    for column, c in ((1, 0), (2, 2)):
        expected = pipe.predict(noise, c, output_type="pt").images[:, 0]
        np.testing.assert_allclose(shown[:, column], expected, atol=1e-5)


@pytest.mark.parametrize("is_marginal", [True, False])
def test_targets_are_columns_and_the_null_intervention_is_framed(pipe, is_marginal):
    pipe.register_to_config(default_marginal_abduction=is_marginal)
    factual = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = figures.draw_targets(pipe, factual, torch.tensor([2, 0]), [0, 1, 2], num_inference_steps=3, batch_size=4)
    shown = shown_images(figure, 2)
    np.testing.assert_allclose(shown[:, 0], factual[:, 0])
    settings = {"num_inference_steps": 3, "output_type": "pt"}
    expected = pipe(factual, guidance_scale=0, **settings).images[:, 0]
    np.testing.assert_allclose(shown[:, 1], expected, atol=1e-5)
    for c in range(3):
        expected = pipe(factual, c, **settings).images[:, 0]
        np.testing.assert_allclose(shown[:, 2 + c], expected, atol=1e-5)
    assert framed_images(figure) == [(0, 4), (1, 2)]


@pytest.mark.parametrize("is_marginal", [True, False])
def test_scales_are_columns(pipe, is_marginal):
    pipe.register_to_config(default_marginal_abduction=is_marginal)
    factual = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    intervention = torch.tensor([2, 0])
    shown = shown_images(figures.draw_scales(pipe, factual, intervention, [0.0, 9.0, 2.0], 3), 2)
    np.testing.assert_allclose(shown[:, 0], factual[:, 0])
    settings = {"num_inference_steps": 3, "output_type": "pt"}
    for column, scale in ((1, 0.0), (2, 9.0), (3, 2.0)):
        output = pipe(factual, intervention, guidance_scale=scale, **settings)
        np.testing.assert_allclose(shown[:, column], output.images[:, 0], atol=1e-5)


def test_scales_are_around_the_checkpoints_or_as_asked(flags, tmp_path):
    with mock.patch.object(figures, "draw_scales", wraps=figures.draw_scales) as draw:
        run(flags, tmp_path, "scales")
        run(flags, tmp_path, "scales", guidance_scales=0.7)
    default, asked = (call.args[3] for call in draw.call_args_list)
    assert default[0] == 0 and default == sorted(default)
    assert 1.5 in default and default[-1] > 1.5  # the checkpoint's is 1.5
    assert asked == [0.7]


def test_scale_search_marks_floor_requirement_and_choice(search):
    content = json.loads((search / "search.json").read_text())
    panels = figures.draw_scale_search(content).axes
    for axes, mean in zip(panels, ([1.3, 1.0, 1.1], [0.0, 0.98, 1.0], [0.0, 0.1, 0.2]), strict=True):
        line, chosen = axes.lines[:2]
        np.testing.assert_allclose(line.get_xydata(), np.stack([[0, 1, 3], mean], axis=1))
        assert chosen.get_xdata() == [1, 1]
        band = axes.collections[0].get_paths()[0].vertices
        np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [min(mean) - 0.01, max(mean) + 0.02])
    assert panels[0].lines[2].get_ydata() == [0.9, 0.9]
    assert panels[1].lines[2].get_ydata() == [0.97, 0.97]

    panels = figures.draw_scale_search({**content, "chosen": None}).axes
    assert len(panels[2].lines) == 1 and not panels[0].texts


def test_latents_lie_with_their_class(metric_models):
    vae = LatentVAE.from_pretrained(metric_models, subfolder="vae")
    generator = torch.Generator().manual_seed(0)
    dark = torch.rand(12, 1, 8, 8, generator=generator) / 3
    light = 1 - torch.rand(10, 1, 8, 8, generator=generator) / 3
    reference, reference_class = torch.cat([light[1:], dark[1:]]), torch.tensor([2] * 9 + [0] * 11)
    axes, *thumbnails = figures.draw_latents(
        vae, reference, reference_class, dark[0], light[0], 0, 2, NAMES, seed=0
    ).axes
    dark_dots, factual, light_dots, counterfactual = (np.asarray(c.get_offsets()) for c in axes.collections)
    assert len(dark_dots) == 11 and len(light_dots) == 9

    def distance(point, dots):
        return np.linalg.norm(point - dots, axis=1).min()

    assert distance(factual, dark_dots) < distance(factual, light_dots)
    assert distance(counterfactual, light_dots) < distance(counterfactual, dark_dots)
    np.testing.assert_array_equal(thumbnails[0].images[0].get_array(), dark[0, 0])
    np.testing.assert_array_equal(thumbnails[1].images[0].get_array(), light[0, 0])


@pytest.fixture
def splits(image_folder, cache_dir):
    return load_image_dataset(train_data_dir=image_folder, label_column="label", cache_dir=cache_dir)


@pytest.fixture
def collate():
    return ImageCollator(8, 1, "image", "label")


def test_factuals_are_those_of_an_evaluation_with_this_seed(splits, collate):
    expected, images, _ = load_pairs_and_images(splits, "test", "train", collate, NAMES, seed=3)
    pairs, factuals = read_factuals(splits["test"], collate, NAMES, seed=3, max_classes=2)
    assert pairs.factual_class.tolist() == [0, 1]
    for c in range(2):
        first = expected.factual_class.tolist().index(c)
        torch.testing.assert_close(factuals.images(c), images.images(first))
        assert pairs.intervention[c] == expected.intervention[first]


def test_references_are_of_the_asked_classes_and_not_too_many(splits, collate):
    reference = read_references(splits["train"], collate, NAMES, classes=[2, 0], max_images=4, seed=0)
    assert reference.classes.tolist() == [2] * 4 + [0] * 4
    assert reference.images(slice(0, 4)).mean() > 0.6 > 0.4 > reference.images(slice(4, 8)).mean()


@pytest.mark.parametrize(
    ("name", "left_out", "message"),
    [
        ("methods", "evaluation", r"`--evaluation` is needed for \['methods'\]"),
        ("latents", "evaluation", r"`--evaluation` is needed for \['latents'\]"),
        ("difference", "evaluation", r"`--evaluation` is needed for \['difference'\]"),
        ("scale_search", "search", r"`--search` is needed for \['scale_search'\]"),
        ("targets", "train_data_dir", r"`--dataset_name` or `--train_data_dir` is needed for \['targets'\]"),
        ("scales", "train_data_dir", r"`--dataset_name` or `--train_data_dir` is needed for \['scales'\]"),
    ],
)
def test_a_missing_input_is_named_before_anything_is_loaded(
    name, left_out, message, flags, evaluation, search, tmp_path
):
    flags = {**flags, "evaluation": evaluation, "search": search}
    del flags[left_out]
    with mock.patch.object(DiffSCMCounterfactualPipeline, "from_pretrained") as load:
        with pytest.raises(ValueError, match=message):
            run(flags, tmp_path / "figures", "one_noise", name)
    load.assert_not_called()
    assert not (tmp_path / "figures").exists()


def test_folders_of_something_else_are_refused(flags, evaluation, search, tmp_path):
    with pytest.raises(ValueError, match=r"`--evaluation` expects a folder .* evaluate` wrote, .* 'samples.csv'"):
        run(flags, tmp_path, "methods", evaluation=search)
    with pytest.raises(ValueError, match=r"`--search` expects a folder that `diffscm search-scale` wrote"):
        run(flags, tmp_path, "scale_search", search=evaluation)
    flags = {**flags, "metric_models": tmp_path}
    with pytest.raises(ValueError, match=r"`--metric_models` expects what train_metric_models.py wrote"):
        run(flags, tmp_path, "latents", evaluation=evaluation)


def test_classes_of_an_evaluation_are_found_by_name(evaluation):
    pairs, images, _ = read_evaluation(evaluation, ["light", "dark", "grey"], 10)
    expected, expected_images, _ = read_evaluation(evaluation, NAMES, 10)
    assert pairs.factual_class.tolist() == [0, 1, 2] and expected.factual_class.tolist() == [0, 1, 2]
    assert pairs.row.tolist() == [expected.row[c] for c in (2, 0, 1)]
    assert torch.equal(images["factual"], expected_images["factual"][[2, 0, 1]])


def test_figures_of_many_classes_show_some_from_all_over():
    assert spread(1000, 10) == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert spread(3, 10) == [0, 1, 2]


def test_an_evaluation_that_does_not_fit_is_refused(evaluation):
    with pytest.raises(
        ValueError, match="`--evaluation` '.*' expects the classes .* knows, 'dark', 'light', got 'dark'"
    ):
        read_evaluation(evaluation, ["dark", "light"], 10)
    (evaluation / "counterfactuals" / "diff-scm" / "00000-00003.safetensors").unlink()
    with pytest.raises(ValueError, match="does not hold all counterfactuals"):
        read_evaluation(evaluation, NAMES, 10)
    samples = pd.read_csv(evaluation / "samples.csv")
    samples.drop(columns="effectiveness").to_csv(evaluation / "samples.csv", index=False)
    with pytest.raises(ValueError, match="`--evaluation` expects an evaluation with metric models, but .* with none"):
        read_evaluation(evaluation, NAMES, 10)
    samples[samples["method"] != "factual"].to_csv(evaluation / "samples.csv", index=False)
    with pytest.raises(ValueError, match=r"`--evaluation` expects an evaluation of \['factual'\] too"):
        read_evaluation(evaluation, NAMES, 10)


def test_data_that_does_not_fit_is_refused(splits, collate):
    with pytest.raises(ValueError, match=r"`train_split` expects images of the class 'dark', but has none"):
        read_references(splits["train"].select([17]), collate, NAMES, [0, 2], 4, 0)
    rows = splits["test"].cast_column("label", ClassLabel(names=[*NAMES, "white"]))
    with pytest.raises(ValueError, match="the classes that the checkpoint knows, 'dark', 'grey', 'light', got "):
        read_factuals(rows, collate, NAMES, 0, 10)


def test_names_of_classes_are_text_as_it_is(tmp_path):
    """Neither formulas, nor paths, nor wider than a page."""
    names = ["$\\frac$", "../../evil", "x" * 5000, "a$b$c", "nul\0"]
    images = torch.rand(5, 5, 1, 8, 8)
    with matplotlib.rc_context(figures.STYLE):
        figure = draw_image_grid(images, "title", names, names)
        figures.save_figure(figure, tmp_path / "figures", "grid")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:5] == ["$\\frac$", "../../evil", "x" * 39 + "…", "a$b$c", "nul�"]
    assert {path.name for path in tmp_path.rglob("*")} == {"figures", "grid.png", "grid.pdf"}


def test_an_interrupted_figure_leaves_nothing_half(tmp_path):
    """Neither of it nor of an older one."""
    with matplotlib.rc_context(figures.STYLE):
        figure = draw_image_grid(torch.rand(1, 1, 1, 8, 8), "title", [""], [""])
        figures.save_figure(figure, tmp_path, "grid")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def interrupt(path, **options):
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt

        with mock.patch.object(figure, "savefig", interrupt), pytest.raises(KeyboardInterrupt):
            figures.save_figure(figure, tmp_path, "grid")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_second_run_in_the_same_folder_is_refused(flags, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(OSError, match="is being written by another run. Wait until it"):
        run(flags, tmp_path / "out", "targets")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
