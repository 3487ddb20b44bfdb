# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A server of the page, and a browser to visit it with."""

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image


# Not by importing it, which takes seconds: the servers do.
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="Gradio is not installed.")
ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = {
    "Handwritten": str(ROOT / "checkpoints" / "diffscm-mnist"),
    "Printed": str(ROOT / "checkpoints" / "diffscm-typeface"),
    "Causal graph": str(ROOT / "checkpoints" / "diffscm-morphomnist-graph"),
}


def find_browser() -> str | None:
    """A Chromium: the system's, or the one that Playwright has installed."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
    with playwright.sync_playwright() as api:
        path = api.chromium.executable_path
    return path if Path(path).exists() else None


class Server:
    """
    The page in a process of its own, whose files go to a folder that can be looked at.

    Args:
        command (`list[str]`): Arguments of Python.
        folder (`Path`): An empty one.
        cwd (`Path`, *optional*): Where it works.
        env (`dict[str, str]`, *optional*): Beside the environment that every server gets.
    """

    def __init__(self, command: list[str], folder: Path, cwd: Path = ROOT, env: dict[str, str] | None = None):
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            self.port = listener.getsockname()[1]
        self.url, self.files, self.log = f"http://127.0.0.1:{self.port}", folder / "files", folder / "log.txt"
        self.files.mkdir()
        environment = {
            **os.environ,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_SERVER_PORT": str(self.port),
            "GRADIO_TEMP_DIR": str(self.files),
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(self.files),
            **(env or {}),
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=log, stderr=log, cwd=cwd
            )
        deadline = time.monotonic() + 600
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)
        self.seconds_to_start = self.seconds()

    @classmethod
    def of(cls, checkpoints: dict[str, str], folder: Path) -> "Server":
        """The page of some checkpoints."""
        code = f"from diffscm_diffusers.app.page import serve; serve({checkpoints!r}, server_name='127.0.0.1')"
        return cls(["-c", code], folder)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/config", timeout=5).close()
        except (OSError, urllib.error.URLError):
            return False
        return True

    def seconds(self) -> float:
        """Seconds of processor time that the server has used."""
        times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=20)


def open_data_url(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def post(url: str, data) -> str:
    """Calls the API, and returns the stream of its answer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps({"data": data}).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=300) as answer:
        return answer.read().decode()
