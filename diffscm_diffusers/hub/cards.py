# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
The cards of what this package makes: a checkpoint of one class or of a graph, a trained network, a data set of
counterfactuals, and one of a world.
"""

import json
import os
import platform
import re
import shlex
from importlib.metadata import version
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData, RepoCard

from diffscm_diffusers.files import written_whole
from diffscm_diffusers.finite import check_finite_numbers


TAGS = ["diffscm-diffusers", "causality", "counterfactual"]

# What `summary.json` calls a score, and the card.
SCORES = {
    "error_l1": "error to the true counterfactual, mean absolute difference, pixels in [0, 1]",
    "null_intervention": "null intervention, mean absolute difference from the factual",
    "there_and_back": "there and back, mean absolute difference from the factual",
    "effectiveness": "effectiveness: an oracle sees the target (higher is better)",
    "im1": "IM1 (lower is better)",
    "im2": "IM2 (lower is better)",
    "cld": "CLD, counterfactual latent divergence (lower is better)",
    "cld_floor": "the lowest CLD that any image could have for the same pairs",
    "l1": "L1, mean absolute difference from the factual, pixels in [0, 1]",
}

LIMITS = """
No ground truth says how an image *would* have looked: a counterfactual is this model's estimate, under a causal graph
in which the class is the only cause that is modelled. What else goes with the class in the training data, the model
may change with it. Images unlike those of the training data are outside of what it has seen.
"""
GUIDED_LIMITS = LIMITS.rstrip() + " How much of the factual\nis kept depends on the guidance scale.\n"

PIPELINE_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

A diffusion causal model (Diff-SCM, [Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166)) of the graph
`{{ effect }} <- {{ cause }}`. It estimates counterfactuals: how would this {{ effect }} look, had its {{ cause }} been
another?

- **Cause:** the {{ cause }}, one of {{ classes }}.
- **Effect:** the {{ effect }}, {{ height }} x {{ width }} pixels with {{ channels }} channel(s).
{% if picture %}
![Factuals and counterfactuals]({{ picture }})
{% endif %}
```python
from diffscm_diffusers import {{ pipeline }}
from PIL import Image

pipe = {{ pipeline }}.from_pretrained("{{ name }}")
counterfactual = pipe(Image.open("factual.png"), intervention={{ label }}).images[0]
```

As published on the Hub it also loads without `diffscm_diffusers`, by the code in its repository:

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{{ hub_name }}", trust_remote_code=True)
```

## Intended use

Research on counterfactual images and on what a classifier or a data set takes for a class: explanations, audits,
augmentation. Its images are no evidence of what would have happened to a person or thing, and no basis for decisions
about them.

## Data
{% if dataset %}
Trained on [`{{ dataset }}`](https://huggingface.co/datasets/{{ dataset }}).{% else %}
See the commands under *Training*.{% endif %}

## Hyperparameters

| | |
| --- | --- |
| denoiser | `{{ unet }}`, {{ unet_parameters }} parameters, predicts `{{ prediction_type }}` |
| anti-causal predictor | `{{ classifier }}`, {{ classifier_parameters }} parameters, {{ num_classes }} classes |
{% if encoder %}| semantic encoder | `{{ encoder }}`, {{ encoder_parameters }} parameters, a code of {{ code_dim }} |
{% endif %}| diffusion | {{ num_train_timesteps }} timesteps, betas `{{ beta_schedule }}` |
| inference | `{{ scheduler }}`; by default {{ steps }} steps each way{{ guidance }} |
{% if training %}
## Training

{{ training }}
{% endif %}{% if results %}
## Results

{{ results }}
{% endif %}
## Limits

{{ limits }}
"""

GRAPH_LIMITS = """
No ground truth says how an image *would* have looked: a counterfactual is this model's estimate, under the causal
graph above. An arrow that is missing there, or a common cause of two attributes that is no attribute, makes it wrong
in ways that no picture shows. Where an intervention leaves the training data, the pipeline warns: its images
extrapolate.
"""

