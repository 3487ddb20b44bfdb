# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Where the network of a training run comes from, and whether it is trained already."""

import inspect
import json
from pathlib import Path

from diffusers import ModelMixin, SchedulerMixin

from diffscm_diffusers.causal_graphs import CausalGraph
from diffscm_diffusers.checksums import write_weights_checksums
from diffscm_diffusers.files import load_whole, written_whole
from diffscm_diffusers.flags import value_of
from diffscm_diffusers.models import SemanticEncoder2DModel

from .arguments import check_source
from .run_record import find_differences


ELSEWHERE = "Remove it, or use another `--output_dir`."


def load_model_config(
    model_class: type[ModelMixin], config_name_or_path: str | Path, argument: str = "model_config_name_or_path"
) -> dict:
    """
    Reads the configuration of a new network.

    Args:
        model_class (`type`): A `ModelMixin`.
        config_name_or_path (`str` or `Path`): JSON file.
        argument (`str`, *optional*, defaults to `"model_config_name_or_path"`): What messages call it.

    Raises:
        ValueError: if it is no JSON file, if it is another network's, or if it has keys that the network has not,
            which Diffusers would leave out.
    """
    expected = f"`{argument}` expects the JSON file of a {model_class.__name__}, got {str(config_name_or_path)!r}"
    try:
        config = model_class.load_config(config_name_or_path)
    except OSError as error:
        raise ValueError(f"{expected}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{expected}, a JSON file of a {type(config).__name__}.")
    # A network that extends another may be made from the other's file.
    classes = [base for base in model_class.__mro__ if issubclass(base, ModelMixin)]
    class_name = config.get("_class_name", model_class.__name__)
    known = {name for base in classes for name in inspect.signature(base.__init__).parameters}
    unknown = sorted(name for name in config if not name.startswith("_") and name not in known)
    if class_name not in [base.__name__ for base in classes]:
        raise ValueError(f"{expected}, of a {class_name}.")
    if unknown:
        raise ValueError(f"{expected}, with {unknown}, which it does not have.")
    return config


def create_model(
    model_class: type[ModelMixin],
    *,
    model_config_name_or_path: str | Path | None = None,
    pretrained_model_name_or_path: str | Path | None = None,
    subfolder: str | None = None,
    resolution: int | None = None,
    cache_dir: str | None = None,
    **config,
) -> ModelMixin:
    """
    Loads the model that training goes on from, or makes a new one from its JSON configuration.

    Args:
        model_class (`type`): A `ModelMixin`.
        model_config_name_or_path (`str` or `Path`, *optional*): JSON file with the architecture of a new model.
        pretrained_model_name_or_path (`str` or `Path`, *optional*): Name on the Hub, or a local folder.
        subfolder (`str`, *optional*): Folder of the model inside `pretrained_model_name_or_path`.
        resolution (`int`, *optional*): The model's `sample_size`. Default: that of the configuration.
        cache_dir (`str`, *optional*): Where files from the Hub are cached.
        config: Values that override the JSON file's, and that a pretrained model must have or leave open.

    Raises:
        ValueError: if both or neither of `pretrained_model_name_or_path` and `model_config_name_or_path` are given,
            if either is of another class, if a pretrained model has other values than `config` or `resolution` ask
            for, or if the model has no single `sample_size`.
    """
    check_source(pretrained_model_name_or_path, model_config_name_or_path)
    if resolution is not None:
        config["sample_size"] = resolution
    if pretrained_model_name_or_path is not None:
        source = {"subfolder": subfolder, "cache_dir": cache_dir}
        try:
            class_name = model_class.load_config(pretrained_model_name_or_path, **source).get("_class_name")
        except OSError as error:
            raise ValueError(
                f"`pretrained_model_name_or_path` expects a {model_class.__name__}, got "
                f"{str(pretrained_model_name_or_path)!r}: {error}"
            ) from error
        if class_name != model_class.__name__:
            # Another network's weights would be left out, where the names differ.
            raise ValueError(
                f"`pretrained_model_name_or_path` expects a {model_class.__name__}, got "
                f"{str(pretrained_model_name_or_path)!r}, a {class_name}."
            )
        model = load_whole(model_class, pretrained_model_name_or_path, **source)
        for name, value in config.items():
            if model.config[name] not in (value, None):
                raise ValueError(
                    f"`pretrained_model_name_or_path` expects a model whose `{name}` is {value!r}, as the data and "
                    f"`resolution` ask for, got {model.config[name]!r}."
                )
    else:
        model = model_class.from_config(load_model_config(model_class, model_config_name_or_path), **config)
    if not isinstance(model.config.sample_size, int):
        raise ValueError(
            "`resolution` expects the images' height and width, as the model's `sample_size` is "
            f"{model.config.sample_size!r}: images are square; got {resolution}."
        )
    return model


