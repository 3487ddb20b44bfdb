# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What both tabs need: where to give a picture, the buttons, and running a function for a visitor."""

import html
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .drawing import message, to_data_url
from .examples import Examples
from .picture import MAX_BYTES
from .progress import Cancelled, Steps, Visitors, in_one_thread


logger = logging.getLogger(__name__)

MAX_STEPS = 50
MAX_DRAWS = 8
MAX_IMAGES = 40
# The networks of all tabs work on one call at a time: two would only slow each other down.
QUEUE = {"concurrency_id": "networks", "concurrency_limit": 1}


@dataclass
class Outputs:
    """Where a function's results go."""

    status: gr.HTML
    results: gr.HTML
    code: gr.Code

    def as_list(self) -> list:
        return [self.status, self.results, self.code]


def draws_slider(info: str) -> gr.Slider:
    """How many counterfactuals to draw; `info` says what that means on the tab."""
    return gr.Slider(1, MAX_DRAWS, 1, step=1, label="Draws", info=info)


def steps_slider(default: int) -> gr.Slider:
    """How many steps to take each way."""
    info = "Steps in each direction: more are more exact, and take longer."
    return gr.Slider(2, MAX_STEPS, default, step=1, label="Steps", info=info)


def seed_number() -> gr.Number:
    """The seed of the draws."""
    return gr.Number(0, label="Seed", info="The same seed gives the same draws.", precision=0)


def picture_input(name: str, examples: Examples, size: int) -> str:
    """
    The part of the page that takes a picture: a drawing, a file, or an example. `page.js` reads it.

    Args:
        name (`str`): The tab's, for the elements' ids.
        examples ([`Examples`]): To pick from. The first is picked when the page opens.
        size (`int`): Height and width of the checkpoint's images.
    """
    kinds = [("draw", "Draw"), ("upload", "Upload"), ("example", "Pick an example")][: 3 if len(examples) else 2]
    first = kinds[-1][0] if len(examples) else "draw"
    choices = "".join(
        f'<label><input type="radio" name="{name}-kind" value="{kind}"{" checked" if kind == first else ""}> {label}'
        "</label>"
        for kind, label in kinds
    )
    thumbnails = "".join(
        f'<label><input type="radio" name="{name}-example" value="{i}"{"" if i else " checked"}>'
        f'<img src="{to_data_url(image)}" alt="Example {html.escape(label)}"></label>'
        for i, (image, label) in enumerate(zip(examples.images, examples.names, strict=True))
    )
    return f"""
<div class="diffscm-picture" id="{name}-picture" data-max-bytes="{MAX_BYTES}">
<fieldset class="diffscm-kinds"><legend>Factual image</legend>{choices}</fieldset>
<div class="diffscm-panel" data-kind="draw">
<canvas width="280" height="280" tabindex="0" role="application" aria-label="Drawing area"
  aria-describedby="{name}-keys"></canvas>
<div><button type="button" class="diffscm-clear">Clear</button></div>
<small id="{name}-keys">Draw with mouse, pen or finger. By keyboard: arrows move the pen, Space puts it down or
lifts it, Delete clears. <span class="diffscm-pen" aria-live="polite"></span></small>
</div>
<div class="diffscm-panel" data-kind="upload">
<label>Picture file, at most {MAX_BYTES // 10**6} MB <input type="file" accept="image/*"></label>
<p><small>It is sent when you press a button, computed with, and not stored.</small></p>
<img class="diffscm-preview" alt="Your picture" hidden>
</div>
<fieldset class="diffscm-panel diffscm-examples" data-kind="example"><legend>Examples</legend>{thumbnails}</fieldset>
</div>"""


def read_picture_js(name: str) -> str:
    """JavaScript that puts the visitor's picture in the place of an event's first input."""
    return f'(_, ...others) => [window.diffscmPicture("{name}-picture"), ...others]'


def check_number(argument: str, value: Any, low: float, high: float, whole: bool = False) -> float | int:
    """Checks a setting. Those that come by the API can be anything."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"`{argument}` expects {kind} from {low} to {high}, got {str(value)[:40]!r}.")
    return int(value) if whole else float(value)


def run_for_visitor(
    function: Callable[[Steps], tuple[str, str, str]], visitors: Visitors, request: gr.Request, progress: gr.Progress
) -> Iterator[tuple[Any, Any, Any]]:
    """
    Runs a function for a visitor: says so, shows its progress, stops it when it is cancelled, and turns what is
    wrong with its input into a message in the page.

    Args:
        function (`Callable`): From where to report steps to status, results and code.
        visitors ([`Visitors`]): All that have something running.
        request (`gr.Request`): Whose it is.
        progress (`gr.Progress`): Where to show it.

    Returns:
        `Iterator[tuple[Any, Any, Any]]`: status, results and code, while it computes and after.
    """
    visitor = request.session_hash or ""
    visitors.start(visitor)
    yield message("Computing."), gr.skip(), gr.skip()
    steps = Steps(lambda done, text: progress(done, desc=text), lambda: visitor in visitors.cancelled)
    try:
        yield in_one_thread(function, steps)
    except Cancelled:
        yield message("Cancelled."), "", ""
    except (TypeError, ValueError) as error:
        yield message(str(error), is_error=True), "", ""
    except Exception:  # the visitor is told; the server lives on, and its log says what it was
        logger.exception("A visitor's call failed.")
        yield message("This failed for a reason of our own. The server's log has it.", is_error=True), "", ""
    finally:
        visitors.end(visitor)


def outputs_of(name: str, code_label: str) -> Outputs:
    """Status, results and code, to be placed where this is called."""
    return Outputs(
        gr.HTML(
            message("Pick or draw a factual image, choose an intervention, and press the button."),
            elem_id=f"{name}-status",
        ),
        gr.HTML(elem_id=f"{name}-results"),
        gr.Code(
            language="python",
            label=code_label,
            interactive=False,
            elem_id=f"{name}-code",
            buttons=["copy"],
            wrap_lines=True,
        ),
    )


def add_cancel(button: gr.Button, events: list, visitors: Visitors, status: gr.HTML, name: str):
    """Makes a button cancel what the visitor has waiting or running."""

    def cancel(request: gr.Request) -> str:
        visitors.cancel(request.session_hash or "")
        return message("Cancelled.")

    button.click(cancel, None, status, cancels=events, queue=False, api_name=f"{name}_cancel")
