# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""What the scripts in `train_scripts/` share: flags, noise, the trainer and its checkpoints."""
