# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import doctest
import importlib
import pkgutil
import sys

import pytest

import diffscm_diffusers
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


def test_star_import_gives_the_public_names():
    namespace = {}
    exec("from diffscm_diffusers.metrics import *", namespace)
    assert {name for name in namespace if not name.startswith("__")} == set(metrics.__all__)
    for name in metrics.__all__:
        assert namespace[name].__name__ == name and name in dir(metrics)


def test_unknown_name():
    with pytest.raises(AttributeError, match="'diffscm_diffusers.metrics' has no attribute 'FID'"):
        metrics.FID  # noqa: B018


def test_networks_and_functions_work_without_torchmetrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)  # so that its import fails
    monkeypatch.setattr(diffscm_diffusers, "metrics", None)
    for name in [name for name in sys.modules if name.startswith("diffscm_diffusers.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module("diffscm_diffusers.metrics")
    assert fresh is not metrics
    assert fresh.networks.LatentVAE and fresh.functional.im1
    with pytest.raises(ImportError, match="torchmetrics"):
        fresh.IM1  # noqa: B018
