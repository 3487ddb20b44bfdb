# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
import resource
import subprocess
import sys
from unittest import mock

import pytest

from diffscm_diffusers.commands import diffscm, evaluate


def test_help_starts_at_once_and_lists_all_commands():
    # Of the processor, as other processes may hold it; the modules are printed because time depends on the machine.
    code = (
        "import sys\n"
        "from diffscm_diffusers.commands.diffscm import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print('modules:', *sys.modules)\n"
    )
    seconds = []
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start)
    assert result.returncode == 0, result.stderr
    assert min(seconds) < 1
    text, modules = result.stdout.split("modules:")
    for name in ("card", "convert-adm", "evaluate", "figures", "generate", "join-checkpoint", "publish"):
        assert f"\n  {name} " in text
    assert {"torch", "diffusers", "datasets", "numpy"}.isdisjoint(modules.split())


def test_a_summary_is_one_short_sentence():
    for name, summary in diffscm.list_commands().items():
        assert summary.endswith(".") and summary.count(". ") <= 1, name
        assert len(summary) <= 110, name


@pytest.mark.parametrize("name", diffscm.list_commands())
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as exit:
        diffscm.main([name, "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: diffscm {name} ")


@pytest.mark.parametrize("name", diffscm.list_commands())
@pytest.mark.parametrize(("flags", "status"), [(["--help"], 0), (["--unknown"], 2)], ids=["help", "wrong flag"])
def test_flags_are_read_before_the_command_is_imported(name, flags, status, capsys):
    with (
        mock.patch("importlib.import_module", side_effect=AssertionError("imported")),
        pytest.raises(SystemExit) as exit,
    ):
        diffscm.main([name, *flags])
    assert exit.value.code == status


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as exit:
        diffscm.main(["train"])
    assert exit.value.code == 2
    assert "invalid choice: 'train'" in capsys.readouterr().err


@pytest.fixture
def argv(tmp_path):
    """A command whose flags are not refused before it is imported."""
    return ["evaluate", "--dataset_name", "me/data", "--output_dir", str(tmp_path / "new")]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("`image` expects this,\n  got that."),
        TypeError("`image` expects this, got that."),
        FileNotFoundError("`image` expects this,\ngot that."),
    ],
)
def test_bad_input_is_one_line(error, argv, capsys):
    with mock.patch.object(evaluate, "main", side_effect=error), pytest.raises(SystemExit) as exit:
        diffscm.main(argv)
    assert exit.value.code == 2
    assert capsys.readouterr().err == "diffscm evaluate: error: `image` expects this, got that.\n"


def test_a_traceback_on_demand(argv, monkeypatch):
    monkeypatch.setenv("DIFFUSERS_VERBOSITY", "debug")
    with mock.patch.object(evaluate, "main", side_effect=ValueError("bad")), pytest.raises(ValueError, match="bad"):
        diffscm.main(argv)


def test_other_errors_keep_their_traceback(argv):
    with mock.patch.object(evaluate, "main", side_effect=RuntimeError("bug")), pytest.raises(RuntimeError):
        diffscm.main(argv)


def test_the_package_is_the_command():
    result = subprocess.run([sys.executable, "-m", "diffscm_diffusers", "train"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("diffscm: error: argument command: invalid choice: 'train'")
    assert len(result.stderr.splitlines()) == 1
