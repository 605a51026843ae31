"""What the command lines of experiments share."""

from __future__ import annotations

import sys
from collections.abc import Callable

from facefit.errors import FacefitError


def exit_status(work: Callable[[], object]) -> int:
    """Does the work. What it refuses or gives up on is one line for people, and a status for programs."""
    try:
        work()
    except (FacefitError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_status", 1)
    return 0
