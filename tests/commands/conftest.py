# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from tests.evaluation.conftest import (  # noqa: F401
    cache_dir,
    checkpoint,
    flags,
    fresh_accelerator,
    image_folder,
    metric_models,
    on_cpu,
)