def load_encoder(name_or_path: str | Path, graph: CausalGraph, cache_dir: str | None = None) -> SemanticEncoder2DModel:
    """
    Loads the encoder that `--encoder` names, frozen.

    Args:
        name_or_path (`str` or `Path`): Name on the Hub, or a local folder.
        graph ([`CausalGraph`]): Its image's parents are the causes that the encoder has to know.
        cache_dir (`str`, *optional*): Where files from the Hub are cached.

    Raises:
        ValueError: if it is another network, or knows another number of causes.
    """
    with value_of("encoder", name_or_path, "a `SemanticEncoder2DModel`, a Hub name or a folder"):
        class_name = SemanticEncoder2DModel.load_config(name_or_path, cache_dir=cache_dir).get("_class_name")
    if class_name != "SemanticEncoder2DModel":
        raise ValueError(f"`--encoder` expects a `SemanticEncoder2DModel`, got {name_or_path!r}, a {class_name}.")
    encoder = load_whole(SemanticEncoder2DModel, name_or_path, cache_dir=cache_dir)
    condition_dim = sum(graph.condition_widths.values())
    if encoder.config.condition_dim != condition_dim:
        raise ValueError(
            f"`--encoder` expects one of {condition_dim} entries of causes, as the data have, got "
            f"{encoder.config.condition_dim}."
        )
    return encoder.eval().requires_grad_(False)


def record_training(
    model: ModelMixin,
    noise_scheduler: SchedulerMixin | None = None,
    prediction_type: str | None = None,
    class_names: list[str] | None = None,
    graph: CausalGraph | None = None,
    value_range: tuple[float, float] = (-1, 1),
    residual_std: float | None = None,
):
    """
    Writes into a network's configuration, as `_trained_with`, what it is trained with. It is saved with the weights,
    and compared where networks meet, in a pipeline's constructor.

    Args:
        model (`ModelMixin`): The network.
        noise_scheduler (`SchedulerMixin`, *optional*): Its noise schedule, of betas. Default: it sees clean images.
        prediction_type (`str`, *optional*): What a denoiser predicts, as in Diffusers' schedulers.
        class_names (`list[str]`, *optional*): Names of the classes that it is told or predicts, in their order.
        graph ([`CausalGraph`], *optional*):
            Its image's parents are what the network is told or predicts. Their order, names, ranges and labels say
            what the entries of a condition mean.
        value_range (`tuple[float, float]`, *optional*, defaults to `(-1, 1)`): Lowest and highest value of the images.
        residual_std (`float`, *optional*):
            Standard deviation of the images around the decoded ones that a denoiser is given, if it assumes one.
    """
    trained_with = {"value_range": list(value_range)}
    if noise_scheduler is not None:
        names = (
            "num_train_timesteps",
            "beta_start",
            "beta_end",
            "beta_schedule",
            "trained_betas",
            "rescale_betas_zero_snr",
        )
        trained_with["noise_schedule"] = {name: noise_scheduler.config[name] for name in names}
        if prediction_type is not None:
            trained_with["noise_schedule"]["prediction_type"] = prediction_type
    if class_names is not None:
        trained_with["class_names"] = list(class_names)
    if graph is not None:
        nodes = graph.to_dict()["nodes"]
        # A list, as the keys of a saved configuration are sorted.
        trained_with["causes"] = [[name, nodes[name]] for name in graph.image_parents]
    if residual_std is not None:
        trained_with["residual_std"] = residual_std
    model.register_to_config(_trained_with=trained_with)


def save_trained(model: ModelMixin, folder: str | Path, record: dict):
    """Saves a network that is complete into a new folder, with the record of its run, from [`describe_run`]."""
    with written_whole(folder) as unfinished:
        model.save_pretrained(unfinished)
        write_weights_checksums(model, unfinished)
        (unfinished / "run.json").write_text(json.dumps(record, indent=2))


def is_trained(folder: str | Path, record: dict) -> bool:
    """
    Whether an earlier run has completed a network.

    Args:
        folder (`str` or `Path`): Where [`save_trained`] saves the network when it is complete.
        record (`dict`): The run that would train it, from [`describe_run`].

    Raises:
        ValueError: if the folder holds a network of another run; all that differs is named.
    """
    folder = Path(folder)
    if not folder.exists():
        return False
    if not (folder / "run.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no record, `run.json`, of how its network was trained. {ELSEWHERE}")
    differences = find_differences(json.loads((folder / "run.json").read_text()), record)
    if differences:
        raise ValueError(f"{str(folder)!r} holds a network of another run: {', '.join(differences)}. {ELSEWHERE}")
    return True
