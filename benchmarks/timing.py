"""Times of calls: warm-up, blocking, interleaved rounds, so that two functions meet the same disturbances."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable

import jax


def compiled(function: Callable, *arguments) -> tuple[Callable, float]:
    """The jitted function without arguments, and the seconds that compiling it took."""
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        start = time.perf_counter()
        program = jax.jit(function).lower(*arguments).compile()
        return lambda: program(*arguments), time.perf_counter() - start
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)


def rounds(functions: dict[str, Callable], repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Milliseconds of every call; the functions take turns.

    Each timed call comes right after an untimed one of the same function: the first one after another
    function finds that one's data in the caches and the other cores asleep, which disturbs the shortest most.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(repeats + warm_up):
        for name, function in functions.items():
            jax.block_until_ready(function())
            start = time.perf_counter()
            jax.block_until_ready(function())
            if number >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def summary(times: list[float], pictures: int = 1) -> dict[str, float]:
    """Median, quartiles and minimum, milliseconds a picture."""
    ordered = sorted(time / pictures for time in times)
    quarter = len(ordered) // 4
    return {
        "median_ms": round(statistics.median(ordered), 3),
        "quartiles_ms": [round(ordered[quarter], 3), round(ordered[-1 - quarter], 3)],
        "least_ms": round(ordered[0], 3),
    }


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as long one of two interleaved functions takes: the median over rounds."""
    return round(statistics.median(a / b for a, b in zip(slow, fast)), 3)


def peak_mib() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
