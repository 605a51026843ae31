"""The command line: `facefit fit`, `facefit doctor`, `facefit models`.

Exit status: 0 all done, 1 a photograph could not be fitted (the others were), 2 a caller's mistake, 130
interrupted. Errors are one message without a traceback; FACEFIT_DEBUG=1 shows the traceback as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; `arguments` default to the process's own. Returns the exit status."""
    from facefit.cli.arguments import parse

    debug = os.environ.get("FACEFIT_DEBUG", "") not in ("", "0")
    try:
        return parse(arguments).run()
    except KeyboardInterrupt:
        _say("Interrupted. Files already written are complete.")
        return 130
    except BrokenPipeError:  # the reader of our output went away, for example `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        from facefit.errors import FacefitError

        if debug:
            raise
        if isinstance(error, FacefitError):
            _say(f"error: {error}")
            return error.exit_status
        if isinstance(error, MemoryError):
            _say("error: not enough memory. Use smaller or fewer photographs, or --preset fast.")
            return 1
        _say(
            f"error: unexpected {type(error).__name__}: {error}\n"
            "This is a defect of facefit. Run again with FACEFIT_DEBUG=1 and report what it prints."
        )
        return 1


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
