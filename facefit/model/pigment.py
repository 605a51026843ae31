"""Random albedo that could be a person's: the prior alone can make skin blue and eyes red."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from facefit.model.records import FaceModel

# Melanin and blood take more of green than of red, and more of blue than of green: at most so much of the
# second channel of each pair is left as there is of the first, times the number. Hair may be grey; irises may
# be blue, but not red.
_SKIN = ((0, 1, 0.75), (1, 2, 0.88))
_HAIR = ((0, 1, 1.0), (1, 2, 1.0))
_EYES = ((1, 0, 1.7), (1, 2, 1.3))
# No channel of the skin is less than this share of what its tone makes of the mean face; and where a beard
# may be.
_DETAIL, _BEARD = 0.7, 0.5
_LEAST_SKIN, _LEAST = 0.02, 0.004  # albedo of the darkest skin; of the blackest hair and pupils
_SIGMA = 0.004  # how far a bound may be missed, linear RGB
_STEPS, _CLOSE = 30, 1e-3  # of the solver, at most; a step that is not worth taking, standard deviations
_VERTICES = 200  # of skin, hair and eyes each


class PigmentBounds(NamedTuple):
    """What the colours of skin, hair and eyes keep to: linear functions of the albedo coefficients,
    constant + slope . coefficients, that are negative where a bound is missed.

    Attributes:
        constant: (B,). slope: (B, A).
    """

    constant: Float[np.ndarray, " B"]
    slope: Float[np.ndarray, "B A"]

    @staticmethod
    def of(model: FaceModel) -> PigmentBounds:
        """The bounds at some vertices of every kind."""
        albedo = np.concatenate([np.asarray(model.albedo_mean)[None], np.asarray(model.albedo_basis)])
        albedo = albedo.astype(np.float64)  # first the constant, then the coefficients
        region = {name: np.asarray(values) for name, values in model.regions.items()}
        eyes = region["eyes"] > 0.5
        outside = ~eyes & (region["inner"] < 0.5)
        bare = outside & (region["skin"] > 0.9)
        bounds, parts = [], []
        kinds = (bare, _SKIN, _LEAST_SKIN), (outside & ~bare, _HAIR, _LEAST), (eyes, _EYES, _LEAST)
        for members, ratios, darkest in kinds:
            part = albedo[:, _some(members)]
            parts.append(part)
            least = part.copy()
            least[0] -= darkest
            bounds.append(least)
            bounds += [ratio * part[..., more] - part[..., less] for more, less, ratio in ratios]
        skin = parts[0]
        tone = skin.mean(1) / skin[0].mean(0)  # of the whole skin, as a multiple of the mean face's
        beard = region.get("beard", np.zeros(len(bare)))[_some(bare)] > 0.05
        share = np.where(beard, _BEARD, _DETAIL)[:, None]
        bounds.append(skin - share * skin[0] * tone[:, None])
        rows = np.concatenate([bound.reshape(len(albedo), -1) for bound in bounds], axis=1).T
        return PigmentBounds(rows[:, 0], rows[:, 1:])

    def nearest(self, coefficients: Float[np.ndarray, " A"]) -> Float[np.ndarray, " A"]:
        """The coefficients nearest to the given ones, in standard deviations, that keep to the bounds.

        Bounds that are missed become stiff springs; the energy is convex, and Newton's steps, halved where
        they go too far, find its minimum. What keeps to all bounds is returned as it is.
        """
        wanted = np.asarray(coefficients, np.float64)

        def missed(place: np.ndarray) -> np.ndarray:
            return np.minimum(self.constant + self.slope @ place, 0.0) / _SIGMA

        def energy(place: np.ndarray) -> float:
            return float(((place - wanted) ** 2).sum() + (missed(place) ** 2).sum())

        found, lowest = wanted, energy(wanted)
        for _ in range(_STEPS):
            by_bound = missed(found)
            rows = self.slope[by_bound < 0] / _SIGMA
            gradient = found - wanted + rows.T @ by_bound[by_bound < 0]
            step = np.linalg.solve(rows.T @ rows + np.eye(len(wanted)), gradient)
            while (reached := energy(found - step)) > lowest and np.abs(step).max() > _CLOSE:
                step = step / 2
            if np.abs(step).max() <= _CLOSE:
                break
            found, lowest = found - step, reached
        return found.astype(np.float32)


def _some(members: np.ndarray) -> np.ndarray:
    index = np.flatnonzero(members)
    return index[:: max(1, len(index) // _VERTICES)]
