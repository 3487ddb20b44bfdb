# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The model card of a `DiffSCMCounterfactualPipeline` checkpoint."""

import re

from diffusers import DiffusionPipeline
from huggingface_hub import EvalResult, ModelCard, ModelCardData


# What `summary.json` calls a score, and the card.
SCORES = {
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
may change with it. Images unlike those of the training data are outside of what it has seen. How much of the factual
is kept depends on the guidance scale.
"""

TEMPLATE = """---
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
from diffscm_diffusers import DiffSCMCounterfactualPipeline
from PIL import Image

pipe = DiffSCMCounterfactualPipeline.from_pretrained("{{ name }}")
counterfactual = pipe(Image.open("factual.png"), intervention="{{ label }}").images[0]
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
| diffusion | {{ num_train_timesteps }} timesteps, betas `{{ beta_schedule }}` |
| inference | `{{ scheduler }}`; by default {{ steps }} steps each way, guidance scale {{ guidance_scale }} |
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


def read_section(card: str, title: str) -> str:
    """Returns the text of a card's section without its heading; an empty string where there is none."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", card, flags=re.MULTILINE | re.DOTALL)
    return match[1].strip() if match else ""


def count_parameters(model) -> str:
    number = model.num_parameters()
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number}"


def make_model_card(
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
    Makes the card of a checkpoint: what it models, how to load it, hyperparameters, results, use and limits.

    Args:
        pipeline ([`DiffSCMCounterfactualPipeline`]): The checkpoint, loaded.
        name (`str`): What `from_pretrained` takes: a folder, or a name on the Hub.
        cause (`str`, *optional*, defaults to `"class"`): What the classes are.
        effect (`str`, *optional*, defaults to `"image"`): What the images show.
        dataset (`str`, *optional*): The training data's name on the Hub.
        license (`str`, *optional*): The weights' licence, by the Hub's name for it.
        picture (`str`, *optional*): Path of a picture in the checkpoint.
        training (`str`, *optional*): Markdown that says how the networks were trained.
        limits (`str`, *optional*): Markdown on the limits. Default: those of every such model.
        summary (`dict`, *optional*):
            What `diffscm evaluate` wrote to `summary.json`. The scores of its method `diffscm` go to the section
            *Results*
            and, for search engines, to the `model-index` of the metadata.

    Raises:
        ValueError: if `summary` has no method `diffscm`.
    """
    title = name.rstrip("/").split("/")[-1]
    results, evaluations = "", []
    if summary is not None:
        if "diffscm" not in summary["methods"]:
            raise ValueError(f"`summary` has no method 'diffscm', only {sorted(summary['methods'])}.")
        method = summary["methods"]["diffscm"]
        settings, scores = method["settings"], method["scores"]
        data = dataset or settings["dataset_name"] or settings["train_data_dir"]
        scale = settings["guidance_scale"]
        setting = (
            f"{summary['num_pairs']} counterfactuals with random targets, {settings['num_inference_steps']} steps, "
            f"guidance scale {'searched for each image' if isinstance(scale, dict) else f'{scale:g}'}"
        )
        lines = [
            f"On the split `{settings['split']}` of `{data}`: {setting}.\n",
            "| score | mean | 95 % bootstrap interval |\n| --- | --- | --- |",
        ]
        for score, description in SCORES.items():
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
    labels = list(classifier.id2label.values())
    shown = labels if len(labels) <= 20 else [*labels[:10], "..."]
    channels, height, width = pipeline.image_shape
    return ModelCard.from_template(
        ModelCardData(
            library_name="diffusers",
            license=license,
            datasets=[dataset] if dataset else None,
            tags=["diffscm-diffusers", "causality", "counterfactual"],
            pipeline_tag="image-to-image",
            model_name=title,
            eval_results=evaluations or None,
        ),
        template_str=TEMPLATE,
        title=title,
        name=name,
        hub_name=f"user/{title}",
        cause=cause,
        effect=effect,
        dataset=dataset,
        picture=picture,
        training=training.strip(),
        results=results,
        limits=(limits or LIMITS).strip(),
        label=labels[-1],
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
        guidance_scale=f"{pipeline.config.default_guidance_scale:g}",
    )
