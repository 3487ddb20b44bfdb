# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""`python -m diffscm_diffusers` and `accelerate launch -m diffscm_diffusers` are the `diffscm` command."""

from diffscm_diffusers.commands.diffscm import main


main()
