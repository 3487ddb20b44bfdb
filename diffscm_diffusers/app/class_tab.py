# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The tab of a checkpoint with one class: had this digit been another?"""

from typing import Any

import gradio as gr
import torch
from PIL import Image

from .checkpoint import Checkpoint
from .code_box import Call
from .controls import (
    MAX_DRAWS,
    MAX_IMAGES,
    MAX_STEPS,
    QUEUE,
    add_cancel,
    check_number,
    draws_slider,
    outputs_of,
    picture_input,
    read_picture_js,
    run_for_visitor,
    seed_number,
    steps_slider,
)
from .drawing import message, to_html
from .examples import Examples, to_picture
from .picture import read_picture
from .progress import Steps, Visitors, with_steps
from .results import counterfactual_rows


ALL = "all"


class ClassTab:
    """
    A tab for a pipeline of either kind with one class.

    Args:
        checkpoint ([`Checkpoint`]):
            Of a [`DiffSCMCounterfactualPipeline`] or a [`DiffSCMSemanticCounterfactualPipeline`].
        examples ([`Examples`]): Factual images to pick.
        name (`str`): For the elements' ids, and the events' names in the API.
    """

    def __init__(self, checkpoint: Checkpoint, examples: Examples, name: str):
        self.checkpoint, self.examples, self.name = checkpoint, examples, name
        self.image_shape, self.labels = checkpoint.image_shape, checkpoint.class_labels
        self.is_guided = not checkpoint.has("encoder")
        # What the checkpoint's maker measured as fast, else its defaults.
        index = checkpoint.index
        preset = index.get("presets", {}).get("fast", {}) if self.is_guided else {}
        self.steps = preset.get("num_inference_steps", min(10, index["default_num_inference_steps"]))
        if self.is_guided:
            self.guidance_scale = preset.get("guidance_scale", index["default_guidance_scale"])
        self.fixed = {key: preset[key] for key in ("abduction", "guidance_interval") if key in preset}

    def build(self, visitors: Visitors):
        """Places the tab's components."""
        name, size = self.name, self.image_shape[-1]
        picture = gr.Textbox(visible=False)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="diffscm-inputs"):
                gr.HTML(picture_input(name, self.examples, size))
                fit = gr.Checkbox(
                    True,
                    label="Bring drawings and files to the form of the training images",
                    info=f"As in MNIST: {size} x {size} pixels, grey, bright on dark, the digit in a box of "
                    f"{round(size * 20 / 28)} x {round(size * 20 / 28)} pixels, centred by mass."
                    if self.image_shape[0] == 1
                    else f"{size} x {size} pixels.",
                    elem_classes="diffscm-own",
                )
                target = gr.Dropdown([ALL, *self.labels], value=ALL, label="Intervention: do(class = ...)")
                num_draws = draws_slider(
                    "1: without chance. More: several counterfactuals of each, their mean and their spread."
                )
                with gr.Accordion("Settings", open=False):
                    steps = steps_slider(self.steps)
                    guidance_scale = gr.Slider(
                        0,
                        20,
                        self.guidance_scale if self.is_guided else 1,
                        step=0.5,
                        label="Guidance scale",
                        info="How strongly the predictor pulls towards the intervention; 0 gives the factual back.",
                        visible=self.is_guided,
                    )
                    strength = gr.Slider(
                        0.1,
                        1,
                        1,
                        step=0.05,
                        label="Strength",
                        info="The part of the steps that is taken: less keeps more of the factual.",
                        visible=self.is_guided,
                    )
                    seed = seed_number()
                with gr.Row():
                    run = gr.Button("Show counterfactuals", variant="primary", elem_id=f"{name}-run")
                    cancel = gr.Button("Cancel", elem_id=f"{name}-cancel")
            with gr.Column(scale=2, min_width=300, elem_classes="diffscm-outputs"):
                outputs = outputs_of(name, "The same in Python")

        def show(
            picture,
            fit,
            target,
            num_draws,
            steps,
            guidance_scale,
            strength,
            seed,
            request: gr.Request,
            progress=gr.Progress(),  # noqa: B008, where Gradio looks for it
        ):
            def function(report: Steps):
                return self.run(report, picture, fit, target, num_draws, steps, guidance_scale, strength, seed)

            yield from run_for_visitor(function, visitors, request, progress)

        event = run.click(
            show,
            [picture, fit, target, num_draws, steps, guidance_scale, strength, seed],
            outputs.as_list(),
            js=read_picture_js(name),
            api_name=name,
            show_progress_on=outputs.results,
            **QUEUE,
        )
        add_cancel(cancel, [event], visitors, outputs.status, name)

    def call(
        self,
        image: Image.Image,
        target: Any,
        num_draws: Any,
        steps: Any,
        guidance_scale: Any,
        strength: Any,
        seed: Any,
    ) -> tuple[Call, list[str]]:
        """Checks settings. Returns the call that they mean, and the interventions."""
        if target != ALL and target not in self.labels:
            raise ValueError(f"`target` expects one of {', '.join([ALL, *self.labels])}, got {str(target)[:40]!r}.")
        targets = self.labels if target == ALL else [target]
        num_draws = check_number("num_draws", num_draws, 1, MAX_DRAWS, whole=True)
        if len(targets) * num_draws > MAX_IMAGES:
            raise ValueError(
                f"`num_draws` expects at most {MAX_IMAGES} images in all, got {num_draws} draws of {len(targets)}: "
                "choose one intervention, or fewer draws."
            )
        steps = check_number("steps", steps, 2, MAX_STEPS, whole=True)
        arguments = {"intervention": targets, "num_inference_steps": steps}
        if self.is_guided:
            guidance_scale = check_number("guidance_scale", guidance_scale, 0, 20)
            strength = check_number("strength", strength, 0.1, 1)
            arguments |= {"guidance_scale": guidance_scale, "strength": strength, **self.fixed}
        seed = check_number("seed", seed, 0, 2**32 - 1, whole=True)
        if num_draws == 1:
            return Call(self.checkpoint.name, image, arguments), targets
        return Call(self.checkpoint.name, image, {**arguments, "num_draws": num_draws}, seed), targets

    def read(self, images: list[Image.Image]) -> list[str]:
        """What the predictor reads in each image."""
        pipe = self.checkpoint.pipe
        with torch.no_grad():
            probabilities = pipe.classifier(pipe.prepare_image(images), 0).logits.softmax(dim=1)
        values, indices = probabilities.max(dim=1)
        return [
            f"predictor reads {self.labels[index]} ({value:.0%})"
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]

    def run(self, report: Steps, picture: Any, fit: Any, *settings: Any) -> tuple[str, str, str]:
        """Status, results and code for a visitor's picture and settings."""
        factual = read_picture(picture, self.image_shape, bool(fit), self.examples)
        call, targets = self.call(factual.image, *settings)
        output = call.run(with_steps(self.checkpoint.pipe, report))
        names = [f"do({target})" for target in targets]
        rows = counterfactual_rows(factual.image, output, names, self.read, self.truths(factual.example, targets))
        notes = " ".join(["Done.", *factual.notes])
        return message(notes), to_html(rows, "counterfactuals.png"), call.code(self.checkpoint.kind)

    def truths(self, example: int | None, targets: list[str]) -> list[Image.Image] | None:
        """The true counterfactuals of an example under each intervention, `None` where no one knows them."""
        truths = [self.examples.truth(example, {"digit": self.labels.index(target)}) for target in targets]
        return None if None in truths else [to_picture(truth.images[0]) for truth in truths]
