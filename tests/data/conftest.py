# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
from tests.training.conftest import cache_dir, image_folder, model_configs, on_cpu  # noqa: F401
