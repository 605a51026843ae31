"""Drawing, vertices and their attributes to antialiased pixels in one call: the contract and the choice of
implementation.
"""

from __future__ import annotations

import jax.numpy as jnp
from facefit_kernels.antialiasing.op import neighbors
from facefit_kernels.drawing import reference
from facefit_kernels.implementations import Implementation, resolve
from jaxtyping import Array, Float, Int


def draw(
    vertices_clip: Float[Array, "V 4"],
    attributes: Float[Array, "V C"],
    faces: Int[Array, "F 3"],
    size: tuple[int, int],
    samples: int = 1,
    implementation: Implementation = None,
    adjacent: Int[Array, "F 3"] | None = None,
    cull: bool = False,
) -> tuple[Float[Array, "H W C"], Float[Array, "H W"]]:
    """Draws a mesh: `rasterize`, `interpolate` and `antialias`, one after the other, and their derivatives.

    What fitting and training do most, as one operation, because the pictures in between are most of the cost
    on a CPU. Use the single operations where fragments are wanted or a pixel's colour is not linear in
    attributes.

    vertices_clip, faces, size, cull: as in `rasterize`. attributes: (V, C) float32. samples: the picture is
    drawn and antialiased with that many pixels along each axis for one of the result, and averaged; static.
    With 1 what is thinner than a pixel (the gap of barely open lips) is sometimes not seen, and then has no
    gradient; 2 costs about three times as much. adjacent: `neighbors(faces)`, found here where it is None.

    Returns the picture (H, W, C), zero where nothing is, and the coverage (H, W), one inside, zero outside
    and between at silhouettes; over a background: picture + (1 - coverage) * background. Where surfaces cut
    through each other there is no edge, and the line's motion has no gradient.

    Differentiable in `vertices_clip` and `attributes`, visibility included, in forward and reverse mode, to
    first order. Batched by `vmap`. Raises ValueError for shapes that do not fit.
    """
    if adjacent is None:
        adjacent = neighbors(faces, implementation)
    vertices_clip, attributes = jnp.asarray(vertices_clip, jnp.float32), jnp.asarray(attributes, jnp.float32)
    faces = jnp.asarray(faces, jnp.int32)
    if vertices_clip.ndim != 2 or vertices_clip.shape[-1] != 4:
        raise ValueError(
            f"draw: vertices_clip must be (V, 4), got {vertices_clip.shape}; use vmap for a batch"
        )
    if attributes.ndim != 2 or attributes.shape[0] != vertices_clip.shape[0]:
        raise ValueError(f"draw: attributes must be ({vertices_clip.shape[0]}, C), got {attributes.shape}")
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"draw: faces must be (F, 3), got {faces.shape}")
    if samples < 1:
        raise ValueError(f"draw: samples must be at least 1, got {samples}")
    size = (int(size[0]), int(size[1]))
    adjacent = jnp.asarray(adjacent, jnp.int32)
    if resolve(implementation, "draw") == "native":
        from facefit_kernels.drawing import native

        return native.draw(vertices_clip, attributes, faces, adjacent, size, samples, bool(cull))
    return reference.draw(vertices_clip, attributes, faces, adjacent, size, samples, bool(cull))
