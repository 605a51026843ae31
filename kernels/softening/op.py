"""Soft blending, the soft rasterizer's picture: the contract and the choice of implementation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import Implementation, resolve
from facefit_kernels.rasterization.op import checked
from facefit_kernels.softening import reference
from jaxtyping import Array, Float, Int


def blur_for(sigma: float, least: float = 1e-4) -> float:
    """The blur radius, pixels, beyond which a triangle's chance to cover a pixel is below `least`.

    What `rasterize` should be given for a picture that is blended with this sigma; both on the host.
    """
    return float(np.sqrt(sigma * np.log(1.0 / least - 1.0)))


def soft_blend(
    values: Float[Array, "H W K C"],
    fragments: Fragments,
    background: Float[Array, "C"] | Float[Array, "H W C"],
    sigma: float | Float[Array, ""],
    gamma: float | Float[Array, ""],
    implementation: Implementation = None,
) -> tuple[Float[Array, "H W C"], Float[Array, "H W"]]:
    """Blends the fragments of every pixel by how likely and how near they are.

    values: (H, W, K, C) float32, of every fragment, as `interpolate` gives them. fragments: (H, W, K), those
    that are there before those that are not. background: (C,) or (H, W, C). sigma: square pixels; gamma: of
    the nearness below, in [0, 1]; both positive, numbers or arrays, so that they can be lowered from step to
    step without compiling anew. Returns the image (H, W, C) and its coverage (H, W) in [0, 1].

    A fragment at signed distance d, pixels, covers its pixel with the chance D = sigmoid(sign(d) d^2 /
    sigma). The coverage is 1 - prod(1 - D). In the image a fragment weighs D exp((n - m) / gamma), where the
    nearness n = (1 - depth) / 2 is 1 at the near plane and 0 at the far plane, and m is the pixel's largest;
    the background weighs exp((1e-10 - m) / gamma), at least 1e-10; the weights are scaled to sum to one (Liu
    et al. 2019, "Soft rasterizer: a differentiable renderer for image-based 3D reasoning").

    This is `softmax_rgb_blend` of PyTorch3D. Its sigma is sigma (2 / min(H, W))^2. Its nearness is linear in
    the distance w from the camera, (zfar - w) / (zfar - znear), where that of a perspective depth is linear
    in 1 / w: for fragments about the distance w, planes near and far the same for both, its gamma is gamma
    w^2 / (near far). `fragments.replace(depth=1 - 2 * its_nearness)` gives its picture exactly. The
    silhouette of `sigmoid_alpha_blend` is the coverage.

    Give `rasterize` the blur `blur_for(sigma)`: with a much larger one, fragments too far off to count still
    set m and fill the K places, and the background shows through.

    The softness must be chosen for the size of triangles in the picture: with a sigma of more than about
    1 / 200 of their mean area the picture swells, since every pixel beside a fine mesh is near to many
    triangles. A gamma of the nearness between the front and the back of what is seen lets the back through.

    Differentiable in `values`, `background` and through the fragments in the vertices, in forward and reverse
    mode, to first order; not in sigma and gamma. Batched by `vmap`. Raises ValueError for shapes that do not
    belong together.
    """
    values = jnp.asarray(values, jnp.float32)
    background = jnp.asarray(background, jnp.float32)
    shape = fragments.face_index.shape
    if values.ndim != 4 or values.shape[:3] != shape:
        raise ValueError(
            f"soft_blend: values must be (H, W, K, C) with the fragments' {shape}, got {values.shape}"
        )
    picture = (*shape[:2], values.shape[-1])
    if background.shape not in (picture, picture[2:]):
        raise ValueError(f"soft_blend: background must be {picture[2:]} or {picture}, got {background.shape}")
    if resolve(implementation, "soft_blend") == "native":
        from facefit_kernels.softening.native import soft_blend as blend
    else:
        blend = reference.soft_blend
    return blend(
        values,
        fragments.face_index,
        fragments.depth,
        fragments.signed_distance,
        jnp.broadcast_to(background, picture),
        _softness(sigma, gamma),
    )


def _softness(sigma, gamma) -> Float[Array, "2"]:
    return jax.lax.stop_gradient(
        jnp.stack([jnp.asarray(sigma, jnp.float32), jnp.asarray(gamma, jnp.float32)])
    )


def soft_render(
    vertices_clip: Float[Array, "V 4"],
    faces: Int[Array, "F 3"],
    attributes: Float[Array, "V C"],
    size: tuple[int, int],
    background: Float[Array, "C"] | Float[Array, "H W C"],
    sigma: float | Float[Array, ""],
    gamma: float | Float[Array, ""],
    fragments: int = 8,
    blur: float | None = None,
    implementation: Implementation = None,
    cull: bool = False,
) -> tuple[Float[Array, "H W C"], Float[Array, "H W"]]:
    """The soft picture of a mesh and its coverage: `rasterize`, `interpolate` and `soft_blend` in one.

    Arguments and results are those of the three; blur None is `blur_for(sigma)`, for which sigma must be a
    number. The same values and gradients; the native implementation keeps nothing of a fragment but its face
    index between the forward and the backward pass, so it takes a fraction of the time and, for each pixel,
    4 K + 8 C + 8 bytes.
    """
    vertices_clip, faces = jnp.asarray(vertices_clip, jnp.float32), jnp.asarray(faces, jnp.int32)
    attributes, background = jnp.asarray(attributes, jnp.float32), jnp.asarray(background, jnp.float32)
    size, fragments, blur = checked(
        vertices_clip, faces, size, fragments, blur_for(sigma) if blur is None else blur, "soft_render"
    )
    if attributes.ndim != 2 or attributes.shape[0] != vertices_clip.shape[0]:
        raise ValueError(
            f"soft_render: attributes must be ({vertices_clip.shape[0]}, C), got {attributes.shape}"
        )
    picture = (*size, attributes.shape[1])
    if background.shape not in (picture, picture[2:]):
        raise ValueError(
            f"soft_render: background must be {picture[2:]} or {picture}, got {background.shape}"
        )
    if resolve(implementation, "soft_render") == "native":
        from facefit_kernels.softening.native import soft_render as render
    else:
        render = reference.soft_render
    background = jnp.broadcast_to(background, picture)
    return render(
        vertices_clip,
        faces,
        attributes,
        background,
        _softness(sigma, gamma),
        size,
        fragments,
        blur,
        bool(cull),
    )
