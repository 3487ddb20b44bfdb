# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the evaluation scripts share: pairs, methods, controls, scores and their summary."""
