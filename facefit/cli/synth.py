"""`facefit synth`: a data set of synthetic photographs of faces that are known in full."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from facefit.cli.progress import progress

if TYPE_CHECKING:
    from facefit.cli.arguments import Synth


def run(arguments: Synth) -> int:
    """Makes the data set, or goes on with it, and says what was done."""
    from facefit.encoder.synthetic_data import SynthesisSettings, synthesize

    start = time.perf_counter()
    settings = SynthesisSettings(
        arguments.count,
        arguments.seed,
        arguments.model,
        arguments.size,
        arguments.per_person,
        arguments.graded,
    )
    with progress() as show:
        made = synthesize(arguments.output, settings, arguments.workers, show)
    took = time.perf_counter() - start
    done = f"{made} made now, {made / took:.1f} a second" if made else "it was finished already"
    print(f"{arguments.output}: {arguments.count} synthetic photographs; {done}")
    return 0
