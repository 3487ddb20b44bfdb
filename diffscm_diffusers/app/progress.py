# Copyright 2026 The diffscm-diffusers authors.
# Licensed under the Apache License, Version 2.0; see the LICENSE file.
"""Calls of pipelines: where they run, the progress of their steps, and cancelling between two of them."""

import contextvars
import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


# PyTorch and the allocator keep memory for each thread that has computed, and Gradio's threads come and go.
_thread = ThreadPoolExecutor(1, thread_name_prefix="networks")


class Cancelled(Exception):
    """The visitor has cancelled."""


class Steps:
    """Takes the place of a pipeline's progress bar: reports each step, and stops the call when it is cancelled."""

    def __init__(self, report: Callable[[tuple[int, int], str], None], is_cancelled: Callable[[], bool]):
        self.report, self.is_cancelled = report, is_cancelled
        self.done, self.total, self.description = 0, 0, ""

    def __call__(self, total: int) -> "Steps":
        self.done, self.total = 0, total
        return self

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *exception):
        pass

    def set_description(self, description: str):
        self.description = description

    def update(self):
        if self.is_cancelled():
            raise Cancelled
        self.done += 1
        self.report((self.done, self.total), f"{self.description}, step")


def with_steps(pipe: Any, steps: Steps) -> Any:
    """The same networks in a pipeline object of their own, whose progress goes to `steps`: calls don't meet."""
    pipe = copy.copy(pipe)
    pipe.progress_bar = steps
    return pipe


def in_one_thread(function: Callable, *args: Any) -> Any:
    """
    Calls a function in the thread in which all of these calls are made, one after the other, and waits for it.

    Args:
        function (`Callable`): Sees the context variables of the caller: by them Gradio knows whose progress it is.
        args: Its arguments.

    Returns:
        `Any`: what it returns. What it raises is raised here.
    """
    return _thread.submit(contextvars.copy_context().run, function, *args).result()


class Visitors:
    """Which visitors have a call running, and which of them have cancelled it."""

    def __init__(self):
        self.running, self.cancelled = set(), set()

    def start(self, visitor: str):
        self.running.add(visitor)
        self.cancelled.discard(visitor)

    def end(self, visitor: str):
        self.running.discard(visitor)
        self.cancelled.discard(visitor)

    def cancel(self, visitor: str):
        if visitor in self.running:
            self.cancelled.add(visitor)
