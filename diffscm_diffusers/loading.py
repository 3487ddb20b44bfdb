# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Makes this package's components known to Diffusers, so that pipelines save and load them."""

from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES


# Diffusers looks a component's class up in the library that `model_index.json` names, here this package, and its
# loading methods by base class in this table. It has no public way to add a library.
LOADABLE_CLASSES["diffscm_diffusers"] = {
    name: LOADABLE_CLASSES["diffusers"][name] for name in ("ModelMixin", "SchedulerMixin")
}
