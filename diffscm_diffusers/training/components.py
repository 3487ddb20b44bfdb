# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Where a training run's model comes from."""

from argparse import Namespace

from diffusers import ModelMixin


def create_model(model_class: type[ModelMixin], args: Namespace, **config) -> ModelMixin:
    """
    Loads the model that training goes on from, or makes a new one from its JSON configuration.

    Args:
        model_class (`type`): A `ModelMixin`.
        args (`argparse.Namespace`):
            See [`add_training_arguments`]. `args.resolution` is set to the model's if it is `None`.
        config: Values that override the JSON file's, and that a pretrained model must have or leave open.

    Raises:
        ValueError: if both or neither of `--pretrained_model_name_or_path` and `--model_config_name_or_path` are
            given, if a pretrained model has other values than `config` or `--resolution` ask for, or if the model
            has no single `sample_size`.
    """
    if (args.pretrained_model_name_or_path is None) == (args.model_config_name_or_path is None):
        raise ValueError(
            "Exactly one of `--pretrained_model_name_or_path` and `--model_config_name_or_path` is needed, got "
            f"{args.pretrained_model_name_or_path!r} and {args.model_config_name_or_path!r}."
        )
    if args.resolution is not None:
        config["sample_size"] = args.resolution
    if args.pretrained_model_name_or_path is not None:
        model = model_class.from_pretrained(
            args.pretrained_model_name_or_path, subfolder=args.subfolder, cache_dir=args.cache_dir
        )
        for name, value in config.items():
            if model.config[name] not in (value, None):
                raise ValueError(
                    f"`--pretrained_model_name_or_path` takes a model whose `{name}` is {value!r}, as the data and "
                    f"`--resolution` ask for, got {model.config[name]!r}."
                )
    else:
        model = model_class.from_config(model_class.load_config(args.model_config_name_or_path), **config)
    if not isinstance(model.config.sample_size, int):
        raise ValueError(
            f"`--resolution` is needed for a model whose `sample_size` is {model.config.sample_size!r}: images are "
            "square."
        )
    args.resolution = model.config.sample_size
    return model
