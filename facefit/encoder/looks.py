"""What trained networks say of photographs: each is looked at as it is and mirrored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from facefit.encoder.coefficients import Coefficients, coefficients
from facefit.encoder.mirroring import mirror_coefficients
from facefit.encoder.networks import ConfidenceNetwork, Encoder
from facefit.encoder.surface import EncoderSurface
from facefit.photo.face_mesh import mirror_permutation


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
    count, size = len(image), image.shape[1]
    if surface.mirror is not None:
        turned = dense[:, mirror_permutation()] * jnp.asarray([-1.0, 1.0, 1.0])
        turned = turned + jnp.asarray([float(size), 0.0, 0.0])
        image = jnp.concatenate([image, image[:, :, ::-1]])
        dense = jnp.concatenate([dense, turned])
    outputs, features = encoder(image, dense)
    found = coefficients(outputs, surface.start)
    plain = jax.tree.map(lambda leaf: leaf[:count], (found, features))
    confidence = jnp.ones_like(plain[0].identity) if network is None else network(plain[1])
    if surface.mirror is None:
        return found, confidence
    back = mirror_coefficients(surface.mirror, jax.tree.map(lambda leaf: leaf[count:], found))
    return jax.tree.map(lambda a, b: 0.5 * (a + b), plain[0], back), confidence
