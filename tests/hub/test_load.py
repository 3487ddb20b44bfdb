# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Loading a published checkpoint: with the package and no code of the repository, and without it by that code."""

import re

import pytest

from .hub_server import Repository


# One worker, so that there is one process to fork.
pytestmark = pytest.mark.xdist_group("hub")

PREDICT = """
import numpy as np
def predict(pipe):
    pipe.set_progress_bar_config(disable=True)
    factual = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    return pipe(factual, "light", output_type="np").images.ravel().tolist()
"""

LOAD = f"""
{PREDICT}
from diffscm_diffusers import AntiCausalClassifier2DModel, DiffSCMCounterfactualPipeline
load = DiffSCMCounterfactualPipeline.from_pretrained
"""

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def published(hub, run, checkpoint):
    """Publishes, in one process, the repositories that these tests load from."""
    results = run(
        f"""{LOAD}
from diffscm_diffusers.commands import publish

def call(folder, name, *flags):
    publish.main(["--pretrained_model_name_or_path", folder, "--hub_model_id", name, *flags])

checkpoint = {str(checkpoint)!r}
call(checkpoint, "ada/digits", "--variant", "fp16")
call(checkpoint, "ada/secret", "--hub_private_repo")
pipe = load(checkpoint)
results["images"] = predict(pipe)
pipe.push_to_hub("ada/pushed")
pipe.register_to_config(default_num_inference_steps=2)
pipe.save_pretrained(checkpoint + "-v2")
call(checkpoint + "-v2", "ada/digits", "--revision", "v2")

from diffscm_diffusers import DiffSCMCounterfactualPipeline, DiffSCMDDIMScheduler
scheduler = DiffSCMDDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="quadratic")
pipe = DiffSCMCounterfactualPipeline(pipe.unet, pipe.classifier, scheduler, default_num_inference_steps=3)
results["quadratic"] = predict(pipe)
pipe.save_pretrained(checkpoint + "-quadratic")
call(checkpoint + "-quadratic", "ada/quadratic")
""",
        token="hf_ada",
    )
    digits = hub.files("ada/digits")
    pickles = {path.replace(".safetensors", ".bin"): content for path, content in digits.items() if "fp16" not in path}
    for name, files in {
        "torn": {**digits, WEIGHTS: digits[WEIGHTS][:-100]},
        "pickled": pickles,
        "incomplete": {path: content for path, content in digits.items() if path != "unet/config.json"},
    }.items():
        hub.repositories[f"ada/{name}"] = Repository(private=False)
        hub.repositories[f"ada/{name}"].commit("main", files, "initial commit")
    return results


@pytest.fixture(scope="module")
def loaded(hub, published, run, tmp_path_factory):
    """Loads with the package, in one process, everything that the Hub is to give or to refuse."""
    cache = tmp_path_factory.mktemp("cache")
    hub.requests.clear()
    hub.cut[WEIGHTS] = 5000
    results = run(
        f"""{LOAD}
# The client goes on after whole chunks of what it got: of 10 MB, which tiny networks do not have.
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000
cache = {str(cache)!r}
pipe = load("ada/digits")
results["images"] = predict(pipe)
results["modules"] = sorted({{type(c).__module__.split(".")[0] for c in [pipe, *pipe.components.values()]}})
results["again"] = predict(load("ada/digits"))
results["steps"] = load("ada/digits", revision="v2").config.default_num_inference_steps
results["variant"] = predict(load("ada/digits", variant="fp16"))
classifier = AntiCausalClassifier2DModel.from_pretrained("ada/digits", subfolder="classifier")
results["classifier"] = list(classifier.id2label.values())
results["pushed"] = predict(load("ada/pushed"))
results["quadratic"] = predict(load("ada/quadratic"))
results["private"] = predict(load("ada/secret", token="hf_ada"))
load("ada/digits", cache_dir=cache)
results["private without token"] = error(lambda: load("ada/secret", cache_dir=cache))
results["private of another"] = error(lambda: load("ada/secret", token="hf_bob", cache_dir=cache))
results["wrong token"] = error(lambda: load("ada/digits", token="hf_wrong", cache_dir=cache + "/new"))
results["unknown"] = error(lambda: load("ada/unknown", cache_dir=cache))
results["unknown revision"] = error(lambda: load("ada/digits", revision="v3"))
results["torn"] = error(lambda: load("ada/torn"))
results["pickled"] = error(lambda: load("ada/pickled"))
results["incomplete"] = error(lambda: load("ada/incomplete"))
results["cached"] = sorted(path.name for path in Path(cache).glob("models--*"))
results["code run"] = [name for name in sys.modules if name.startswith("diffusers_modules.local")]
"""
    )
    return results | {"requests": list(hub.requests)}


