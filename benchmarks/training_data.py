"""How fast training data are made and read: synthetic photographs, and augmented batches of them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

SIZE, CROP, BATCH = 192, 128, 16  # of stored crops and network crops, pixels; of a batch


def run(smoke: bool) -> dict:
    """Milliseconds by the clock and of processor time (all threads), the first ones left out."""
    from facefit.encoder.pipeline import training_batches
    from facefit.encoder.synthetic_data import SynthesisSettings, synthesize
    from facefit.model import find_model
    from facefit.synthesis import prepare_head, random_photo

    head = prepare_head(find_model("open"))
    made = iter(range(10_000))

    def photo():
        number = next(made)
        random_photo(head, (1, number // 3), (number,), SIZE)

    results = {"photo": _times(photo, 3 if smoke else 60)}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        synthesize(data, SynthesisSettings(12 if smoke else 120, 1, size=SIZE))
        batches = iter(training_batches(data, None, 1.0, BATCH, CROP, 0))
        results["batch_of_16"] = _times(lambda: next(batches), 2 if smoke else 40)
    return results


def _times(function, count: int) -> dict:
    for _ in range(2):
        function()
    clock, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        function()
    return {
        "clock_ms": round((time.perf_counter() - clock) / count * 1e3, 1),
        "processor_ms": round((time.process_time() - processor) / count * 1e3, 1),
    }
