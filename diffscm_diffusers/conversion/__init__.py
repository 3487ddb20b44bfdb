# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Checkpoints of guided-diffusion (ADM) and of Diff-SCM's original code, turned into this package's components."""