@pytest.fixture(scope="module")
def remote(published, loaded, run):
    """Loads without the package, by the code in the repositories, after `loaded`, which counts what it downloads."""
    return run(
        f"""{PREDICT}
from diffusers import DiffusionPipeline
load = DiffusionPipeline.from_pretrained
results["package"] = error(lambda: __import__("diffscm_diffusers"))
results["untrusted"] = error(lambda: load("ada/digits"))
pipe = load("ada/digits", trust_remote_code=True)
results["images"] = predict(pipe)
results["class"] = type(pipe).__name__
results["variant"] = predict(load("ada/digits", trust_remote_code=True, variant="fp16"))
results["private"] = predict(load("ada/secret", trust_remote_code=True))
results["quadratic"] = predict(load("ada/quadratic", trust_remote_code=True))
results["steps"] = load("ada/digits", trust_remote_code=True, revision="v2").config.default_num_inference_steps
results["folder"] = str(DiffusionPipeline.download("ada/digits", trust_remote_code=True))
""",
        token="hf_ada",
        package=False,
    )


@pytest.fixture(scope="module")
def offline(hub, loaded, remote, run):
    hub.requests.clear()
    results = run(
        f"""{LOAD}
results["images"] = predict(load("ada/digits"))
results["variant"] = predict(load("ada/digits", variant="fp16"))
results["steps"] = load("ada/digits", revision="v2").config.default_num_inference_steps
results["unknown"] = error(lambda: load("ada/unknown"))
from diffusers import DiffusionPipeline
results["folder"] = predict(DiffusionPipeline.from_pretrained({remote["folder"]!r}, trust_remote_code=True))
""",
        offline=True,
    )
    return results | {"requests": list(hub.requests)}


def test_package_loads_by_name_and_runs_no_code_of_the_repository(published, loaded):
    assert loaded["images"] == published["images"]
    assert loaded["modules"] == ["diffscm_diffusers", "diffusers"]
    assert loaded["code run"] == []


def test_code_of_the_repository_serves_those_without_the_package(published, remote):
    assert remote["package"][0] == "ModuleNotFoundError"
    assert remote["class"] == "DiffSCMCounterfactualPipeline"
    assert remote["images"] == published["images"]
    assert remote["private"] == published["images"]


def test_schedulers_of_this_project_are_published_too(hub, published, loaded, remote):
    assert "scheduler/scheduling_ddim.py" in hub.files("ada/quadratic")
    assert loaded["quadratic"] == remote["quadratic"] == published["quadratic"] != published["images"]


def test_code_of_the_repository_is_not_run_unasked(remote):
    assert remote["untrusted"][0] == "ValueError"
    assert "Pass `trust_remote_code=True`" in remote["untrusted"][1]


def test_pipeline_that_was_pushed_by_its_own_method_loads_with_the_package(published, loaded):
    assert loaded["pushed"] == published["images"]


def test_private_repository_loads_with_its_owners_token(published, loaded):
    assert loaded["private"] == published["images"]


def test_revision_is_that_branch(loaded, remote):
    assert loaded["steps"] == remote["steps"] == 2


def test_variant_is_the_half_precision_weights(published, loaded, remote):
    assert loaded["variant"] == remote["variant"] != published["images"]
    assert loaded["variant"] == pytest.approx(published["images"], abs=0.05)


def test_component_loads_by_subfolder(loaded):
    assert loaded["classifier"] == ["dark", "light"]


def test_broken_download_goes_on_where_it_broke(loaded):
    path = f"/{WEIGHTS}"
    ranges = [range for method, url, range in loaded["requests"] if method == "GET" and url.endswith(path)]
    assert ranges[:2] == [None, "bytes=5000-"]


def test_what_is_cached_is_not_downloaded_again(published, loaded):
    assert loaded["again"] == published["images"]
    # First load (broken, then resumed) and the one with another `cache_dir`; the branch has the same weights.
    digits = [url for method, url, _ in loaded["requests"] if method == "GET" and url.startswith("/ada/digits/")]
    assert len([url for url in digits if url.endswith(f"/{WEIGHTS}")]) == 3


def test_cached_checkpoint_loads_offline(published, loaded, offline):
    assert offline["images"] == published["images"]
    assert offline["variant"] == loaded["variant"]
    assert offline["folder"] == published["images"]
    assert offline["steps"] == 2
    assert offline["requests"] == []


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("private without token", "OSError", "private or gated repo, make sure you are authenticated"),
        ("private of another", "OSError", "private or gated repo, make sure you are authenticated"),
        ("wrong token", "OSError", "Invalid credentials in Authorization header"),
        ("unknown", "OSError", "Repository Not Found .*make sure you specified the correct `repo_id`"),
        ("unknown revision", "OSError", "Revision Not Found|Invalid rev id"),
        ("torn", "OSError", "Unable to load weights from checkpoint file .*unet/diffusion_pytorch_model.safetensors"),
        ("pickled", "OSError", "Could not find the necessary `safetensors` weights"),
        ("incomplete", "OSError", "no file named config.json found in .*unet"),
    ],
)
def test_error_names_its_cause(loaded, name, kind, message):
    assert loaded[name] is not None, "loaded"
    assert loaded[name][0] == kind
    assert re.search(message, loaded[name][1], flags=re.DOTALL)


def test_offline_error_says_so(offline):
    assert offline["unknown"][0] == "OSError"
    assert "HF_HUB_OFFLINE" in offline["unknown"][1]


def test_errors_leave_nothing_half_written(loaded, home):
    assert loaded["cached"] == ["models--ada--digits"]
    assert list(home.rglob("*.incomplete")) == []
