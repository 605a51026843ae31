"""The photometric energy of the open face and its gradient by all parameters, at 224 x 224."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels import neighbors

from benchmarks.scenes import camera
from benchmarks.timing import compiled, rounds, summary
from facefit.energy.photometric import photometric_residuals
from facefit.model import FaceModel, Parameters, find_model, mean_parameters
from facefit.render import render_face


def energy(model: FaceModel, parameters: Parameters, observed, matrix, size, adjacent) -> jax.Array:
    """Sum of squared robust colour differences of a whole picture, over the part that the face covers."""
    drawn = render_face(model, parameters, matrix, size, adjacent=adjacent)
    residuals = photometric_residuals(
        drawn.image.reshape(-1, 3), observed.reshape(-1, 3), drawn.coverage.reshape(-1), 0.05, 3.0
    )
    return jnp.sum(residuals**2)


def run(smoke: bool = False) -> dict:
    """Milliseconds of the value, and of the value with its gradient by identity, albedo, expression, pose and
    light.
    """
    size = (64, 64) if smoke else (224, 224)
    model = find_model("open")
    matrix, adjacent = camera(size), neighbors(model.faces)
    parameters = mean_parameters(model, 1)
    parameters = parameters.replace(views=jax.tree.map(lambda leaf: leaf[0], parameters.views))
    parameters = parameters.replace(
        views=parameters.views.replace(translation=jnp.float32([0.0, 0.0, 600.0])),
        identity=0.3 * jnp.ones_like(parameters.identity),
    )
    observed = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (*size, 3)), jnp.float32)

    def value(model, parameters, observed, matrix, adjacent):
        return energy(model, parameters, observed, matrix, size, adjacent)

    arguments = (model, parameters, observed, matrix, adjacent)
    alone, value_s = compiled(value, *arguments)
    both, both_s = compiled(jax.value_and_grad(value, argnums=1), *arguments)
    times = rounds({"value": alone, "value and gradient": both}, 3 if smoke else 40)
    return {name: summary(values) for name, values in times.items()} | {
        "compile_s": {"value": round(value_s, 2), "value and gradient": round(both_s, 2)}
    }
