# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import doctest
import importlib
import pkgutil

import pytest

from diffscm_diffusers import metrics
from diffscm_diffusers.metrics import functional


MODULES = [module.name for module in pkgutil.walk_packages(metrics.__path__, "diffscm_diffusers.metrics.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("package", [metrics, functional])
def test_every_metric_has_an_example(package):
    for name in package.__all__:
        assert ">>> " in getattr(package, name).__doc__, name
