# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
The page as a Hugging Face Space. Its variable `CHECKPOINTS` is JSON: title of each tab, and name of its checkpoint on
the Hub. Without it, the checkpoints in `checkpoints/` are shown.
"""

import json
import os

from diffscm_diffusers.app.page import serve, shipped_checkpoints


if __name__ == "__main__":
    serve(json.loads(os.environ.get("CHECKPOINTS", "null")) or shipped_checkpoints())
