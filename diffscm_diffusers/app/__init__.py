# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A page to try counterfactuals on: `python -m diffscm_diffusers.app`. It needs the extra `app`."""
