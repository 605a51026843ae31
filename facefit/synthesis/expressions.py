"""Random expressions, poses and lights as photographs of people show them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

# What a face does in photographs: how often, and the range of every unit of the ARKit scheme it moves
# (sides are moved together).
_KINDS: dict[str, tuple[float, dict[str, tuple[float, float]]]] = {
    "neutral": (0.28, {"mouthSmile": (0.0, 0.1), "mouthPress": (0.0, 0.2)}),
    "smile": (
        0.27,
        {
            "mouthSmile": (0.2, 1.0),
            "cheekSquint": (0.0, 0.7),
            "eyeSquint": (0.0, 0.4),
            "jawOpen": (0.0, 0.22),
            "mouthUpperUp": (0.0, 0.5),
            "mouthLowerDown": (0.0, 0.4),
            "mouthDimple": (0.0, 0.4),
        },
    ),
    "talk": (
        0.18,
        {
            "jawOpen": (0.05, 0.7),
            "mouthFunnel": (0.0, 0.6),
            "mouthPucker": (0.0, 0.5),
            "mouthLowerDown": (0.0, 0.5),
            "mouthStretch": (0.0, 0.3),
            "browOuterUp": (0.0, 0.4),
        },
    ),
    "surprise": (
        0.07,
        {"browInnerUp": (0.2, 1.0), "browOuterUp": (0.2, 1.0), "eyeWide": (0.1, 0.9), "jawOpen": (0.1, 0.9)},
    ),
    "anger": (
        0.06,
        {
            "browDown": (0.2, 1.0),
            "noseSneer": (0.0, 0.6),
            "mouthPress": (0.0, 0.6),
            "eyeSquint": (0.0, 0.6),
            "mouthFrown": (0.0, 0.4),
        },
    ),
    "sad": (0.06, {"browInnerUp": (0.2, 0.9), "mouthFrown": (0.2, 0.9), "mouthShrugLower": (0.0, 0.5)}),
    "anything": (0.08, {}),
}
_CLOSED, _WINK = 0.08, 0.015  # shares of faces
_RARE = ("mouthClose", "tongueOut")  # only meaningful with others, or hardly ever photographed


def _unit(name: str) -> tuple[str, str]:
    """The movement and its side ("L", "R" or "") of an expression's name in the ARKit or the ICT spelling."""
    for ending, side in (("Left", "L"), ("Right", "R"), ("_L", "L"), ("_R", "R")):
        if name.endswith(ending) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            return name[: -len(ending)], side
    return name, ""


def random_expression(
    rng: np.random.Generator, names: tuple[str, ...], count: int, is_blendshape: bool
) -> Float[np.ndarray, " E"]:
    """Coefficients of a face in a photograph: neutral, smiling, talking, ...; some with closed eyes.

    Blendshapes of other than ARKit's names get a few random weights; a basis in standard deviations is drawn
    from a normal distribution slightly narrower than its own, since studio bases overstate expressions.

    Args:
        names: of the expressions, may be empty.
        count: E.
    """
    if not is_blendshape:
        return (0.8 * rng.standard_normal(count)).astype(np.float32)
    weights = np.zeros(count, np.float32)
    units = [_unit(name) for name in names]
    if not any(movement == "jawOpen" for movement, _ in units):
        chosen = rng.choice(count, min(count, int(rng.integers(0, 5))), replace=False)
        weights[chosen] = rng.uniform(0, 0.8, len(chosen))
        return weights
    kinds = list(_KINDS)
    shares = np.array([_KINDS[kind][0] for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
    ranges = dict(_KINDS[kind][1])
    movements = sorted({movement for movement, _ in units if movement not in _RARE})
    extra = rng.integers(2, 7) if kind == "anything" else rng.integers(0, 3)
    for movement in rng.choice(movements, min(int(extra), len(movements)), replace=False):
        if not movement.startswith(("eyeBlink", "eyeLook")):
            ranges.setdefault(str(movement), (0.0, 0.7 if kind == "anything" else 0.35))
    ranges["eyeBlink"] = (0.85, 1.0) if rng.random() < _CLOSED else (0.0, 0.25)
    wink = rng.choice(["L", "R"]) if rng.random() < _WINK else ""
    look_x, look_y = rng.normal(0, 0.25, 2)
    gaze = {
        ("eyeLookOut", "L"): look_x, ("eyeLookIn", "R"): look_x, ("eyeLookIn", "L"): -look_x,
        ("eyeLookOut", "R"): -look_x, ("eyeLookUp", "L"): look_y, ("eyeLookUp", "R"): look_y,
        ("eyeLookDown", "L"): -look_y, ("eyeLookDown", "R"): -look_y,
    }  # fmt: skip
    level = {movement: rng.uniform(*ranges[movement]) for movement in sorted(ranges)}
    for k, (movement, side) in enumerate(units):
        if (movement, side) in gaze:
            weights[k] = gaze[movement, side]
        elif movement in level:
            weights[k] = level[movement] * (1 + 0.15 * rng.standard_normal())
        if movement == "eyeBlink" and side == wink:
            weights[k] = rng.uniform(0.8, 1.0)
    return np.clip(weights, 0.0, 1.0)


def random_rotation(rng: np.random.Generator, yaw: float | None = None) -> Float[np.ndarray, "3"]:
    """Axis-angle, camera frame: yaw, degrees, or to 70 degrees, mostly near the front; slight pitch and
    roll.
    """
    if yaw is None:
        yaw = np.clip(rng.normal(0, 15) if rng.random() < 0.55 else rng.uniform(-70, 70), -70, 70)
    yaw, pitch, roll = np.radians(
        [yaw, np.clip(rng.normal(0, 10), -32, 32), np.clip(rng.normal(0, 7), -25, 25)]
    )
    import cv2

    turn = np.eye(3)
    for axis in ((0, yaw, 0), (pitch, 0, 0), (0, 0, roll)):
        turn = cv2.Rodrigues(np.array(axis, float))[0] @ turn
    return cv2.Rodrigues(turn)[0][:, 0].astype(np.float32)


def random_distance(rng: np.random.Generator) -> float:
    """Camera to face, millimetres: from a selfie at arm's length to a portrait lens; median 1.1 m."""
    return float(np.clip(1100 * math.exp(0.4 * rng.standard_normal()), 420, 3500))
