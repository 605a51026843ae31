"""`facefit fit`: photographs in, a folder of results out."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facefit.cache import writable
from facefit.cli.progress import progress
from facefit.errors import InputError, PhotoError

if TYPE_CHECKING:
    from facefit.cli.arguments import Fit
    from facefit.fit.result import Fit as FitResult
    from facefit.photo import Photograph


def run(arguments: Fit) -> int:
    """Fits and writes; tells on standard error which photographs failed, on standard output what was done."""
    from facefit.fit.api import check_photos, fit_with_photographs

    start = time.perf_counter()
    photos = check_photos(arguments.photos)
    with output_folder(arguments.output), progress() as show:
        fit, photographs = fit_with_photographs(
            photos,
            arguments.model,
            arguments.preset,
            arguments.face,
            arguments.landmarks or None,
            arguments.focal,
            show,
            arguments.start,
        )
        show("writing the results", 1.0)
        unwritten = write(fit, photographs, arguments.output)
    return conclude(fit, arguments.output, unwritten, start)


def write(fit: FitResult, photographs: Sequence[Photograph], folder: Path) -> InputError | None:
    """Writes a result; returns what could not be written, to be told after what became of the photographs."""
    try:
        fit.save(folder, {photograph.path: photograph.pixels for photograph in photographs})
    except InputError as error:
        return error
    return None


def conclude(fit: FitResult, folder: Path, unwritten: InputError | None, start: float) -> int:
    """Tells what was done since `start`, on the performance counter; returns the exit status.

    Raises:
        InputError: `unwritten`, after everything else was told.
    """
    failed = report(fit)
    if unwritten:
        raise unwritten
    print(f"{folder}: mesh.glb and the other results, {time.perf_counter() - start:.1f} s")
    return PhotoError.exit_status if failed else 0


def report(fit: FitResult) -> int:
    """Prints what became of every photograph; returns how many failed."""
    failed = 0
    for entry in fit.report["photos"]:
        for warning in entry["warnings"]:
            print(f"warning: {entry['file']}: {warning}", file=sys.stderr)
        if entry["outcome"].startswith("failed"):
            failed += 1
            print(f"error: {entry['outcome'].removeprefix('failed: ')}", file=sys.stderr)
        else:
            pixels, percent = entry["landmark_rmse_px"], entry["landmark_rmse_percent"]
            within = f"landmarks within {pixels:.1f} px ({percent:.1f} % of the eye distance)"
            print(f"{entry['file']}: {entry['outcome']}, {within}")
    for warning in fit.report.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    return failed


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """Makes the output folder before any work is done in vain, and takes it away again where it stays empty.

    Raises:
        InputError: it cannot be made or written to.
    """
    new = not os.path.lexists(folder)
    if os.path.isfile(folder):
        raise InputError(f"{folder}: a file, but results need a folder. Give another name after -o.")
    if not writable(folder):
        raise InputError(
            f"{folder}: results cannot be written there. Give a folder you may write to after -o."
        )
    try:
        yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # not empty: results are there
                folder.rmdir()
