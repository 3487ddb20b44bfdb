# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A checkpoint whose settings are read at once and whose networks are loaded later, so that no page waits for them."""

import json
import threading
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

import diffscm_diffusers


class Checkpoint:
    """
    A checkpoint of any of this package's pipelines. No code of it is run.

    Args:
        name (`str`): A folder, or a name on the Hub.

    Raises:
        ValueError: if there is none of that name, or it is one of another pipeline.
    """

    def __init__(self, name: str):
        self.name, self.folder = name, Path(name)
        if not self.folder.is_dir():
            try:
                self.folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"`checkpoint` expects a folder or a name on the Hub, got {name!r}: {error}"
                ) from error
        try:
            self.index = json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"`checkpoint` expects a pipeline with a `model_index.json`, got {name!r}.") from error
        # Published checkpoints name their copy of the pipeline's file as well.
        kind = self.index.get("_class_name")
        self.kind = str(kind[-1] if isinstance(kind, list) else kind)
        if not (self.kind in diffscm_diffusers.__all__ and self.kind.endswith("Pipeline")):
            raise ValueError(f"`checkpoint` expects a counterfactual pipeline of this package, got {self.kind!r}.")
        self._pipe, self._lock = None, threading.Lock()

    def has(self, component: str) -> bool:
        """Whether the pipeline has a component."""
        return bool(self.index.get(component, [None])[0])

    def config(self, component: str) -> dict[str, Any]:
        """The configuration of a component."""
        return json.loads((self.folder / component / "config.json").read_text(encoding="utf-8"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        # A denoiser may have more channels at either end than the images.
        config = self.config("classifier" if self.has("classifier") else "unet")
        size = config["sample_size"]
        channels = config["in_channels" if self.has("classifier") else "out_channels"]
        return (channels, *((size, size) if isinstance(size, int) else size))

    @property
    def class_labels(self) -> list[str]:
        """Names of the classes of a checkpoint with one cause; their numbers where it names none."""
        config = self.config("classifier")
        names = config.get("id2label") or {}
        return [str(names.get(str(index), index)) for index in range(config["num_classes"])]

    @property
    def pipe(self):
        """The pipeline, loaded when it is first asked for."""
        with self._lock:
            if self._pipe is None:
                pipe = getattr(diffscm_diffusers, self.kind).from_pretrained(self.folder)
                pipe.set_progress_bar_config(disable=True)
                self._pipe = pipe
        return self._pipe
