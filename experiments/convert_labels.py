"""Tells what is known of another model's synthetic faces in the coefficients of ours:
`python -m experiments.convert_labels FOREIGN -o CONVERTED`.

FOREIGN is a data set of `facefit synth --model ict.npz`, CONVERTED the same photographs with labels of the
model that an encoder is trained for. Its own faces alone would teach the encoder that a face is always one of
them; heads of another family, whose eyes, noses and mouths lie elsewhere on the surface, teach it how real
ones differ.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro
from jaxtyping import Float

from experiments.command_line import exit_status
from facefit.encoder import dataset
from facefit.encoder.prepare import link
from facefit.encoder.surface import frontal_vertices
from facefit.errors import InputError
from facefit.model import FaceModel, find_model
from facefit.model.registration import vertex_normals
from facefit.model.transfer import vertex_map
from facefit.photo.face_crop import CROP_FOCAL, NETWORK_SHARE

_HALF_TURN = np.array([1.0, -1.0, -1.0])  # from a model's axes to the camera's
# Millimetres: how far a point of the surface may be off along its normal, and along the surface, where which
# point is which is a matter of taste.
_NORMAL, _TANGENT = 1.5, 15.0
_POINTS = 800  # of the frontal face that are looked at
_INDEPENDENT = 110  # that they count for: neighbours are off together
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Convert the labels of a data set.

    Attributes:
        foreign: folder of `facefit synth` with another model.
        output: folder of the data set to make.
        model: name or file of the model whose coefficients are wanted.
    """

    foreign: tyro.conf.Positional[Path]
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    model: str = "open"


