"""Gradient truth: the derivative of an L1 picture loss against finite differences of the supersampled
loss.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels.drawing import cases

from benchmarks import peers
from benchmarks.scenes import MOTIONS, Scene, head_scenes, picture, supersampled

TIMES = 8  # samples a pixel along each axis
# Of the target from the scene, and of the finite difference: about three pixels, and about a quarter of one.
OFFSETS = np.float32([6.0, 6.0, 30.0, 0.06, 0.06, 0.06, 0.04, 0.25, 0.4, 0.4])
STEPS = OFFSETS / 12


def run(smoke: bool = False) -> dict:
    """Relative error of every derivative by scene and motion, with one and with 2 x 2 samples a pixel.

    Returns:
        relative_error: {"1": {scene: {motion: error}}, "2": ...}.
        largest_shift, largest_other: with one sample, of x, y and z and of the other motions; the same with
            `_2x2` for 2 x 2 samples.
        sheets: see `sheets_errors`.
    """
    size = (64, 64) if smoke else (224, 224)
    scenes = head_scenes()[: 1 if smoke else None]
    errors: dict = {"1": {}, "2": {}}
    for scene in scenes:
        for samples, found in relative_errors(scene, size).items():
            errors[str(samples)][scene.name] = found
    result: dict = {"relative_error": errors}
    for samples, suffix in (("1", ""), ("2", "_2x2")):
        for name, motions in (("shift", MOTIONS[:3]), ("other", MOTIONS[3:])):
            largest = max(abs(found[motion]) for found in errors[samples].values() for motion in motions)
            result[f"largest_{name}{suffix}"] = largest
    result["sheets"] = sheets_errors()
    return result


def sheets_errors() -> dict:
    """{scene: {samples or peer: |ours - expected| / |expected|}} of the derivative of a weighted picture of a
    few triangles by their shift.
    """
    found: dict = {}
    for name in cases.SHEETS:
        scene, weight = cases.sheets(name), cases.sheets_weight()
        expected = cases.true_shift_gradient(scene)
        gradients = {f"{n} x {n}": cases.shift_gradient(scene, n) for n in (1, 2, 4)}
        for peer, make in peers.installed().items():
            # It draws one side only; each of these scenes is wound one way.
            drawn = make(
                scene.vertices, scene.colors, scene.faces[:, ::-1], cases.SHEETS_MATRIX, cases.SHEETS_SIZE
            )
            gradients[peer] = np.asarray(drawn.forward_backward(weight)[0]).sum(0)
        size = np.linalg.norm(expected)
        found[name] = {k: round(float(np.linalg.norm(g - expected) / size), 4) for k, g in gradients.items()}
    return found


def relative_errors(scene: Scene, size: tuple[int, int], samples: tuple[int, ...] = (1, 2)) -> dict:
    """{samples: {motion: (ours - expected) / |expected|}}; the target lies that far along the same motion, so
    that the derivative is not a small difference of large parts.
    """
    fine = jax.jit(lambda motion: supersampled(scene, motion, size, TIMES))

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(target, count):
        return jax.grad(lambda motion: jnp.abs(picture(scene, motion, size, count) - target).sum())(
            jnp.zeros(len(MOTIONS))
        )

    found: dict = {count: {} for count in samples}
    for k, name in enumerate(MOTIONS):
        unit = np.eye(len(MOTIONS), dtype=np.float32)[k]
        target = fine(OFFSETS[k] * unit)
        loss = [float(jnp.abs(fine(sign * STEPS[k] * unit) - target).sum()) for sign in (1, -1)]
        expected = (loss[0] - loss[1]) / (2 * float(STEPS[k]))
        for count in samples:
            ours = float(gradient(target, count)[k])
            found[count][name] = round((ours - expected) / abs(expected), 4)
    return found
