"""The perspective camera: from the model frame to the camera frame, to pixels, to the kernels' clip space."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from facefit.rotations import matrix_from_axis_angle

# Half a turn about x: takes y up, z out of the face to y down, z forward (a face that looks at the camera).
_MODEL_TO_CAMERA = (1.0, -1.0, -1.0)


def _times(matrix: Float[Array, "3 3"], points: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """matrix @ point, of every point.

    Written out, since XLA's product of two matrices takes ten times as long where one is long and thin.
    """
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return jnp.stack([row[0] * x + row[1] * y + row[2] * z for row in matrix], axis=-1)


def to_camera(
    points: Float[Array, "... 3"], rotation: Float[Array, "3"], translation: Float[Array, "3"]
) -> Float[Array, "... 3"]:
    """Model frame to OpenCV camera frame, millimetres.

    Args:
        points: in the model frame (y up, z out of the face).
        rotation: axis-angle, camera frame; zero is a face that looks straight at the camera.
        translation: of the model's origin in the camera frame.
    """
    half_turn = jnp.asarray(_MODEL_TO_CAMERA, points.dtype)
    return _times(matrix_from_axis_angle(rotation), points * half_turn) + translation


def directions_to_camera(
    directions: Float[Array, "... 3"], rotation: Float[Array, "3"]
) -> Float[Array, "... 3"]:
    """Normals and other directions, model frame to camera frame."""
    half_turn = jnp.asarray(_MODEL_TO_CAMERA, directions.dtype)
    return _times(matrix_from_axis_angle(rotation), directions * half_turn)


def intrinsics(focal: Float[Array, ""], center: Float[Array, "2"]) -> Float[Array, "3 3"]:
    """Pinhole matrix with square pixels; pixel (0, 0) has its centre at (0.5, 0.5)."""
    focal = jnp.asarray(focal)
    zero, one = jnp.zeros_like(focal), jnp.ones_like(focal)
    return jnp.stack(
        [
            jnp.stack([focal, zero, center[0]]),
            jnp.stack([zero, focal, center[1]]),
            jnp.stack([zero, zero, one]),
        ]
    )


def project(points_camera: Float[Array, "... 3"], matrix: Float[Array, "3 3"]) -> Float[Array, "... 2"]:
    """Camera frame to pixels. Points nearer than 1 mm count as 1 mm away, so nothing is divided by zero."""
    homogeneous = _times(matrix, points_camera)
    return homogeneous[..., :2] / jnp.maximum(homogeneous[..., 2:], 1.0)


def clip_coordinates(
    points_camera: Float[Array, "V 3"],
    matrix: Float[Array, "3 3"],
    size: tuple[int, int],
    near: float = 10.0,
    far: float = 20000.0,
) -> Float[Array, "V 4"]:
    """Camera frame to the clip space of `facefit_kernels`: y down, near plane at -w, far plane at w.

    Args:
        points_camera: (V, 3), millimetres.
        matrix: pinhole matrix of the picture to be drawn.
        size: (H, W) of that picture.
        near, far: clip planes, millimetres.
    """
    height, width = size
    homogeneous = _times(matrix, points_camera)
    w = homogeneous[:, 2]
    x = 2.0 * homogeneous[:, 0] / width - w
    y = 2.0 * homogeneous[:, 1] / height - w
    z = (w * (far + near) - 2.0 * far * near) / (far - near)
    return jnp.stack([x, y, z, w], axis=-1)
