"""Which part of a model a photograph shows, and how much its colours can be trusted."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from facefit.model import FaceModel


def region(model: FaceModel, name: str) -> Float[np.ndarray, " V"]:
    """Membership of every vertex in [0, 1]; zeros where the model has no such region."""
    return np.asarray(model.regions.get(name, np.zeros(model.mean.shape[0], np.float32)))


def visible(model: FaceModel) -> Bool[np.ndarray, " V"]:
    """The vertices that can be seen from outside: neither the mouth's inside nor hidden shells."""
    return np.maximum(region(model, "inner"), region(model, "hidden")) < 0.5


def photometric_weight(model: FaceModel) -> Float[np.ndarray, " V"]:
    """How much a vertex's colour counts: 1 on skin, less where the albedo prior knows little."""
    weight = np.clip(region(model, "skin") + region(model, "lips"), 0, 1)
    for name in ("neck", "ears", "scalp", "eyes"):
        weight = weight * (1.0 - region(model, name))
    return weight * (1.0 - 0.5 * region(model, "brows"))


def face(model: FaceModel) -> Bool[np.ndarray, " V"]:
    """The vertices of the face proper: skin, lips and brows, without ears, neck, scalp and eyeballs."""
    apart = ("ears", "neck", "scalp", "eyes", "inner", "hidden")
    outside = np.max([region(model, name) for name in apart], 0)
    inside = np.max([region(model, name) for name in ("skin", "lips", "brows")], 0)
    return (inside > 0.5) & (outside < 0.5)
