# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffscm_diffusers import AntiCausalClassifier2DModel, CausalPredictor2DModel
from diffscm_diffusers.causal_graphs import CausalGraph
from tests.helpers import load_script, to_argv


def test_loss_is_the_negative_log_probability_of_the_cause(flags, model_configs, monkeypatch):
    probabilities = []
    forward = AntiCausalClassifier2DModel.forward

    def record_call(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        if self.training:
            # Of the darker images, which show class 0, and of the others class 1: at timestep 0, without any noise.
            is_light = (args[0].mean(dim=(1, 2, 3)) > 0).long()
            probabilities.append(output.logits.softmax(dim=1)[torch.arange(len(is_light)), is_light])
        return output

    monkeypatch.setattr(AntiCausalClassifier2DModel, "forward", record_call)
    script = load_script("train_classifier")
    for name in ("validation_grid_size", "validation_inference_steps"):
        del flags[name]
    flags |= {"model_config_name_or_path": model_configs["classifier_dropout"], "num_train_timesteps": 1}
    script.main(to_argv({**flags, "report_to": "tensorboard", "logging_steps": 1, "num_noise_levels": 1}))
    events = EventAccumulator(str(flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([-p.log().mean().item() for p in probabilities], rel=1e-4)
    assert [event.step for event in events.Scalars("accuracy/t=0")] == [2]
    assert AntiCausalClassifier2DModel.from_pretrained(flags["output_dir"]).id2label == {0: "dark", 1: "light"}


def test_accuracy_by_noise_level_of_a_known_predictor():
    """A predictor that is right below timestep 500 and says class 0 above, on one image of class 0 and three of 1."""
    labels = torch.tensor([0, 1, 1, 1])
    noise_scheduler = DDPMScheduler()

    class Predictor:
        device = torch.device("cpu")

        def __call__(self, noisy_images, timesteps):
            right = torch.nn.functional.one_hot(labels, 2).float()
            blind = torch.tensor([[1.0, 0.0]]).expand(4, 2)
            return SimpleNamespace(logits=torch.where(timesteps[:, None] < 500, right, blind))

    batches = [{"pixel_values": torch.zeros(4, 1, 8, 8), "labels": labels}] * 2
    accuracy = load_script("train_classifier").accuracy_by_noise_level(Predictor(), batches, noise_scheduler, 2, 0)
    assert accuracy == {"accuracy/t=250": 1.0, "accuracy/t=750": 0.25}


def test_classifier_starts_from_the_encoder_of_a_denoiser(model_configs, tmp_path):
    unet = UNet2DModel.from_config(UNet2DModel.load_config(model_configs["unet"]))
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    script = load_script("train_classifier")

    def create(**flags):
        args = script.parse_args(to_argv({"from_unet": tmp_path, "output_dir": "unused", **flags}))
        return script.create_classifier(args, ["dark", "light"])

    classifier = create()
    assert classifier.id2label == {0: "dark", 1: "light"}
    for name, value in classifier.down_blocks.state_dict().items():
        assert (value == unet.down_blocks.state_dict()[name]).all()
    with pytest.raises(ValueError, match="`--resolution` expects the denoiser's, 8, with `--from_unet`, got 16"):
        create(resolution=16)
    with pytest.raises(ValueError, match="`--beta_schedule` expects the denoiser's, 'linear', .* got 'sigmoid'"):
        create(beta_schedule="sigmoid")
    with pytest.raises(ValueError, match="`--from_unet` expects no other source of the model"):
        flags = {"from_unet": tmp_path, "model_config_name_or_path": model_configs["classifier_dropout"]}
        script.check_args(script.parse_args(to_argv({**flags, "output_dir": "unused"})))


def test_unknown_validation_split_is_refused(flags, model_configs):
    for name in ("validation_grid_size", "validation_inference_steps"):
        del flags[name]
    flags |= {"model_config_name_or_path": model_configs["classifier_dropout"], "validation_split": "other"}
    with pytest.raises(ValueError, match=r"`--validation_split` expects one of .* \['test', 'train'\], got 'other'"):
        load_script("train_classifier").main(to_argv(flags))


@pytest.fixture
def graph_run_flags(flags, graph_flags, model_configs):
    """Flags of a run of a joint predictor of a shade and a level."""
    for name in ("train_data_dir", "validation_grid_size", "validation_inference_steps"):
        del flags[name]
    flags |= {"model_config_name_or_path": model_configs["predictor"], "num_noise_levels": 2}
    return flags | graph_flags


@pytest.mark.parametrize("chained", [True, False])
def test_loss_is_the_weighted_joint_log_probability_of_all_causes(graph_run_flags, monkeypatch, chained):
    results = []
    forward = CausalPredictor2DModel.forward

    def record_call(self, *args):
        results.append(forward(self, *args))
        return results[-1]

    monkeypatch.setattr(CausalPredictor2DModel, "forward", record_call)
    flags = {**graph_run_flags, "report_to": "tensorboard", "logging_steps": 1}
    load_script("train_classifier").main(to_argv(flags | ({} if chained else {"not_chained": True})))
    events = EventAccumulator(str(flags["output_dir"] / "logs" / "diffscm-diffusers"))
    events.Reload()
    logged = [[event.value for event in events.Scalars(name)] for name in ("loss", "log_prob")]
    losses = [-(weight * log_prob).sum(dim=1).mean().item() for log_prob, weight in results]
    assert logged[0] == pytest.approx(losses, rel=1e-4)
    assert logged[1] == pytest.approx([log_prob.sum(dim=1).mean().item() for log_prob, _ in results], rel=1e-4)
    measured = {f"{name}/t={t}" for name in ("accuracy of shade", "error of level") for t in (250, 750)}
    assert measured <= set(events.Tags()["scalars"])
    predictor = CausalPredictor2DModel.from_pretrained(flags["output_dir"])
    assert predictor.condition_widths == {"level": 1, "shade": 2}
    assert predictor.config.chained == chained


def test_errors_by_noise_level_of_a_known_predictor(graph_flags):
    """A predictor that is right below timestep 500; above it reads levels 2 too high, and every shade as light."""
    graph = CausalGraph.from_json(graph_flags["graph"])
    attributes = {"level": torch.tensor([1.0, 2.0, 3.0, 4.0]), "shade": torch.tensor([1, 0, 0, 0])}
    wrong = {"level": attributes["level"] + 2, "shade": torch.ones(4, dtype=torch.int64)}
    predictor = SimpleNamespace(
        device=torch.device("cpu"),
        predict=lambda _, timesteps: graph.condition(attributes if timesteps[0] < 500 else wrong),
    )
    batches = [{"pixel_values": torch.zeros(4, 1, 8, 8), "attributes": attributes}] * 2
    errors = load_script("train_classifier").errors_by_noise_level(predictor, graph, batches, DDPMScheduler(), 2, 0)
    assert errors == pytest.approx(
        {
            "error of level/t=250": 0.0,
            "accuracy of shade/t=250": 1.0,
            "error of level/t=750": 2.0,
            "accuracy of shade/t=750": 0.25,
        },
        abs=1e-5,
    )


def test_flags_of_a_joint_predictor_that_do_not_fit_are_refused(graph_run_flags):
    main = load_script("train_classifier").main
    with pytest.raises(ValueError, match="`--not_chained` expects a `--graph`, got none"):
        main(
            to_argv(
                {name: value for name, value in graph_run_flags.items() if name != "graph"} | {"not_chained": True}
            )
        )
    with pytest.raises(ValueError, match="`--from_unet` expects no `--graph`, got 'unet'"):
        main(to_argv({**graph_run_flags, "from_unet": "unet"}))


class TestClasses:
    """Classes without images are named, and validation sees every class, in every mode of reading."""

    @pytest.fixture
    def run(self, flags, model_configs, image_folder, tmp_path):
        for name in ("validation_grid_size", "validation_inference_steps"):
            del flags[name]
        folder = shutil.copytree(image_folder, tmp_path / "images")
        flags |= {"model_config_name_or_path": model_configs["classifier_dropout"], "train_data_dir": folder}

        def run(script, **more):
            script.main(to_argv({**flags, "report_to": "none", "num_noise_levels": 1, **more}))

        return run, folder

    def test_a_class_without_images_is_named(self, run, caplog):
        run, folder = run
        shutil.copytree(folder / "test" / "light", folder / "test" / "lighter")
        with pytest.raises(
            ValueError, match="`train_split` .* got 'train' without any of 'lighter'. Add some, or take"
        ):
            run(load_script("train_classifier"))
        run(load_script("train_classifier"), streaming=True)
        assert "`train_split` 'train' until step 2 has no image of the classes 'lighter'." in caplog.text
        shutil.rmtree(folder / "test" / "lighter")  # one of the advices
        run(load_script("train_classifier"), dry_run=True)

    @pytest.mark.parametrize("streaming", [False, True])
    def test_validation_covers_the_classes(self, run, monkeypatch, streaming):
        run, _ = run
        script = load_script("train_classifier")
        seen = []
        monkeypatch.setattr(
            script, "accuracy_by_noise_level", lambda model, batches, **_: seen.extend(batches) or {"accuracy/t=0": 0}
        )
        run(script, num_validation_images=2, **({"streaming": True} if streaming else {}))
        assert sorted(torch.cat([batch["labels"] for batch in seen]).tolist()) == [0, 1]
