# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""
Twenty visitors at once and two hundred requests: none gets another's picture, none is lost, memory stays as it is.

    pytest -m slow -s tests/app/test_load.py
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.app.helpers import CHECKPOINTS, Server, needs_gradio, open_data_url, post


pytestmark = [pytest.mark.slow, needs_gradio]
NUM_VISITORS, NUM_REQUESTS = 20, 200


def test_twenty_visitors_and_two_hundred_requests(tmp_path):
    checkpoints = dict(list(CHECKPOINTS.items())[:1])
    server = Server.of(checkpoints, tmp_path)
    url = f"{server.url}/gradio_api/call/tab0"

    def ask(number: int) -> tuple[np.ndarray, np.ndarray]:
        """The factual and the counterfactual that are sent back."""
        data = [f"example:{number % 10}", True, str(number // 10 % 10), 1, 2, 4.0, 1.0, 0]
        answer = post(url, data).rpartition("event: complete")[2]
        pictures = re.findall(r'<img src=\\"(data:image/png;base64,[^"\\]+)', answer)
        assert len(pictures) == 3, answer[:500]
        return tuple(np.asarray(open_data_url(picture)) for picture in pictures[:2])

    try:
        expected = [ask(number) for number in range(100)]  # one after the other
        with ThreadPoolExecutor(NUM_VISITORS) as visitors:
            list(visitors.map(ask, range(3 * NUM_VISITORS)))  # the server's threads and buffers are made
            before, start = server.memory(), time.monotonic()
            answers = list(visitors.map(ask, range(NUM_REQUESTS // 2)))
            half = server.memory()
            answers += list(visitors.map(ask, range(NUM_REQUESTS // 2, NUM_REQUESTS)))
        seconds, after = time.monotonic() - start, server.memory()
        assert [path for path in server.files.rglob("*") if path.is_file()] == []
    finally:
        server.stop()

    for number, (factual, counterfactual) in enumerate(answers):
        assert np.array_equal(factual, expected[number % 100][0])
        assert np.array_equal(counterfactual, expected[number % 100][1])
    memory = f"{before:.0f} MB before, {half:.0f} MB half way, {after:.0f} MB after"
    print(f"\n{NUM_REQUESTS} requests in {seconds:.0f} s; memory {memory}.")
    assert after < before + 10
