# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import os

import pytest


# Without it, the last digits of MKL's sums depend on where in memory a tensor lies, and tests compare processes bit by
# bit. Set before torch is imported; processes that tests start inherit it.
os.environ.setdefault("MKL_CBWR", "AUTO")


@pytest.fixture(autouse=True)
def same_initial_weights():
    """The same initial weights in each test, alone or among others."""
    import torch

    torch.manual_seed(0)
