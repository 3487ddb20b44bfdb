# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""The page: a tab for each checkpoint, its style, and the server's limits."""

from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from diffscm_diffusers.causal_graphs import CausalGraph

from .checkpoint import Checkpoint
from .class_tab import ClassTab
from .controls import QUEUE
from .examples import class_examples, graph_examples
from .graph_tab import GraphTab
from .picture import MAX_BYTES
from .progress import Visitors


FOLDER = Path(__file__).parent
# In a checkout; the names are those of the tabs.
SHIPPED = {
    "Handwritten": "checkpoints/diffscm-mnist",
    "With a code": "checkpoints/diffscm-mnist-semantic",
    "Printed": "checkpoints/diffscm-typeface",
    "Causal graph": "checkpoints/diffscm-morphomnist-graph",
}
MAX_WAITING = 64
ABOUT_KIND = {
    "DiffSCMCounterfactualPipeline": "one class causes the image; a predictor of it guides the denoiser.",
    "DiffSCMSemanticCounterfactualPipeline": "one class causes the image; its noise has a semantic part too.",
    "DiffSCMGraphCounterfactualPipeline": "several attributes cause the image and each other.",
}
ABOUT = """# What if this image had had another cause?

Pick or draw a **factual** image and an **intervention**. The model infers the image's exogenous noise (*abduction*),
sets the cause (*action*), and computes the image that the same noise causes then (*prediction*): the
**counterfactual**."""


def shipped_checkpoints() -> dict[str, str]:
    """
    Name of the tab and folder of each checkpoint that is there.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = {title: folder for title, folder in SHIPPED.items() if Path(folder).is_dir()}
    if not found:
        raise FileNotFoundError(
            "`checkpoints/` expects the shipped checkpoints in the working directory, which has none. Give another "
            "one by `--pretrained_model_name_or_path`."
        )
    return found


class Limits:
    """Refuses files, which no part of the page sends and Gradio would keep, and requests that are too large."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        if scope["path"].rstrip("/").endswith("/upload"):
            return await PlainTextResponse("No files are taken here.", 403)(scope, receive, send)
        received = 0

        class TooLarge(Exception):
            pass

        async def limited():
            nonlocal received
            event = await receive()
            received += len(event.get("body", b""))
            if received > 2 * MAX_BYTES:
                raise TooLarge
            return event

        try:
            await self.app(scope, limited, send)
        except TooLarge:
            await PlainTextResponse("The request is too large.", 413)(scope, receive, send)


def build(checkpoints: dict[str, Checkpoint]) -> gr.Blocks:
    """
    Builds the page. Networks are not needed for that.

    Args:
        checkpoints (`dict[str, Checkpoint]`): Name of each tab, and what it shows.

    Returns:
        `gr.Blocks`: to be launched by [`serve`].
    """
    visitors = Visitors()
    # Nothing here uses Gradio's cache of files; should a plug-in, it is emptied every minute.
    with gr.Blocks(title="Counterfactual images", analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.Markdown(ABOUT)
        with gr.Tabs():
            for number, (title, checkpoint) in enumerate(checkpoints.items()):
                name, shape = f"tab{number}", checkpoint.image_shape
                with gr.Tab(title, id=name):
                    gr.Markdown(f"`{checkpoint.name}`: {ABOUT_KIND[checkpoint.kind]}")
                    if checkpoint.has("scm"):
                        graph = CausalGraph.from_dict(checkpoint.config("scm")["graph"])
                        examples = graph_examples(shape, list(graph.attributes))
                        GraphTab(checkpoint, graph, examples, name).build(visitors)
                    else:
                        examples = class_examples(checkpoint.name, shape, checkpoint.class_labels)
                        ClassTab(checkpoint, examples, name).build(visitors)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=QUEUE["concurrency_limit"])
    return page


def serve(checkpoints: dict[str, str], **kwargs):
    """
    Starts the server, and then loads the networks: visitors can draw meanwhile. Returns when it is interrupted.

    Args:
        checkpoints (`dict[str, str]`): Name of each tab, and the folder or the name on the Hub of its checkpoint.
        kwargs: Further arguments of Gradio's `launch`.

    Raises:
        ValueError: if a checkpoint cannot be shown.
    """
    checkpoints = {title: Checkpoint(name) for title, name in checkpoints.items()}
    page = build(checkpoints)
    fonts = ["system-ui", "sans-serif"]  # those of the visitor's system: nothing is downloaded
    theme = gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])
    # Gradio's greys and its orange are too faint to read well: these have a contrast of at least 4.5.
    theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        color_accent="*primary_700",
    )
    page.launch(
        prevent_thread_lock=True,
        theme=theme,
        css=(FOLDER / "page.css").read_text(),
        head=f"<script>{(FOLDER / 'page.js').read_text()}</script>",
        ssr_mode=False,
        footer_links=["api"],
        app_kwargs={"middleware": [Middleware(Limits)]},
        max_file_size=1,
        # Few calls run at once, and networks in another thread; each keeps memory of its own.
        max_threads=4,
        # Gradio keeps its components' state of that many visitors in memory. This page needs none of it.
        state_session_capacity=MAX_WAITING,
        # Gradio would end a server that does not answer itself within three seconds, as on a busy machine.
        _frontend=False,
        **kwargs,
    )
    for checkpoint in checkpoints.values():
        checkpoint.pipe  # noqa: B018, loads it
    page.block_thread()
