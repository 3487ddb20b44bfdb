# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""How benchmarks write what they measured."""

import json
from pathlib import Path

from diffscm_diffusers.files import written_whole


def write_results(output_dir: str, name: str, summary: dict, table: list[str]) -> None:
    """
    Writes a summary to `name.json` and a table to `name.md`, each whole or not at all.

    Args:
        output_dir (`str`): The folder of both.
        name (`str`): Their name.
        summary (`dict`): Settings and measures.
        table (`list[str]`): The table's lines, in markdown.
    """
    for suffix, text in (("json", json.dumps(summary, indent=2)), ("md", "\n".join(table))):
        with written_whole(Path(output_dir, f"{name}.{suffix}")) as unfinished:
            unfinished.write_text(text + "\n")