GRAPH_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

A diffusion causal model (Diff-SCM, [Sanchez & Tsaftaris, 2022](https://huggingface.co/papers/2202.10166)) of an image
and its attributes. It estimates counterfactuals: how would this {{ effect }} look, had an attribute been another, with
all that follows from it?

```mermaid
{{ mermaid }}
```

| attribute | values | caused by |
| --- | --- | --- |
{% for name, values, parents in attributes %}| `{{ name }}` | {{ values }} | {{ parents }} |
{% endfor %}
The {{ effect }} has {{ height }} x {{ width }} pixels with {{ channels }} channel(s).
{% if picture %}
![Factuals and counterfactuals]({{ picture }})
{% endif %}
```python
from diffscm_diffusers import DiffSCMGraphCounterfactualPipeline
from PIL import Image

pipe = DiffSCMGraphCounterfactualPipeline.from_pretrained("{{ name }}")
factual = {{ example }}
counterfactual = pipe(Image.open("factual.png"), factual, do={{ intervention }}).images[0]
```

## Intended use

Research on counterfactual images: explanations, audits, augmentation. Its images are no evidence of what would have
happened to a person or thing, and no basis for decisions about them.

## Data
{% if dataset %}
Trained on [`{{ dataset }}`](https://huggingface.co/datasets/{{ dataset }}).{% else %}
See the commands under *Training*.{% endif %}

## Hyperparameters

| | |
| --- | --- |
{% for part, description in parts %}| {{ part }} | {{ description }} |
{% endfor %}{% if training %}
## Training

{{ training }}
{% endif %}{% if results %}
## Results

{{ results }}
{% endif %}
## Limits

{{ limits }}
"""

COMPONENT_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ description }}

## Training

{{ num_steps }} optimizer steps on the split `{{ split }}` of `{{ dataset }}`, by

```bash
{{ command }}
```

with {{ versions }}.
"""

DATASET_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

Counterfactual images: how would each image of the split `{{ split }}` of {{ source }} look, had its class been
another? Estimated by [Diff-SCM](https://huggingface.co/papers/2202.10166) with the causal model
`{{ model }}` of {{ num_classes }} classes.

{{ result }}

```py
from datasets import load_dataset

counterfactuals = load_dataset("{{ name }}", split="{{ split }}")
```

| column | meaning |
| --- | --- |
{% for column, meaning in columns.items() %}| `{{ column }}` | {{ meaning }} |
{% endfor %}
The unrounded counterfactual is `factual / 255 + difference`.

## Limits

These images are estimates of a model, not observations. They take the class for the only cause that is intervened on
and hold all others fixed only as far as abduction was exact. `target_probability` comes from the network that guided
the images: judge them by one of your own. The licence and the limits of the source's images apply to these as well.

## Settings

| setting | value |
| --- | --- |
{% for setting, value in settings.items() %}| `{{ setting }}` | `{{ value }}` |
{% endfor %}
```bash
{{ command }}
```

with {{ versions }}.
"""

WORLD_TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

Images of a world, a structural causal model that renders, and their true counterfactuals: the same exogenous noise,
rendered under an intervention.

```py
from datasets import load_dataset

images = load_dataset("{{ name }}")
```

| column | meaning |
| --- | --- |
{% for column, meaning in columns.items() %}| `{{ column }}` | {{ meaning }} |
{% endfor %}
Columns that end in `_noise` are the exogenous noise of the variable that they name. Images have 8 bits per channel,
and so have the true counterfactuals: the world rounds both to multiples of 1/255, and nothing more is lost here. A
digit to intervene with is drawn uniformly from the nine others; any other value is that of the row before, which is
independent of the row.

## World

`{{ world }}`, with the edges {{ edges }}.

{{ description }}

## Settings

```json
{{ settings }}
```

```bash
{{ command }}
```

makes the data set again, with {{ versions }}.
"""


def check_texts(optional: tuple[str, ...] = (), **texts: str | None):
    """Raises a `TypeError` unless all arguments are text; those that are named as optional may be `None`."""
    for name, text in texts.items():
        if not isinstance(text, str) and not (text is None and name in optional):
            raise TypeError(f"`{name}` expects text, got {text!r}.")
        if name == "name" and not text.strip("/ "):
            raise ValueError(f"`name` expects the name of a folder or repository, got {text!r}.")


def check_summary(summary: dict):
    """Raises a `ValueError` unless `summary` is what `diffscm evaluate` writes, with scores of `diff-scm`."""
    methods = summary.get("methods") if isinstance(summary, dict) else None
    if not isinstance(methods, dict) or "diff-scm" not in methods:
        got = sorted(methods) if isinstance(methods, dict) else summary
        raise ValueError(f"`summary` expects scores of the method 'diff-scm', got {got!r}.")
    method = methods["diff-scm"]
    missing = [key for key in ("settings", "scores", "seconds") if key not in method]
    if missing or "num_pairs" not in summary:
        raise ValueError(f"`summary` expects what `diffscm evaluate` wrote, got one without {missing or 'num_pairs'}.")
    check_finite_numbers(method["scores"], "summary['methods']['diff-scm']['scores']")
    for name, score in method["scores"].items():
        numbers = [score.get(key) for key in ("mean", "low", "high")] if isinstance(score, dict) else [None]
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError(f"`summary` expects mean, low and high of the score {name!r}, got {score!r}.")


def read_section(card: str, title: str) -> str:
    """Returns the text of a card's section without its heading; an empty string where there is none."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", card, flags=re.MULTILINE | re.DOTALL)
    return match[1].strip() if match else ""


def list_versions(*libraries: str) -> str:
    """The versions of Python and of libraries, as text."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in libraries)])


def save_card(card: RepoCard, folder: str | Path):
    """Writes a card into its folder, as `README.md`. Raises a `TypeError` if it is no card, or `folder` no path."""
    if not isinstance(card, RepoCard):
        raise TypeError(f"`card` expects a card, got {card!r}.")
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"`folder` expects a path, got {folder!r}.")
    with written_whole(Path(folder, "README.md")) as unfinished:
        card.save(unfinished)


def is_on_hub(dataset_name: str | None) -> bool:
    """Whether a data set's name is one on the Hub, not a folder."""
    return dataset_name is not None and not os.path.exists(dataset_name)


def count_parameters(model) -> str:
    number = model.num_parameters()
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number}"


def make_pipeline_card(
    pipeline: DiffusionPipeline,
    name: str,
    cause: str = "class",
    effect: str = "image",
    dataset: str | None = None,
    license: str | None = None,
    picture: str | None = None,
    training: str = "",
    limits: str = "",
    summary: dict | None = None,
) -> ModelCard:
    """
    Makes the card of a pipeline: what it models, how to load it, hyperparameters, results, use and limits.

    Args:
        pipeline ([`DiffSCMCounterfactualPipeline`] or [`DiffSCMSemanticCounterfactualPipeline`]):
            The checkpoint, loaded.
        name (`str`): What `from_pretrained` takes: a folder, or a name on the Hub.
        cause (`str`, *optional*, defaults to `"class"`): What the classes are.
        effect (`str`, *optional*, defaults to `"image"`): What the images show.
        dataset (`str`, *optional*): The training data's name on the Hub.
        license (`str`, *optional*): The weights' licence, by the Hub's name for it.
        picture (`str`, *optional*): Path of a picture in the checkpoint.
        training (`str`, *optional*): Markdown that says how the networks were trained.
        limits (`str`, *optional*): Markdown on the limits. Default: those of every such model.
        summary (`dict`, *optional*):
            What `diffscm evaluate` wrote to `summary.json`. The scores of its method `diff-scm` go to the section
            *Results* and, for search engines, to the `model-index` of the metadata.

    Returns:
        `huggingface_hub.ModelCard`: the card.

    Raises:
        ValueError: if `summary` has no method `diff-scm`, or one of its scores is not finite.
        TypeError: if an argument is of another type.
    """
    if "classifier" not in getattr(pipeline, "components", {}):
        raise TypeError(f"`pipeline` expects one with a class as cause, got {type(pipeline).__name__}.")
    texts = {"name": name, "cause": cause, "effect": effect, "training": training, "limits": limits}
    check_texts(("dataset", "license", "picture"), **texts, dataset=dataset, license=license, picture=picture)
    title = name.rstrip("/").split("/")[-1]
    results, evaluations = "", []
    if summary is not None:
        check_summary(summary)
        method = summary["methods"]["diff-scm"]
        settings, scores = method["settings"], method["scores"]
        data = dataset or settings["dataset_name"] or settings["train_data_dir"]
        setting = (
            f"{summary['num_pairs']} counterfactuals with random targets, {settings['num_inference_steps']} steps"
        )
        if "guidance_scale" in settings:
            scale = settings["guidance_scale"]
            setting += f", guidance scale {'searched for each image' if isinstance(scale, dict) else f'{scale:g}'}"
        lines = [
            f"On the split `{settings['split']}` of `{data}`: {setting}.\n",
            "| score | mean | 95 % bootstrap interval |\n| --- | --- | --- |",
        ]
        for score, description in SCORES.items():
            if score not in scores:
                continue
            mean, low, high = (float(f"{scores[score][key]:.4g}") for key in ("mean", "low", "high"))
            lines.append(f"| {description} | {mean:g} | [{low:g}, {high:g}] |")
            evaluations.append(
                EvalResult(
                    task_type="image-to-image",
                    dataset_type=data,
                    dataset_name=data,
                    dataset_split=settings["split"],
                    metric_type=score,
                    metric_value=mean,
                    metric_name=f"{description.split(' (')[0]}; {setting}",
                )
            )
        lines.append(f"| seconds per counterfactual | {method['seconds']:.2g} | |")
        results = "\n".join(lines)

    unet, classifier, scheduler = pipeline.unet, pipeline.classifier, pipeline.scheduler
    encoder, guidance_scale = pipeline.components.get("encoder"), pipeline.config.get("default_guidance_scale")
    labels = list(classifier.id2label.values())
    shown = labels if len(labels) <= 20 else [*labels[:10], "..."]
    channels, height, width = pipeline.image_shape
    return ModelCard.from_template(
        ModelCardData(
            library_name="diffusers",
            license=license,
            datasets=[dataset] if dataset else None,
            tags=TAGS,
            pipeline_tag="image-to-image",
            model_name=title,
            eval_results=evaluations or None,
        ),
        template_str=PIPELINE_TEMPLATE,
        title=title,
        name=name,
        hub_name=f"user/{title}",
        cause=cause,
        effect=effect,
        dataset=dataset,
        picture=picture,
        training=training.strip(),
        results=results,
        limits=(limits or (LIMITS if guidance_scale is None else GUIDED_LIMITS)).strip(),
        label=json.dumps(labels[-1], ensure_ascii=False),
        classes=", ".join(f"`{label}`" if label != "..." else label for label in shown),
        num_classes=len(labels),
        channels=channels,
        height=height,
        width=width,
        unet=type(unet).__name__,
        unet_parameters=count_parameters(unet),
        classifier=type(classifier).__name__,
        classifier_parameters=count_parameters(classifier),
        scheduler=type(scheduler).__name__,
        prediction_type=scheduler.config.prediction_type,
        num_train_timesteps=scheduler.config.num_train_timesteps,
        beta_schedule=scheduler.config.beta_schedule,
        steps=pipeline.config.default_num_inference_steps,
        guidance="" if guidance_scale is None else f", guidance scale {guidance_scale:g}",
        pipeline=type(pipeline).__name__,
        encoder=None if encoder is None else type(encoder).__name__,
        encoder_parameters=None if encoder is None else count_parameters(encoder),
        code_dim=None if encoder is None else encoder.config.code_dim,
    )


def make_graph_card(
    pipeline: DiffusionPipeline,
    name: str,
    effect: str = "image",
    dataset: str | None = None,
    license: str | None = None,
    picture: str | None = None,
    training: str = "",
    results: str = "",
    limits: str = "",
) -> ModelCard:
    """
    Makes the card of a pipeline of several causes: its graph, how to load it, hyperparameters, use and limits.

    Args:
        pipeline ([`DiffSCMGraphCounterfactualPipeline`]): The checkpoint, loaded.
        name (`str`): What `from_pretrained` takes: a folder, or a name on the Hub.
        effect (`str`, *optional*, defaults to `"image"`): What the images show.
        dataset (`str`, *optional*): The training data's name on the Hub.
        license (`str`, *optional*): The weights' licence, by the Hub's name for it.
        picture (`str`, *optional*): Path of a picture in the checkpoint.
        training (`str`, *optional*): Markdown that says how the networks were trained.
        results (`str`, *optional*): Markdown on what was measured.
        limits (`str`, *optional*): Markdown on the limits. Default: those of every such model.

    Returns:
        `huggingface_hub.ModelCard`: the card.
    """
    if "scm" not in getattr(pipeline, "components", {}):
        raise TypeError(f"`pipeline` expects one of a causal graph, got {type(pipeline).__name__}.")
    texts = {"name": name, "effect": effect, "training": training, "results": results, "limits": limits}
    check_texts(("dataset", "license", "picture"), **texts, dataset=dataset, license=license, picture=picture)
    title, graph, scheduler = name.rstrip("/").split("/")[-1], pipeline.scm.graph, pipeline.scheduler
    attributes, example = [], {}
    for node_name in graph.attributes:
        node = graph.nodes[node_name]
        if node.labels is None:
            low, high = node.range
            values = f"{low:g} to {high:g}" + (f" {node.unit}" if node.unit and node.unit != "1" else "")
            example[node_name] = (low + high) / 2
        else:
            shown = [f"`{label}`" for label in node.labels]
            values = f"one of {', '.join(shown if len(shown) <= 20 else [*shown[:10], '...'])}"
            values += ", in this order" * (node.kind == "ordinal")
            example[node_name] = node.labels[0]
        parents = graph.parents(node_name)
        attributes.append((node_name, values, ", ".join(f"`{parent}`" for parent in parents)))
    changed = graph.attributes[0]
    node = graph.nodes[changed]
    intervention = {changed: node.range[1] if node.labels is None else node.labels[-1]}
    networks = {
        "denoiser": pipeline.unet,
        "mechanisms of the attributes": pipeline.scm,
        "anti-causal predictor": pipeline.predictor,
        "semantic encoder": pipeline.encoder,
    }
    parts = [
        (part, f"`{type(network).__name__}`, {count_parameters(network)} parameters")
        for part, network in networks.items()
        if network is not None
    ]
    parts += [
        ("prediction", f"`{scheduler.config.prediction_type}`"),
        (
            "diffusion",
            f"{scheduler.config.num_train_timesteps} timesteps, betas `{scheduler.config.beta_schedule}`",
        ),
        (
            "inference",
            f"`{type(scheduler).__name__}`; by default {pipeline.config.default_num_inference_steps} steps each way, "
            f"guidance scale {pipeline.config.default_guidance_scale}",
        ),
    ]
    channels, height, width = pipeline.image_shape
    return ModelCard.from_template(
        ModelCardData(
            library_name="diffusers",
            license=license,
            datasets=[dataset] if dataset else None,
            tags=TAGS,
            pipeline_tag="image-to-image",
            model_name=title,
        ),
        template_str=GRAPH_TEMPLATE,
        title=title,
        name=name,
        effect=effect,
        mermaid=graph.mermaid().strip(),
        attributes=attributes,
        example=json.dumps(example),
        intervention=json.dumps(intervention),
        dataset=dataset,
        picture=picture,
        parts=parts,
        training=training.strip(),
        results=results.strip(),
        limits=(limits or GRAPH_LIMITS).strip(),
        channels=channels,
        height=height,
        width=width,
    )


def make_component_card(
    name: str,
    description: str,
    script: str,
    argv: list[str],
    num_processes: int,
    num_steps: int,
    split: str,
    dataset_name: str | None = None,
    train_data_dir: str | None = None,
) -> ModelCard:
    """
    Makes the card of a trained network: what it is, data, the command that trained it, and versions.

    Args:
        name (`str`): Where it is saved: a folder, or a name on the Hub.
        description (`str`): Markdown that says what the network is and how to load it.
        script (`str`): Name of the training script.
        argv (`list[str]`): The flags it was called with.
        num_processes (`int`): How many processes it ran in.
        num_steps (`int`): Number of optimizer steps.
        split (`str`): The split it was trained on.
        dataset_name (`str`, *optional*): See [`load_image_dataset`].
        train_data_dir (`str`, *optional*): See [`load_image_dataset`].

    Returns:
        `huggingface_hub.ModelCard`: the card.

    Raises:
        ValueError: if `name` is empty, or a number is below 1.
        TypeError: if an argument is of another type.
    """
    sources = {"dataset_name": dataset_name, "train_data_dir": train_data_dir}
    check_texts(tuple(sources), name=name, description=description, script=script, split=split, **sources)
    if not isinstance(argv, (list, tuple)) or not all(isinstance(text, str) for text in argv):
        raise TypeError(f"`argv` expects a list of texts, got {argv!r}.")
    for argument, number in (("num_processes", num_processes), ("num_steps", num_steps)):
        if type(number) is not int or number < 1:
            raise ValueError(f"`{argument}` expects a whole number of at least 1, got {number!r}.")
    launch = ["accelerate", "launch", *(["--num_processes", str(num_processes)] if num_processes > 1 else [])]
    return ModelCard.from_template(
        ModelCardData(
            library_name="diffusers", tags=TAGS, datasets=[dataset_name] if is_on_hub(dataset_name) else None
        ),
        template_str=COMPONENT_TEMPLATE,
        title=Path(name).name,
        description=description.strip(),
        num_steps=num_steps,
        split=split,
        dataset=dataset_name or train_data_dir,
        command=shlex.join([*launch, f"train_scripts/{script}", *argv]),
        versions=list_versions("diffscm-diffusers", "torch", "diffusers", "accelerate", "datasets"),
    )


def make_dataset_card(
    name: str,
    model: str,
    num_classes: int,
    result: str,
    has_classes: bool,
    settings: dict,
    command: list[str],
    split: str,
    data_files: list[str],
    dataset_name: str | None = None,
    train_data_dir: str | None = None,
) -> DatasetCard:
    """
    Makes the card of a data set of counterfactuals: what it holds, how it was made, and what it is not fit for.

    Args:
        name (`str`): What `load_dataset` takes: a folder, or a name on the Hub.
        model (`str`): The causal model's checkpoint.
        num_classes (`int`): How many classes the causal model knows.
        result (`str`): How many counterfactuals there are, and how good they are.
        has_classes (`bool`): Whether the factuals' classes are known.
        settings (`dict`): Everything that the counterfactuals depend on.
        command (`list[str]`): The command that made them, word by word.
        split (`str`): The split of the factuals and of the counterfactuals.
        data_files (`list[str]`): The files of the split. `datasets` refuses to load it without one of them.
        dataset_name (`str`, *optional*): The factuals' data set; see [`load_image_dataset`].
        train_data_dir (`str`, *optional*): The factuals' data set; see [`load_image_dataset`].

    Returns:
        `huggingface_hub.DatasetCard`: the card.
    """
    source = dataset_name or train_data_dir
    on_hub = is_on_hub(dataset_name)
    columns = {
        "index": "row of the factual in the source's split",
        "factual": "the factual as the causal model saw it, 8 bits per channel",
        "factual_class": "its class",
        "counterfactual": "how it would look, had its class been `target`; rounded to 8 bits per channel",
        "target": "the class of the intervention",
        "target_probability": "probability of `target` under the anti-causal predictor, given the counterfactual",
        "difference": "counterfactual minus factual before rounding, float32 in [-1, 1], (height, width, channels)",
    }
    if not has_classes:
        columns.pop("factual_class")
    return DatasetCard.from_template(
        DatasetCardData(
            tags=TAGS,
            task_categories=["image-classification"],
            source_datasets=[source] if on_hub else None,
            configs=[{"config_name": "default", "data_files": [{"split": split, "path": data_files}]}],
        ),
        template_str=DATASET_TEMPLATE,
        title=Path(name).name,
        name=name,
        split=split,
        source=f"[{source}](https://huggingface.co/datasets/{source})" if on_hub else f"`{Path(source).name}`",
        model=model,
        num_classes=num_classes,
        result=result,
        columns=columns,
        settings=settings,
        command=shlex.join(command),
        versions=list_versions("diffscm-diffusers", "torch", "diffusers", "datasets"),
    )


def make_world_card(
    name: str,
    world: str,
    description: str,
    graph: dict,
    interventions: dict[str, tuple[str, str]],
    settings: dict,
    command: list[str],
    data_files: dict[str, list[str]],
) -> DatasetCard:
    """
    Makes the card of a data set of a world: its columns, the world that it comes from, and how to make it again.

    Args:
        name (`str`): What `load_dataset` takes: a folder, or a name on the Hub.
        world (`str`): The world's class.
        description (`str`): Markdown that says what it is.
        graph (`dict`): Its causal graph; see [`World`].
        interventions (`dict[str, tuple[str, str]]`):
            The variables that the test split intervenes on, with the columns of their values and counterfactuals.
        settings (`dict`): All that the images depend on, as JSON takes it.
        command (`list[str]`): The command that made them, word by word.
        data_files (`dict[str, list[str]]`):
            The files of each split. `datasets` refuses to load them without one of them.

    Returns:
        `huggingface_hub.DatasetCard`: the card.
    """
    columns = {"image": "the factual", "label": "the digit, as class"}
    for kind, nodes in (("variable", graph["nodes"]), ("exogenous noise", graph["exogenous_noise"])):
        for node_name, node in nodes.items():
            unit = f", in {node['unit']}" if node.get("unit", "1") != "1" else ""
            columns[node_name] = f"{kind}: {node_name.replace('_', ' ')}{unit}"
    for node_name, (value_column, image_column) in interventions.items():
        columns[value_column] = f"test only: value of `do({node_name})`"
        columns[image_column] = f"test only: the true counterfactual under `do({node_name})`"
    return DatasetCard.from_template(
        DatasetCardData(
            tags=TAGS,
            task_categories=["image-classification"],
            configs=[
                {
                    "config_name": "default",
                    "data_files": [{"split": split, "path": paths} for split, paths in data_files.items()],
                }
            ],
        ),
        template_str=WORLD_TEMPLATE,
        title=Path(name).name,
        name=name,
        columns=columns,
        world=world,
        edges=", ".join(f"{parent} → {child}" for parent, child in graph["edges"]),
        description=description.strip(),
        settings=json.dumps(settings, indent=2),
        command=shlex.join(command),
        versions=list_versions("diffscm-diffusers", "torch", "numpy", "pillow", "datasets"),
    )
