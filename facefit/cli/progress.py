"""Progress on standard error: a bar on a terminal, a line a step elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A function to call with a sentence and the fraction done."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda sentence, fraction: bar.update(task, description=sentence, completed=fraction)


def _lines() -> Callable[[str, float], None]:
    """Says each sentence once, however often it is repeated with growing fractions."""
    last = None

    def show(sentence: str, fraction: float) -> None:
        nonlocal last
        if sentence != last:
            print(f"[{fraction:4.0%}] {sentence}", file=sys.stderr, flush=True)
        last = sentence

    return show
