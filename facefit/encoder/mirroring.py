"""Photographs as a mirror shows them, and what is then true of their faces."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float
from scipy.spatial import cKDTree

from facefit.encoder.coefficients import Coefficients
from facefit.model import FaceModel

# Which iBUG point of a mirrored face is which of the face.
MIRRORED68 = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46,
     39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)  # fmt: skip
_MOST_LOST = 0.05  # of what mirrored components change, by what the model's own components cannot say
_VERTICES = 4000  # that are looked at; components are smooth
_ODD = np.array([1, 1, 1, -1, -1, 1, 1, -1, 1], np.float32)  # of spherical harmonics: odd in x are -1
_SIGNS = {
    "lighting": _ODD[:, None],
    "rotation": np.array([1, -1, -1], np.float32),
    "translation": np.array([-1, 1, 1], np.float32),
}


def mirror_matrices(model: FaceModel) -> dict[str, Float[np.ndarray, "C C"]] | None:
    """What turns coefficients of identity, expression and albedo into those of the mirrored face, C' = M @ C:
    least squares over the vertices. None where the model has no such faces: its mesh or its components are
    not alike on both sides.
    """
    mean = np.asarray(model.mean, np.float64)
    chosen = np.arange(0, len(mean), max(len(mean) // _VERTICES, 1))
    apart, opposite = cKDTree(mean).query(mean[chosen] * [-1, 1, 1])
    if apart.max() > 1e-3 * np.ptp(mean[:, 0]):
        return None
    found = {}
    for name, sign in (("identity", [-1, 1, 1]), ("expression", [-1, 1, 1]), ("albedo", [1, 1, 1])):
        whole = np.asarray(getattr(model, f"{name}_basis"))
        mirrored = (whole[:, opposite].astype(np.float64) * sign).reshape(len(whole), -1)
        basis = whole[:, chosen].astype(np.float64).reshape(len(whole), -1)
        matrix = np.linalg.lstsq(basis @ basis.T, basis @ mirrored.T, rcond=1e-10)[0]
        lost = np.linalg.norm(mirrored - matrix.T @ basis)
        if lost > _MOST_LOST * np.linalg.norm(mirrored):
            return None
        found[name] = matrix.astype(np.float32)
    return found


def mirror_truth(matrices: dict[str, Float[Array, "C C"]], truth: dict[str, Array]) -> dict[str, Array]:
    """What is true of the mirrored picture (see `facefit.encoder.dataset.TRUTH`), with or without leading
    axes. NumPy's arrays or JAX's.
    """
    return (
        truth
        | {name: truth[name] @ matrix.T for name, matrix in matrices.items()}
        | {name: truth[name] * signs for name, signs in _SIGNS.items() if name in truth}
    )


def mirror_coefficients(matrices: dict[str, Float[Array, "C C"]], found: Coefficients) -> Coefficients:
    """What photographs' coefficients (N, ...) become where each is mirrored about the middle of its crop."""
    return found.replace(**mirror_truth(matrices, vars(found)))
