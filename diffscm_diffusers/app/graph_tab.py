# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The tab of a checkpoint with a causal graph: had its thickness been another, with all that follows?"""

import functools
import html
import math
from io import BytesIO
from typing import Any

import gradio as gr
import networkx
import numpy as np
import torch
from PIL import Image

from diffscm_diffusers.causal_graphs import CausalGraph

from .checkpoint import Checkpoint
from .code_box import Call
from .controls import (
    MAX_DRAWS,
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
from .drawing import Cell, Row, message, pixels, to_data_url, to_html
from .examples import Examples, to_picture
from .picture import Factual, read_picture
from .progress import Steps, Visitors, with_steps
from .results import counterfactual_rows


LEAVE, SET, HOLD = MODES = ("leave", "set", "hold")
MODES_INFO = """**Leave** an attribute to its causes, **set** it by an intervention, or **hold** it at its factual
value whatever becomes of its causes."""
NUM_SWEEP = 7


class GraphTab:
    """
    A tab for a pipeline with a causal graph.

    Args:
        checkpoint ([`Checkpoint`]): Of a [`DiffSCMGraphCounterfactualPipeline`].
        graph ([`CausalGraph`]): The checkpoint's.
        examples ([`Examples`]): Factual images to pick, from a world with the graph's attributes.
        name (`str`): For the elements' ids, and the events' names in the API.
    """

    def __init__(self, checkpoint: Checkpoint, graph: CausalGraph, examples: Examples, name: str):
        self.checkpoint, self.graph, self.examples, self.name = checkpoint, graph, examples, name
        self.image_shape, self.attributes = checkpoint.image_shape, list(graph.attributes)
        self.steps = min(15, checkpoint.index["default_num_inference_steps"])
        # What visitors have to tell of a picture of their own: neither measured nor read by a predictor.
        read = graph.image_parents if checkpoint.has("predictor") else ()
        self.told = [name for name in self.attributes if name not in (*read, *examples.measures)]
        # Up to three marks each, the visitor's own: few enough to keep all drawings.
        self.draw_graph = functools.lru_cache(256)(self._draw_graph)

    def build(self, visitors: Visitors):
        """Places the tab's components."""
        name, size = self.name, self.image_shape[-1]
        picture = gr.Textbox(visible=False)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="diffscm-inputs"):
                gr.HTML(picture_input(name, self.examples, size))
                with gr.Column(elem_classes="diffscm-own"):
                    fit = gr.Checkbox(
                        True,
                        label="Bring drawings and files to the form of the training images",
                        info="As in MNIST: grey, bright on dark, the digit centred by mass.",
                    )
                    gr.Markdown(self.how_attributes_are_known())
                    told = [self.control(name, f"{name} of your picture", None) for name in self.told]
                first = next((n for n in self.attributes if self.graph.nodes[n].kind == "continuous"), None)
                drawing = gr.HTML(self.draw_graph((first,) if first else (), ()), elem_id=f"{name}-graph")
                gr.Markdown(MODES_INFO)
                modes, values = [], []
                for attribute in self.attributes:
                    # What nothing causes stays as it is: to hold it would be to leave it.
                    choices = list(MODES) if self.graph.parents(attribute) else [LEAVE, SET]
                    is_set = attribute == first
                    with gr.Group():
                        modes.append(gr.Radio(choices, value=SET if is_set else LEAVE, label=attribute))
                        label = f"do({attribute} = ...)"
                        values.append(self.control(attribute, label, self.start(attribute), is_set))
                for mode in modes:
                    mode.change(
                        self.redraw,
                        modes,
                        [drawing, *values],
                        queue=False,
                        show_progress="hidden",
                        api_visibility="private",
                    )
                num_draws = draws_slider("More than 1: several counterfactuals, their mean and their spread.")
                with gr.Accordion("Settings", open=False):
                    steps = steps_slider(self.steps)
                    guidance_scale = gr.Slider(
                        0,
                        5,
                        1,
                        step=0.25,
                        label="Guidance scale",
                        info="How strongly the causes act on the image; 1 is the mechanism itself.",
                    )
                    seed = seed_number()
                with gr.Row():
                    run = gr.Button("Show counterfactual", variant="primary", elem_id=f"{name}-run")
                    cancel = gr.Button("Cancel", elem_id=f"{name}-cancel")
                with gr.Row():
                    node = gr.Dropdown(self.attributes, value=first or self.attributes[0], label="Attribute to sweep")
                    sweep = gr.Button("Sweep it", elem_id=f"{name}-sweep")
            with gr.Column(scale=2, min_width=300, elem_classes="diffscm-outputs"):
                outputs = outputs_of(name, "The same in Python")

        # Gradio finds `request` and `progress` by their place, so they stand before the attributes' controls.
        def show(
            picture,
            fit,
            num_draws,
            steps,
            guidance_scale,
            seed,
            request: gr.Request,
            progress=gr.Progress(),  # noqa: B008
            *controls,
        ):
            yield from run_for_visitor(
                lambda report: self.run(report, picture, fit, num_draws, steps, guidance_scale, seed, controls),
                visitors,
                request,
                progress,
            )

        def show_sweep(
            picture,
            fit,
            node,
            steps,
            guidance_scale,
            seed,
            request: gr.Request,
            progress=gr.Progress(),  # noqa: B008
            *controls,
        ):
            yield from run_for_visitor(
                lambda report: self.run_sweep(report, picture, fit, node, steps, guidance_scale, seed, controls),
                visitors,
                request,
                progress,
            )

        events = []
        for button, function, setting, api_name in (
            (run, show, num_draws, name),
            (sweep, show_sweep, node, f"{name}_sweep"),
        ):
            events.append(
                button.click(
                    function,
                    [picture, fit, setting, steps, guidance_scale, seed, *told, *modes, *values],
                    outputs.as_list(),
                    js=read_picture_js(name),
                    api_name=api_name,
                    show_progress_on=outputs.results,
                    **QUEUE,
                )
            )
        add_cancel(cancel, events, visitors, outputs.status, name)

    def control(self, attribute: str, label: str, value: Any, visible: bool = True) -> gr.components.Component:
        """The control of an attribute's value: a slider or a number in its unit, or a choice."""
        node = self.graph.nodes[attribute]
        if node.kind != "continuous":
            return gr.Dropdown(list(node.labels), value=value, label=label, visible=visible)
        low, high = node.range
        unit = f" ({node.unit})" if node.unit and node.unit != "1" else ""
        if value is None:
            return gr.Number(None, label=f"{label}{unit}", minimum=low, maximum=high)
        return gr.Slider(low, high, value, step=step_of(low, high), label=f"{label}{unit}", visible=visible)

    def start(self, attribute: str) -> Any:
        """The value that an attribute's control starts at: the largest of the examples', so that much is seen."""
        node = self.graph.nodes[attribute]
        if node.kind != "continuous":
            return node.labels[0]
        low, high = node.range
        known = sorted(self.examples.attributes(i).get(attribute) for i in range(len(self.examples)))
        value = known[-1] if known and None not in known else (low + high) / 2
        step = step_of(low, high)
        return round(low + round((value - low) / step) * step, 6)

    def how_attributes_are_known(self) -> str:
        """Says where the factual attributes come from."""
        read = [name for name in self.attributes if name not in (*self.told, *self.examples.measures)]
        ways = [
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} {how}"
            for names, how in (
                (list(self.examples.measures), "measured in it"),
                (read, "read off it by the predictor"),
                (self.told, "what you say here"),
            )
            if names
        ]
        return f"Of a picture of your own, {', and '.join(ways)}. The attributes of examples are known."

    def marks(self, modes: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the attributes that are set, and of those that are held."""
        if any(mode not in MODES for mode in modes):
            raise ValueError(f"The attributes' modes expect each one of {MODES}, got {str(modes)[:100]}.")
        pairs = list(zip(self.attributes, modes, strict=True))
        return tuple(n for n, mode in pairs if mode == SET), tuple(n for n, mode in pairs if mode == HOLD)

    def redraw(self, *modes: str) -> list:
        """The drawing, and which of the attributes' controls are shown."""
        do, hold = self.marks(modes)
        return [self.draw_graph(do, hold), *(gr.update(visible=name in do) for name in self.attributes)]

    def _draw_graph(self, do: tuple[str, ...], hold: tuple[str, ...]) -> str:
        """The graph under an intervention, as a part of the page."""
        from matplotlib.figure import Figure  # which takes long to import

        layers = list(networkx.topological_generations(networkx.DiGraph(self.graph.edges)))
        size = (max(3.6, 1.2 * len(layers)), max(2.4, 0.9 * max(map(len, layers))))
        figure = Figure(figsize=size, layout="tight")
        self.graph.plot(do=do, hold=hold, ax=figure.subplots())
        file = BytesIO()
        figure.savefig(file, dpi=170)
        edges = ", ".join(f"{parent} to {child}" for parent, child in self.graph.edges if child not in (*do, *hold))
        marks = "; ".join(
            f"{what}: {', '.join(names)}, whose incoming edges are cut"
            for what, names in (("set", do), ("held", hold))
            if names
        )
        text = html.escape(f"Causal graph, with edges from {edges}. {marks}")
        return f'<div class="diffscm-graph"><img src="{to_data_url(Image.open(file))}" alt="{text}"></div>'

    def intervention(self, controls: list) -> tuple[dict[str, Any], list[str]]:
        """Checks the attributes' controls. Returns `do` and `hold` as a call takes them."""
        half = len(self.attributes)
        do, hold = self.marks(controls[:half])
        values = dict(zip(self.attributes, controls[half:], strict=True))
        return {name: self.value("do", name, values[name]) for name in do}, list(hold)

    def value(self, argument: str, attribute: str, value: Any) -> Any:
        """Checks the value of an attribute."""
        node, name = self.graph.nodes[attribute], f"{argument}[{attribute!r}]"
        if node.kind == "continuous":
            return check_number(name, value, *node.range)
        if value not in node.labels:
            got = "nothing: choose it" if value is None else f"{str(value)[:40]!r}"
            raise ValueError(f"`{name}` expects one of {', '.join(node.labels)}, got {got}.")
        return value

    def factual(self, picture: Any, fit: Any, told: tuple) -> tuple[Factual, dict[str, Any]]:
        """The factual and its attributes: an example's, or what is measured in and told of a visitor's own picture."""
        factual = read_picture(picture, self.image_shape, bool(fit), self.examples)
        if factual.example is not None:
            known = self.examples.attributes(factual.example).items()
            return factual, {name: self.label(name, value) for name, value in known if name in self.attributes}
        values = {name: self.value("attributes", name, value) for name, value in zip(self.told, told, strict=True)}
        if fit and "intensity" in self.examples.measures:
            factual = self.dim(factual)
        values |= self.measure(factual.image)
        if self.examples.measures:
            measured = ", ".join(f"{name} {self.text(name, values[name])}" for name in self.examples.measures)
            factual.notes.append(f"Measured in it: {measured}.")
        return factual, values

    def dim(self, factual: Factual) -> Factual:
        """Gives a drawing, which is white, the intensity that the causal model expects at its thickness."""
        measured = self.measure(factual.image)
        do = {"thickness": self.value("thickness", "thickness", measured["thickness"])}
        generator = torch.Generator().manual_seed(0)
        usual = self.checkpoint.pipe.scm.sample(1000, do=do, generator=generator)["intensity"].median().item()
        scaled = (pixels(factual.image) * (255 * usual / measured["intensity"])).clip(0, 255).round()
        note = f"Its intensity was set to {usual:.0f}, as is usual at its thickness."
        return Factual(Image.fromarray(scaled.astype(np.uint8)), notes=[*factual.notes, note])

    def measure(self, image: Image.Image) -> dict[str, float]:
        """The attributes that can be measured in an image."""
        tensor = torch.from_numpy(pixels(image)).float()[None, None]
        return {name: round(measure(tensor).item(), 2) for name, measure in self.examples.measures.items()}

    def label(self, attribute: str, value: Any) -> Any:
        """The label that an index means; numbers to four digits."""
        node = self.graph.nodes[attribute]
        return round(value, 4) if node.kind == "continuous" else node.labels[int(value)]

    def settings(self, steps: Any, guidance_scale: Any, seed: Any) -> tuple[dict[str, Any], int]:
        """Checks settings. Returns arguments that all calls take, and the seed."""
        arguments = {
            "num_inference_steps": check_number("steps", steps, 2, MAX_STEPS, whole=True),
            "guidance_scale": check_number("guidance_scale", guidance_scale, 0, 5),
        }
        return arguments, check_number("seed", seed, 0, 2**32 - 1, whole=True)

    def split(self, controls: tuple) -> tuple[tuple, tuple]:
        """What visitors tell of their picture, and the controls of the intervention."""
        return controls[: len(self.told)], controls[len(self.told) :]

    def run(
        self,
        report: Steps,
        picture: Any,
        fit: Any,
        num_draws: Any,
        steps: Any,
        guidance_scale: Any,
        seed: Any,
        controls: list,
    ) -> tuple[str, str, str]:
        """Status, results and code of one intervention."""
        told, controls = self.split(controls)
        do, hold = self.intervention(controls)
        factual, attributes = self.factual(picture, fit, told)
        arguments, seed = self.settings(steps, guidance_scale, seed)
        arguments = {"attributes": attributes, "do": do, "hold": hold, **arguments}
        num_draws = check_number("num_draws", num_draws, 1, MAX_DRAWS, whole=True)
        if num_draws > 1:
            arguments["num_draws"] = num_draws
        call = Call(self.checkpoint.name, factual.image, arguments, seed)
        output = call.run(with_steps(self.checkpoint.pipe, report))

        truth = self.truth(factual, do, hold)
        name = ", ".join(f"do({key} = {self.text(key, value)})" for key, value in do.items()) or "nothing set"
        rows = counterfactual_rows(
            factual.image,
            output,
            [name],
            lambda images: [""] * len(images),
            None if truth is None else [to_picture(truth.images[0])],
        )
        first = output.images[0]
        table = self.table(output, truth, first[0] if isinstance(first, list) else first)
        if factual.example is not None and self.examples.world is not None and truth is None:
            factual.notes.append("The truth of this intervention is not known.")
        status = self.status(factual, output)
        return status, to_html(rows, "counterfactual.png") + table, call.code(self.checkpoint.kind)

    def run_sweep(
        self,
        report: Steps,
        picture: Any,
        fit: Any,
        node: Any,
        steps: Any,
        guidance_scale: Any,
        seed: Any,
        controls: list,
    ) -> tuple[str, str, str]:
        """Status, results and code of one attribute's sweep through its range, as a strip."""
        if node not in self.attributes:
            raise ValueError(f"`node` expects one of {', '.join(self.attributes)}, got {str(node)[:40]!r}.")
        told, controls = self.split(controls)
        do, hold = self.intervention(controls)
        do.pop(node, None)
        hold = [name for name in hold if name != node]
        factual, attributes = self.factual(picture, fit, told)
        values = self.sweep_values(node)
        arguments, seed = self.settings(steps, guidance_scale, seed)
        arguments = {"node": node, "values": values, "attributes": attributes, "do": do, "hold": hold, **arguments}
        call = Call(self.checkpoint.name, factual.image, arguments, seed, method="sweep")
        output = call.run(with_steps(self.checkpoint.pipe, report))

        names = [f"{node} {self.text(node, value)}" for value in values]
        cells = [Cell(*parts) for parts in zip(output.images[0], names, strict=True)]
        outside = output.outside_support.flatten().tolist()
        follow = [name for name in self.attributes if name in self.graph.descendants({node, *do}, hold)]
        for i, cell in enumerate(cells):
            details = [
                f"{name} {self.text(name, output.counterfactual_attributes[name].flatten()[i].item())}"
                for name in follow
            ]
            cell.detail = ", ".join([*details, *(["outside the support"] if outside[i] else [])])
        rows = [Row("Factual", [Cell(factual.image, "factual")]), Row(f"Sweep of {node}", cells)]
        truths = [self.truth(factual, {**do, node: value}, hold) for value in values]
        if None not in truths:
            rows.append(
                Row(
                    "Truth: the world's own counterfactuals",
                    [Cell(to_picture(truth.images[0]), name) for truth, name in zip(truths, names, strict=True)],
                )
            )
        return self.status(factual, output), to_html(rows, "sweep.png"), call.code(self.checkpoint.kind)

    def sweep_values(self, node: str) -> list[Any]:
        """All labels, or values from the 1 % to the 99 % quantile of what the model's own samples have."""
        description = self.graph.nodes[node]
        if description.kind != "continuous":
            return list(description.labels)
        sampled = self.checkpoint.pipe.scm.sample(1000, generator=torch.Generator().manual_seed(0))[node]
        low, high = np.quantile(sampled.cpu().numpy(), [0.01, 0.99]).tolist()
        digits = max(0, 2 - int(np.floor(np.log10(high - low)))) if high > low else 4
        return [round(value, digits) for value in np.linspace(low, high, NUM_SWEEP).tolist()]

    def truth(self, factual: Factual, do: dict[str, Any], hold: list[str]):
        """The true counterfactual of an example. What is held is set to the value that it has."""
        if factual.example is None or self.examples.world is None:
            return None
        known = self.examples.attributes(factual.example)
        wanted = {**do, **{name: known[name] for name in hold}}
        for name, value in wanted.items():
            if isinstance(value, str):
                wanted[name] = list(self.graph.nodes[name].labels).index(value)
        return self.examples.truth(factual.example, wanted)

    def text(self, attribute: str, value: Any) -> str:
        """A value, or a label's index, as visitors read it."""
        node = self.graph.nodes[attribute]
        if node.kind == "continuous":
            return f"{float(value):.3g}"
        return value if isinstance(value, str) else self.label(attribute, value)

    def table(self, output, truth, counterfactual: Image.Image) -> str:
        """The attributes before and after, what the predictor reads in the counterfactual, and the truth."""
        columns = {"factual": output.attributes, "counterfactual": output.counterfactual_attributes}
        if self.checkpoint.pipe.predictor is not None:
            with torch.no_grad():
                condition = self.checkpoint.pipe.predictor.predict(
                    self.checkpoint.pipe.prepare_image(counterfactual), 0
                )
            columns["read in the counterfactual"] = self.graph.values(condition)
        if self.examples.measures:
            columns["measured in the image"] = {
                name: torch.tensor([value]) for name, value in self.measure(counterfactual).items()
            }
        if truth is not None:
            columns["truth"] = truth.variables
        head = "".join(f'<th scope="col">{column}</th>' for column in ("attribute", *columns))
        body = ""
        for name in self.attributes:
            unit = self.graph.nodes[name].unit if self.graph.nodes[name].kind == "continuous" else None
            cells = [
                f"<td>{html.escape(self.text(name, values[name].flatten()[0].item())) if name in values else ''}</td>"
                for values in columns.values()
            ]
            title = html.escape(f"{name}, {unit}" if unit else name)
            body += f'<tr><th scope="row">{title}</th>{"".join(cells)}</tr>'
        return f'<div class="diffscm-results"><table><tr>{head}</tr>{body}</table></div>'

    def status(self, factual: Factual, output) -> str:
        """What was done, what was read, and a warning where the intervention leaves the support."""
        notes = ["Done.", *factual.notes]
        if output.read_attributes:
            notes.append(f"Read off the image by the predictor: {', '.join(output.read_attributes)}.")
        text = message(" ".join(notes))
        if output.outside_support.any():
            text += (
                '<div class="diffscm-warning" role="alert">Outside the support: attributes as these are rarer '
                "together than all but 1 % of the training data. The image is an extrapolation.</div>"
            )
        return text


def step_of(low: float, high: float) -> float:
    """A round step, of which a range has 100 to 250."""
    step = 10 ** math.floor(math.log10((high - low) / 100))
    return next(step * factor for factor in (5, 2, 1) if (high - low) / (step * factor) >= 100)
