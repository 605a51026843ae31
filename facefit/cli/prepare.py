"""`facefit prepare`: folders of photographs become a data set for training."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from facefit.cli.progress import progress
from facefit.errors import InputError

if TYPE_CHECKING:
    from facefit.cli.arguments import Prepare

_SHOWN = 20


def run(arguments: Prepare) -> int:
    """Makes the data set, or goes on with it; tells on standard error what was not taken and why."""
    from facefit.encoder.prepare import PrepareSettings, prepare

    if not arguments.folders:
        raise InputError("Give at least one folder of photographs.")
    settings = PrepareSettings(arguments.size, arguments.min_face, arguments.persons)
    with progress() as show:
        outcome = prepare(arguments.folders, arguments.output, settings, arguments.workers, show)
    for name, reason in outcome.rejected[:_SHOWN]:
        print(f"not taken: {name}: {reason}", file=sys.stderr)
    if len(outcome.rejected) > _SHOWN:
        more = len(outcome.rejected) - _SHOWN
        print(f"... and {more} more, see {arguments.output / 'rejected.csv'}", file=sys.stderr)
    taken = "1 photograph" if outcome.accepted == 1 else f"{outcome.accepted} photographs"
    print(f"{arguments.output}: {taken}; {len(outcome.rejected)} not taken (rejected.csv says why)")
    return 0