class Conversion:
    """From one model's coefficients to another's: the heads that lie closest over the frontal face.

    Which point is which is found once, on the mean faces (`facefit.model.transfer`); identity then follows by
    least squares with its prior, along the normals above all, and with a rigid motion, since heads of two
    models need not sit alike in their frames.
    """

    def __init__(self, source: FaceModel, target: FaceModel):
        frontal = frontal_vertices(target)
        found = vertex_map(source, target)
        frontal = frontal[found.face[frontal] >= 0]
        frontal = frontal[:: max(len(frontal) // _POINTS, 1)]
        corners, weights = np.asarray(source.faces)[found.face[frontal]], found.barycentric[frontal]

        def there(values) -> np.ndarray:
            return np.einsum("...vkc,vk->...vc", np.asarray(values)[..., corners, :], weights)

        self._frontal, self._faces = frontal, np.asarray(target.faces)
        self._source = there(source.mean), there(source.identity_basis), there(source.expression_basis)
        self._mean = np.asarray(target.mean, np.float64)
        self._identity = np.asarray(target.identity_basis, np.float64)
        self._ways = self._identity[:, frontal]
        self._prior = np.diag([1.0] * len(self._identity) + [1e-6] * 6)  # a rigid motion is free
        moves = np.asarray(target.expression_basis, np.float64)[:, frontal].reshape(
            len(target.expression_basis), -1
        )
        square = moves @ moves.T
        self._expression = np.linalg.solve(square + 1e-3 * np.trace(square) * np.eye(len(square)), moves)

    def identity(self, identity: Float[np.ndarray, " I"]):
        """The target's identity, and the rigid motion (rotation, translation) that takes the source's head to
        it, millimetres.
        """
        mean, basis, _ = self._source
        points = mean + np.tensordot(identity, basis, 1)
        found, turn, shift = np.zeros(len(self._identity)), np.eye(3), np.zeros(3)
        for _ in range(_ROUNDS):
            head = self._mean + np.tensordot(found, self._identity, 1)
            normals = vertex_normals(head, self._faces)[self._frontal]
            moved = points @ turn.T + shift
            # Head less points: identity moves the head, a small rotation w and a translation the points.
            off = self._mean[self._frontal] - moved
            crossed = np.cross(np.eye(3)[:, None], moved - moved.mean(0))
            ways = np.concatenate(
                [
                    self._ways,
                    -crossed,
                    -np.broadcast_to(np.eye(3)[:, None], crossed.shape),
                ]
            )
            along = np.einsum("jvc,vc->jv", ways, normals)
            square = along @ along.T / _NORMAL**2
            right = along @ np.einsum("vc,vc->v", off, normals) / _NORMAL**2
            flat = (ways - along[..., None] * normals).reshape(len(ways), -1)
            share = _INDEPENDENT / len(self._frontal)
            square = share * (square + flat @ flat.T / _TANGENT**2)
            right = share * (right + flat @ off.ravel() / _TANGENT**2)
            solved = np.linalg.solve(square + self._prior, -right)
            found = solved[: len(found)]
            step = cv2.Rodrigues(solved[-6:-3])[0]
            middle = moved.mean(0)
            turn, shift = step @ turn, step @ (shift - middle) + middle + solved[-3:]
        return found, turn, shift

    def __call__(self, truth: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
        """What is true of one photograph (see `facefit.encoder.dataset.TRUTH`), `size` pixels wide."""
        identity, turn, shift = self.identity(truth["identity"])
        moved = np.tensordot(truth["expression"], self._source[2], 1) @ turn.T
        # The source's head in its camera, seen from the target's frame: x = turn.T @ (y - shift).
        rotation = cv2.Rodrigues(truth["rotation"].astype(float))[0] * _HALF_TURN @ turn.T * _HALF_TURN
        farther = np.array([1.0, 1.0, float(truth["focal"]) / (CROP_FOCAL * NETWORK_SHARE * size)])
        translation = truth["translation"] * farther - rotation @ (_HALF_TURN * shift)
        changed = {
            "identity": identity,
            "expression": self._expression @ moved.ravel(),
            "rotation": cv2.Rodrigues(rotation)[0].ravel(),
            "translation": translation / farther,
        }
        return truth | {name: np.asarray(values, np.float32) for name, values in changed.items()}


def convert(arguments: Arguments) -> int:
    """Makes the data set; returns how many photographs it has.

    Raises:
        InputError: no labelled data set, one of the wanted model already, or the output is taken.
    """
    data = dataset.read_dataset(arguments.foreign)
    model = find_model(arguments.model)
    if not data.labelled or "model" not in data.facts["settings"]:
        raise InputError(
            f"{arguments.foreign}: no synthetic faces. Make some with `facefit synth --model FILE`."
        )
    source = find_model(data.facts["settings"]["model"])
    if source.name == model.name:
        raise InputError(f"{arguments.foreign}: has labels of the model {model.name} already.")
    if source.albedo_basis.shape[0] != model.albedo_basis.shape[0]:
        raise InputError(
            f"{arguments.foreign}: its model's colours are not those of {model.name}. Convert the model with "
            "`facefit models convert`, which gives it ours."
        )
    settings = {"foreign": data.facts["settings"], "model": arguments.model}
    if not dataset.begin(arguments.output, settings):
        return len(data.split)
    conversion, size = Conversion(source, model), data.facts["size"]
    rows = []
    for index in range(len(data.split)):
        rows.append(conversion({name: values[index] for name, values in data.truth.items()}, size))
        for name in (f"images/{index:06d}.jpg", f"skin/{index:06d}.png"):
            link(data.folder / name, arguments.output / name)
    names = ("landmarks", "landmark_weight", "dense", "subject", "source", "split")
    counts = {part: len(getattr(model, f"{part}_basis")) for part in ("identity", "expression", "albedo")}
    facts = data.facts | {"model": model.name, "coefficients": counts}
    arrays = {name: getattr(data, name) for name in names} | data.grades
    dataset.finish(
        arguments.output, facts, arrays | {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    )
    return len(rows)


def main() -> int:
    """The command line."""
    arguments = tyro.cli(Arguments)
    return exit_status(lambda: print(f"{arguments.output}: {convert(arguments)} photographs"))


if __name__ == "__main__":
    sys.exit(main())
