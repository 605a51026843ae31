"""What trained networks say of photographs: each is looked at as it is and mirrored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facefit.encoder.coefficients import Coefficients, coefficients
from facefit.encoder.mirroring import mirror_coefficients
from facefit.encoder.networks import ConfidenceNetwork, Encoder
from facefit.encoder.surface import EncoderSurface
from facefit.photo.face_mesh import mirror_mesh


def look(
    encoder: Encoder,
    network: ConfidenceNetwork | None,
    surface: EncoderSurface,
    image: Float[Array, "N P P 3"],
    dense: Float[Array, "N 468 3"],
) -> tuple[Coefficients, Float[Array, "N I"]]:
    """Coefficients of photographs' crops, and the confidence in each photograph's identity.

    A network does not err on a face as it does on its mirror image: the mean of both looks is nearer to the
    truth than either. A model without mirrored faces is looked at once.

    Args:
        network: C-Net, which is asked about the photographs as they are; None trusts all alike.
        image: sRGB in [0, 1]. dense: Face Mesh points, crop pixels.
    """
    count, mirror = len(image), surface.mirror
    if mirror is not None:
        dense = jnp.concatenate([dense, mirror_mesh(dense, image.shape[2])])
        image = jnp.concatenate([image, image[:, :, ::-1]])
    outputs, features = encoder(image, dense)
    both = coefficients(outputs, surface.start)
    found, features = jax.tree.map(lambda leaf: leaf[:count], (both, features))
    confidence = jnp.ones_like(found.identity) if network is None else network(features)
    if mirror is not None:
        back = mirror_coefficients(mirror, jax.tree.map(lambda leaf: leaf[count:], both))
        found = jax.tree.map(lambda a, b: 0.5 * (a + b), found, back)
    return found, confidence
