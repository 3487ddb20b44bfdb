# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from diffusers import DiffusionPipeline

from ..checksums import check_pipeline, write_weights_checksums


class CheckedPipeline(DiffusionPipeline):
    """Base class of the baselines: their weights are never pickles, and compared with their checksums."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        pipe = super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})
        check_pipeline(pipe, kwargs)
        return pipe

    def save_config(self, save_directory, push_to_hub=False, **kwargs):
        # What `save_pretrained` does last, before it publishes.
        super().save_config(save_directory, push_to_hub, **kwargs)
        write_weights_checksums(self, save_directory)
