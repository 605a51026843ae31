"""What the data pipeline hands to a training step: photographs, and the truth where it is known."""

from __future__ import annotations

from flax import struct
from jaxtyping import Array, Bool, Float, Int


@struct.dataclass
class Batch:
    """Samples for one step. Leading axes: (B,) photographs, or (B, M) for B subjects with M photographs each.

    Every leaf has the same leading axes, so `jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sets)` turns
    image sets into a batch of photographs. NumPy arrays of static shapes; a step moves them to its devices.

    Attributes:
        image: network crops of P pixels, sRGB in [0, 1], float32.
        landmarks: the iBUG points in crop pixels, first pixel's centre at (.5, .5). The jaw's points are
            those of the surface (`FaceModel.landmarks68`), also where the head hides them.
        landmark_weight: in [0, 1]; 0 where a point is not known.
        dense: the points of our own detector, which the encoder may be told: x, y and z in crop pixels.
        surface468: where the truth has the surface points (`FaceModel.landmarks468`) that dense ones stand
            for, also those that are hidden; crop pixels, zeros where it is not known.
        skin: how far a pixel is uncovered skin of this face, in [0, 1]: the photometric loss's attention.
        labelled: whether the coefficients below are known (synthetic samples, fitted photographs) or zeros.
        identity, expression, albedo: in the units of `facefit.model.Parameters`.
        lighting: as `ViewParameters.lighting`, camera frame; what changes the colours of a crop changes the
            light with it where it can (exposure, white balance).
        subject: the same number is the same person, within one data set and one run.

    Pose is no label: augmentation turns, shifts and scales the crop, and landmarks and pixels say what came
    of it.
    """

    image: Float[Array, "*batch P P 3"]
    landmarks: Float[Array, "*batch 68 2"]
    landmark_weight: Float[Array, "*batch 68"]
    dense: Float[Array, "*batch 468 3"]
    surface468: Float[Array, "*batch 468 2"]
    skin: Float[Array, "*batch P P"]
    labelled: Bool[Array, "*batch"]
    identity: Float[Array, "*batch I"]
    expression: Float[Array, "*batch E"]
    albedo: Float[Array, "*batch A"]
    lighting: Float[Array, "*batch 9 3"]
    subject: Int[Array, "*batch"]
