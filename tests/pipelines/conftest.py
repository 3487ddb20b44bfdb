# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import pytest

from .dummies import get_dummy_pipe


@pytest.fixture
def pipe():
    """An untrained pipeline for greyscale images of 8 x 8 pixels and three classes."""
    return get_dummy_pipe()
