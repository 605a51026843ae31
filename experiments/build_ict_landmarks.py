"""Locates the 468 Face Mesh points on ICT-FaceKit and writes the table that facefit ships for it.

    python experiments/build_ict_landmarks.py PATH_TO_ICT [-o facefit/model/ict_landmarks468.npz]

The model itself is not shipped: the table holds triangle numbers and weights only. Needs the open model,
whose albedo prior makes the renderings look like faces. A minute on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from facefit.correspondence import find_landmarks468
from facefit.model import find_model
from facefit.model.ict import DENSE
from facefit.model.npz import write_arrays


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder or compact .npz of ICT-FaceKit")
    parser.add_argument("-o", "--out", type=Path, default=DENSE)
    parser.add_argument("--subjects", type=int, default=24, help="random faces shown to the network")
    arguments = parser.parse_args()
    points, sigma = find_landmarks468(find_model(arguments.model), subjects=arguments.subjects)
    arrays = {
        "face": np.asarray(points.face, np.int32),
        "barycentric": np.asarray(points.barycentric, np.float32),
        "sigma": np.asarray(sigma, np.float32),
    }
    write_arrays(arrays, arguments.out)
    print(f"{arguments.out}: 468 points, median scatter {100 * np.median(sigma):.1f}% of the eye distance")


if __name__ == "__main__":
    main()
