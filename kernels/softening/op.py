"""Soft blending, the soft rasterizer's picture: the contract and the choice of implementation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import Implementation, resolve
from facefit_kernels.softening import reference
from jaxtyping import Array, Float


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
    w^2 / (near far). `fragments.replace(depth=1 - 2 * its_nearness)` gives its picture exactly. The silhouette
    of `sigmoid_alpha_blend` is the coverage.

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
    softness = jnp.stack([jnp.asarray(sigma, jnp.float32), jnp.asarray(gamma, jnp.float32)])
    if resolve(implementation) == "native":
        from facefit_kernels.softening.native import soft_blend as blend
    else:
        blend = reference.soft_blend
    return blend(
        values,
        fragments.face_index,
        fragments.depth,
        fragments.signed_distance,
        jnp.broadcast_to(background, picture),
        jax.lax.stop_gradient(softness),
    )
