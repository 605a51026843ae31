"""Every operation of the kernels, and a whole step of a fit, lower for CPU, GPU and TPU."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from facefit_kernels import antialias, draw, interpolate, neighbors, rasterize, vertex_normals
from facefit_kernels.drawing.cases import colors
from facefit_kernels.rasterization.cases import ball_case

PLATFORMS = ("cpu", "cuda", "tpu")
CASE = ball_case(60, (12, 16))
COLORS = colors(CASE)


def fragments_of(vertices):
    return rasterize(vertices, CASE.faces, CASE.size, implementation="reference")


# Each a number, so that its gradient is lowered too.
OPERATIONS = {
    "rasterize": lambda v: jnp.sum(fragments_of(v).depth),
    "interpolate": lambda v: jnp.sum(interpolate(COLORS, CASE.faces, fragments_of(v), "reference")),
    "antialias": lambda v: jnp.sum(
        antialias(jnp.ones((*CASE.size, 1)), v, CASE.faces, fragments_of(v), "reference")
    ),
    "draw": lambda v: jnp.sum(draw(v, COLORS, CASE.faces, CASE.size, 2, "reference")[0]),
    "vertex_normals": lambda v: jnp.sum(vertex_normals(v[:, :3], CASE.faces, "reference")),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_and_its_gradient_lower_for_every_device(name):
    exported = jax.export.export(jax.jit(jax.value_and_grad(OPERATIONS[name])), platforms=PLATFORMS)(
        jnp.asarray(CASE.vertices_clip)
    )
    assert set(exported.platforms) == set(PLATFORMS)
    # What was lowered is what runs.
    again = exported.call(jnp.asarray(CASE.vertices_clip))
    np.testing.assert_allclose(again[0], OPERATIONS[name](jnp.asarray(CASE.vertices_clip)), rtol=1e-4)


def test_neighbors_of_faces_known_only_at_run_time_lower_for_every_device():
    exported = jax.export.export(jax.jit(lambda f: neighbors(f, "reference")), platforms=PLATFORMS)(
        jnp.asarray(CASE.faces)
    )
    assert set(exported.platforms) == set(PLATFORMS)


def test_native_operations_are_no_part_of_a_program_for_another_device(both_implementations):
    # The library's calls would not be found there; the caller is told while lowering, not on the device.
    exported = jax.export.export(
        jax.jit(lambda v: draw(v, COLORS, CASE.faces, CASE.size, implementation="reference")[0]),
        platforms=PLATFORMS,
    )(jnp.asarray(CASE.vertices_clip))
    assert "@facefit_" not in exported.mlir_module()


@pytest.mark.exhaustive
def test_a_whole_step_of_a_fit_lowers_for_every_device(monkeypatch):
    """Two photographs: landmarks, colours, what each tells of the other, and the solver."""
    import dataclasses

    from facefit_kernels import implementations
    from synthetic_subject import random_subject

    from facefit.fit import stages
    from facefit.fit.observation import observe, sharing
    from facefit.fit.settings import PRESETS
    from facefit.fit.solver import begin, levenberg_marquardt_step
    from facefit.fit.start import start
    from facefit.fit.surface import fitting_surface
    from facefit.model import find_model

    settings = dataclasses.replace(PRESETS["default"], pixels=160, crop_px=40)
    model = find_model("open")
    fitting = fitting_surface(model)
    photographs = random_subject(model, 2, seed=5, sparse=True).photographs
    observations = sharing([observe(photograph, settings, None, 0) for photograph in photographs])
    solution = begin(*start(fitting, observations, settings))
    # A program for other devices is made where the reference is what runs.
    monkeypatch.setattr(implementations, "available", lambda: ("reference",))

    def step(fitting, observations, solution):
        stage = stages.Stage(fitting, observations, settings, photometric=True, together=True)
        return levenberg_marquardt_step(
            solution, stage.prepare, stage.linearize, stage.energies, stage.prior, stage.prior_energy
        )

    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)),
        (fitting, observations, solution),
    )
    exported = jax.export.export(
        jax.jit(lambda *arguments: jax.tree.leaves(step(*arguments))), platforms=PLATFORMS
    )(*shapes)
    assert set(exported.platforms) == set(PLATFORMS)
    assert "@facefit_" not in exported.mlir_module()
