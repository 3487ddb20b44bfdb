# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""A server of the page, and a browser to visit it with."""

import base64
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


ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = {
    "Handwritten digits": str(ROOT / "checkpoints" / "diffscm-mnist"),
    "Printed digits": str(ROOT / "checkpoints" / "diffscm-typeface"),
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
    """The page in a process of its own, whose files go to a folder that can be looked at."""

    def __init__(self, checkpoints: dict[str, str], folder: Path):
        with socket.socket() as listener:
            listener.bind(("localhost", 0))
            self.port = listener.getsockname()[1]
        self.url, self.files, self.log = f"http://127.0.0.1:{self.port}", folder / "files", folder / "log.txt"
        self.files.mkdir()
        code = f"""
import sys
from diffscm_diffusers.app.page import serve
serve({checkpoints!r}, server_name="127.0.0.1", server_port={self.port})
"""
        environment = {
            **os.environ,
            "GRADIO_TEMP_DIR": str(self.files),
            "TMPDIR": str(self.files),
            "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], env=environment, stdout=log, stderr=log, cwd=ROOT
            )
        deadline = time.monotonic() + 300
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/config", timeout=5).close()
        except (OSError, urllib.error.URLError):
            return False
        return True

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
