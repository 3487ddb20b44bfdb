# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What `diffscm` runs: one file per command, with `parse_args` and `main`. Its docstring begins with its summary."""
