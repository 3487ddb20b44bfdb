# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The pipelines that are evaluated, and the settings that their counterfactuals depend on."""

from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline

from diffscm_diffusers import (
    DiffSCMBELMScheduler,
    DiffSCMCounterfactualPipeline,
    DiffSCMDDIMInverseScheduler,
    DiffSCMDDIMScheduler,
    DiffSCMSemanticCounterfactualPipeline,
)
from diffscm_diffusers.data.classes import match_classes, unique_names

from .fingerprint import fingerprint


ClassPipeline = DiffSCMCounterfactualPipeline | DiffSCMSemanticCounterfactualPipeline


def load_pipeline(
    name_or_path: str,
    scheduler: str,
    cache_dir: str | None = None,
    pipeline_classes: tuple[type, ...] = (DiffSCMCounterfactualPipeline,),
) -> ClassPipeline:
    """
    Loads a checkpoint, with its own moves or with others.

    Args:
        name_or_path (`str`): A Hub name or a local folder.
        scheduler (`str`):
            `"checkpoint"` for its own schedulers, `"belm"` for O-BELM, or `"quadratic"` for DDIM on quadratically
            spaced timesteps.
        cache_dir (`str`, *optional*): Where files from the Hub are kept.
        pipeline_classes (`tuple[type]`, *optional*, defaults to `(DiffSCMCounterfactualPipeline,)`):
            Which pipelines it may hold.

    Raises:
        ValueError: if it holds another pipeline.
    """
    name = DiffusionPipeline.load_config(name_or_path, cache_dir=cache_dir)["_class_name"]
    name = name[1] if isinstance(name, list) else name
    by_name = {pipeline_class.__name__: pipeline_class for pipeline_class in pipeline_classes}
    if name not in by_name:
        raise ValueError(
            f"`--pretrained_model_name_or_path` expects a {' or a '.join(by_name)}, got {str(name_or_path)!r}, a "
            f"{name}."
        )
    pipe = by_name[name].from_pretrained(name_or_path, cache_dir=cache_dir, use_safetensors=True)
    if scheduler == "checkpoint":
        return pipe
    if scheduler == "belm":
        schedulers = {"scheduler": DiffSCMBELMScheduler.from_config(pipe.scheduler.config), "inverse_scheduler": None}
    else:
        schedulers = {
            name: type_.from_config(pipe.components[name].config, timestep_spacing="quadratic")
            for name, type_ in (
                ("scheduler", DiffSCMDDIMScheduler),
                ("inverse_scheduler", DiffSCMDDIMInverseScheduler),
            )
        }
    kept = ("default_", "presets", "dequantize", "noise_decay")
    settings = {name: value for name, value in pipe.config.items() if name.startswith(kept)}
    if scheduler == "belm":  # has one way up, from the clean image
        for name in ("default_abduction", "default_tolerance", "dequantize", "noise_decay"):
            settings.pop(name, None)
    return type(pipe)(**{**pipe.components, **schedulers, **settings})


def complete_settings(
    pipe: ClassPipeline,
    preset: str | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    guidance_interval: list[int] | None = None,
    abduction: str | None = None,
    strength: float = 1.0,
) -> dict:
    """
    Completes the settings of a call: those that are given go before the preset's, these before the checkpoint's
    defaults.

    Args:
        pipe ([`DiffSCMCounterfactualPipeline`] or [`DiffSCMSemanticCounterfactualPipeline`]):
            The pipeline. The second has no presets and no guidance.
        preset (`str`, *optional*): The name of one of the checkpoint's presets.
        num_inference_steps, guidance_scale, guidance_interval, abduction (*optional*): As in the pipeline's call.
        strength (`float`, *optional*, defaults to 1.0): With which they have to fit.

    Returns:
        `dict`: the arguments of the pipeline's call that have a value.

    Raises:
        ValueError: if the checkpoint has no such preset, or if the settings do not fit the pipeline.
    """
    if isinstance(pipe, DiffSCMSemanticCounterfactualPipeline):
        for name, value in (
            ("preset", preset),
            ("guidance_scale", guidance_scale),
            ("guidance_interval", guidance_interval),
        ):
            if value is not None:
                raise ValueError(f"`--{name}` is expected with a guided pipeline, got it with {type(pipe).__name__}.")
        steps = pipe.config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
        pipe.check_inputs(abduction=abduction)
        pipe.prepare_schedulers(steps, abduction)
        return {"num_inference_steps": steps, **({} if abduction is None else {"abduction": abduction})}
    if preset is not None and preset not in pipe.presets:
        raise ValueError(f"`--preset` expects one of the checkpoint's, {sorted(pipe.presets)}, got {preset!r}.")
    given = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "guidance_interval": guidance_interval,
        "abduction": abduction,
    }
    settings = {
        "num_inference_steps": pipe.config.default_num_inference_steps,
        "guidance_scale": pipe.config.default_guidance_scale,
        **pipe.presets.get(preset, {}),
        **{name: value for name, value in given.items() if value is not None},
    }
    # Settings that don't fit fail here, not after images were read.
    interval, abduction = settings.get("guidance_interval"), settings.get("abduction")
    pipe.check_inputs(strength=strength, guidance_interval=interval, abduction=abduction)
    guidance, _ = pipe.prepare_guidance(0, 1.0, interval, num_factuals=1)
    pipe.prepare_schedulers(settings["num_inference_steps"], strength, abduction, guidance)
    return settings


def describe_pipeline(pipe: ClassPipeline, name_or_path: str, mixed_precision: str, steps: dict) -> dict:
    """The settings that Diff-SCM's counterfactuals depend on, but for the guidance scale."""
    return {
        "pretrained_model_name_or_path": name_or_path,
        "weights": fingerprint(pipe),
        "scheduler": type(pipe.scheduler).__name__,
        "mixed_precision": mixed_precision,
        "marginal_abduction": pipe.config.get("default_marginal_abduction", False),
        **steps,
    }


def load_baseline(
    pipeline_class: type[DiffusionPipeline],
    folder: str | None,
    name: str,
    class_names: list[str],
    accelerator: Accelerator,
) -> tuple[DiffusionPipeline, torch.Tensor, dict]:
    """
    Loads a method from the folder that `train_baselines.py` wrote.

    Args:
        pipeline_class (`type`): The method's pipeline.
        folder (`str`, *optional*): The value of `--baselines`.
        name (`str`): The method's name, and that of its folder in `folder`.
        class_names (`list[str]`): The classes of the evaluation, in its order.
        accelerator (`Accelerator`): Has the device that its networks go to.

    Returns:
        `tuple`: the pipeline, its index of each class of the evaluation, which it finds by name, and the settings that
        its counterfactuals depend on.

    Raises:
        ValueError: if there is no such folder, or if the pipeline has other classes.
    """
    if folder is None:
        raise ValueError(f"`--baselines` is needed for the method {name!r}: the folder that train_baselines.py wrote.")
    if not Path(folder, name, "model_index.json").is_file():
        raise ValueError(
            f"`--baselines` expects a folder that train_baselines.py wrote, but {str(Path(folder, name))!r} holds no "
            "pipeline."
        )
    pipe = pipeline_class.from_pretrained(Path(folder, name)).to(accelerator.device)
    pipe.set_progress_bar_config(leave=False, disable=not accelerator.is_main_process)
    names = unique_names(pipe.classifier.id2label)
    classes = torch.tensor(match_classes(class_names, names, f"`--baselines` {str(Path(folder, name))!r}", whole=True))
    return pipe, classes, {"baselines": folder, "weights": fingerprint(pipe)}
