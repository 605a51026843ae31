"""From learned albedo components to a face model, and from one model's albedo coefficients to another's."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from facefit.energy import regions
from facefit.errors import InputError
from facefit.model import FaceModel

STEP = 1.0 / 4096.0  # to which the arrays are rounded, linear RGB, so that the file packs well
_ELSEWHERE = 0.1  # what a visible vertex counts whose colour fitting does not trust (neck, ears, eyes)


def counted(model: FaceModel) -> Float[np.ndarray, " V"]:
    """How much a vertex counts where two bases are compared: as in fitting, and a little where seen at
    all."""
    return (regions.photometric_weight(model) + _ELSEWHERE) * regions.visible(model)


def _flat(basis: np.ndarray, weight: np.ndarray) -> Float[np.ndarray, "A D"]:
    """Rows whose squared length is the weighted square of a component."""
    root = np.repeat(np.sqrt(weight), 3)
    return np.asarray(basis, np.float64).reshape(len(basis), -1) * root


def remaining(
    rest: Float[np.ndarray, "R V 3"],
    taken: Float[np.ndarray, "A V 3"],
    weight: Float[np.ndarray, " V"],
    number: int,
) -> Float[np.ndarray, "number V 3"]:
    """The strongest components of what `rest` has beyond `taken`: with coefficients N(0, 1) they vary as
    `rest` does there.

    Args:
        weight: how much the vertices count.
    """
    rest, taken = np.asarray(rest, np.float64), np.asarray(taken, np.float64)
    shares = np.linalg.lstsq(_flat(taken, weight).T, _flat(rest, weight).T, rcond=1e-6)[0]
    left = rest - np.tensordot(shares.T, taken, 1)
    turn = np.linalg.svd(_flat(left, weight), full_matrices=False)[0]
    return np.tensordot(turn[:, :number].T, left, 1)


def with_learned(
    model: FaceModel,
    named: int,
    offset: Float[np.ndarray, "V 3"],
    components: Float[np.ndarray, "K V 3"],
    tones: int = 0,
) -> FaceModel:
    """The model with K learned albedo components after its first `named` ones, and as many of its other ones,
    less what is in these already, as keep the number of components.

    Args:
        offset: to be added to the mean albedo.
        tones: how many of the first components are the whole skin's: they stay proportional to the mean, so
            that what is dark in it does not become black in a dark face.
    """
    basis, before = (np.array(values, np.float64) for values in (model.albedo_basis, model.albedo_mean))
    mean = np.clip(before + offset, 0.004, 1.0)
    basis[:tones] *= mean / np.maximum(before, 1e-3)
    taken = np.concatenate([basis[:named], components])
    kept = remaining(basis[named:], taken, counted(model), len(basis) - len(taken))
    basis = np.concatenate([taken, kept])
    rounded = np.rint(basis / STEP) * STEP
    return model.replace(albedo_mean=mean.astype(np.float32), albedo_basis=rounded.astype(np.float32))


def conversion(
    old: FaceModel, new: FaceModel
) -> tuple[Float[np.ndarray, "new old"], Float[np.ndarray, " new"]]:
    """The map of albedo coefficients, new = matrix @ old + constant, whose albedo is nearest by least
    squares: exact where the new basis can make it.

    Both models have the same mesh. An encoder's last albedo layer is converted by `matrix @ weights` and
    `matrix @ bias + constant`.
    """
    weight = counted(old)
    basis = _flat(np.asarray(new.albedo_basis), weight)
    shift = np.asarray(old.albedo_mean, np.float64) - np.asarray(new.albedo_mean, np.float64)
    wanted = np.concatenate([_flat(np.asarray(old.albedo_basis), weight), _flat(shift[None], weight)])
    found = np.linalg.lstsq(basis.T, wanted.T, rcond=1e-6)[0]
    return found[:, :-1].astype(np.float32), found[:, -1].astype(np.float32)


def converted_encoder(
    arrays: dict[str, np.ndarray], matrix: Float[np.ndarray, "new old"], constant: Float[np.ndarray, " new"]
) -> dict[str, np.ndarray]:
    """The arrays of an encoder's file whose albedo head predicts the new coefficients.

    Raises:
        InputError: they are no encoder's, or one for another number of coefficients.
    """
    kernel, bias = "encoder/heads.albedo.kernel", "encoder/heads.albedo.bias"
    if bias not in arrays or arrays[bias].shape != (matrix.shape[1],):
        raise InputError(f"no encoder with {matrix.shape[1]} albedo coefficients: nothing was converted.")
    old = {name: arrays[name].astype(np.float64) for name in (kernel, bias)}
    new = {kernel: old[kernel] @ matrix.T, bias: matrix @ old[bias] + constant}
    return arrays | {name: values.astype(arrays[name].dtype) for name, values in new.items()}
