"""Gradient truth: the derivative of an L1 picture loss against finite differences of the supersampled loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.scenes import MOTIONS, Scene, head_scenes, picture, supersampled

TIMES = 8  # samples a pixel along each axis
# Of the target from the scene, and of the finite difference: about three pixels, and about a quarter of one.
OFFSETS = np.float32([6.0, 6.0, 30.0, 0.06, 0.06, 0.06, 0.04, 0.25, 0.4, 0.4])
STEPS = OFFSETS / 12


def run(smoke: bool = False) -> dict:
    """Relative error of every derivative, by scene and motion; `largest` of shifts and of the others."""
    size = (64, 64) if smoke else (224, 224)
    scenes = head_scenes()[: 1 if smoke else None]
    errors = {scene.name: relative_errors(scene, size) for scene in scenes}
    shifts = [abs(error[name]) for error in errors.values() for name in MOTIONS[:3]]
    others = [abs(error[name]) for error in errors.values() for name in MOTIONS[3:]]
    return {"relative_error": errors, "largest_shift": max(shifts), "largest_other": max(others)}


def relative_errors(
    scene: Scene, size: tuple[int, int], offsets: np.ndarray = OFFSETS, implementation=None
) -> dict[str, float]:
    """(ours - expected) / |expected| for every motion; the target lies that far along the same motion, so that
    the derivative is not a small difference of large parts.
    """
    fine = jax.jit(lambda motion: supersampled(scene, motion, size, TIMES))

    @jax.jit
    def gradient(target):
        return jax.grad(lambda motion: jnp.abs(picture(scene, motion, size, implementation) - target).sum())(
            jnp.zeros(len(MOTIONS))
        )

    found = {}
    for k, name in enumerate(MOTIONS):
        unit = np.eye(len(MOTIONS), dtype=np.float32)[k]
        target = fine(offsets[k] * unit)
        loss = [float(jnp.abs(fine(sign * STEPS[k] * unit) - target).sum()) for sign in (1, -1)]
        expected = (loss[0] - loss[1]) / (2 * float(STEPS[k]))
        found[name] = round(float((gradient(target)[k] - expected) / abs(expected)), 4)
    return found
