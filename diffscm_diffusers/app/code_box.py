# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A call of a pipeline as the page makes it, and as Python that gives the same pixels."""

import base64
import io
import pprint
import textwrap
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image


@dataclass
class Call:
    """
    A call of a pipeline. What [`Call.run`] does is what [`Call.code`] says.

    Args:
        checkpoint (`str`): What the pipeline was loaded from.
        image (`PIL.Image.Image`): The factual.
        arguments (`dict[str, Any]`): The others, by name: numbers, strings, lists and dictionaries.
        seed (`int`, *optional*): Of the `generator`, for calls that draw.
        method (`str`, *optional*): Of the pipeline. Default: the call itself.
    """

    checkpoint: str
    image: Image.Image
    arguments: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    method: str | None = None

    def run(self, pipe: Any) -> Any:
        """Makes the call by a pipeline, and returns its output."""
        draws = {} if self.seed is None else {"generator": torch.Generator().manual_seed(self.seed)}
        function = pipe if self.method is None else getattr(pipe, self.method)
        return function(self.image, **self.arguments, **draws)

    def code(self, name: str) -> str:
        """The call by a pipeline of that name as Python, with the factual in it. Its `images` are the page's."""
        file = io.BytesIO()
        self.image.save(file, "PNG")
        lines = textwrap.wrap(base64.b64encode(file.getvalue()).decode(), 68)
        factual = "\n".join(f'    "{line}"' for line in lines)
        arguments = [f"    {key}={_indent(value)}," for key, value in self.arguments.items()]
        if self.seed is not None:
            arguments.append(f"    generator=torch.Generator().manual_seed({self.seed}),")
        function = "pipe" if self.method is None else f"pipe.{self.method}"
        return "\n".join(
            [
                "import base64",
                "import io",
                "",
                *([] if self.seed is None else ["import torch"]),
                f"from diffscm_diffusers import {name}",
                "from PIL import Image",
                "",
                f"pipe = {name}.from_pretrained({self.checkpoint!r})",
                "factual = (",
                factual,
                ")",
                f"output = {function}(",
                "    Image.open(io.BytesIO(base64.b64decode(factual))),",
                *arguments,
                ")",
                "images = output.images",
                "",
            ]
        )


def _indent(value: Any) -> str:
    return pprint.pformat(value, width=90, sort_dicts=False).replace("\n", "\n    ")
