"""Processes that make data sets, part by part."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_processes(task: Callable[[Part], Result], parts: Sequence[Part], workers: int) -> Iterator[Result]:
    """The task's results in the parts' order, by so many processes; in this one where there is one at most.

    Workers compute on the processor, also where this process has a GPU: they would fight over its memory.
    """
    if workers < 2 or len(parts) < 2:
        yield from map(task, parts)
        return
    # Spawned, as a fork of a process that runs JAX's threads may hang. Workers start at the first task, and
    # JAX reads its platform when it is imported.
    context = multiprocessing.get_context("spawn")
    platforms = os.environ.get("JAX_PLATFORMS")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(parts)), context) as pool:
        os.environ["JAX_PLATFORMS"] = "cpu"
        try:
            results = pool.map(task, parts)
        finally:
            if platforms is None:
                del os.environ["JAX_PLATFORMS"]
            else:
                os.environ["JAX_PLATFORMS"] = platforms
        yield from results
