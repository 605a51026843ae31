"""What hides a face in photographs, drawn over it: glasses, hands, things, strands; and clothes below it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float

from facefit.synthesis.textures import noise

Layer = tuple[np.ndarray, np.ndarray]  # linear RGB (S, S, 3), opacity (S, S)
Projection = Callable[[np.ndarray], np.ndarray]  # model frame (N, 3) to pixels (N, 2)


def over(
    picture: Float[np.ndarray, "S S 3"], layer: Layer, skin: Float[np.ndarray, "S S"]
) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a layer over it, and what is left of the skin in sight."""
    color, opacity = layer
    picture = picture + opacity[..., None] * (color - picture)
    return picture, skin * (1 - opacity)


def fixed(points: Float[np.ndarray, "N 2"]) -> np.ndarray:
    """Pixels (first centre at .5) as OpenCV's drawing functions take them with a shift of four bits."""
    return np.round((points - 0.5) * 16).astype(np.int32)


def glasses(
    rng: np.random.Generator,
    size: int,
    marks: Float[np.ndarray, "68 3"],
    to_pixels: Projection,
    facing_left: float,
    light: float,
) -> Layer:
    """Spectacles or sunglasses before the eyes, with bridge and temples.

    Args:
        marks: the iBUG points of this face, model frame. facing_left: how far the head is turned, radians,
            positive where its left temple (x > 0) is in sight. light: brightness of the scene.
    """
    eyes = marks[36:42].mean(0), marks[42:48].mean(0)
    span = np.linalg.norm(marks[45] - marks[36])
    width, height = span * rng.uniform(0.24, 0.32), span * rng.uniform(0.16, 0.27)
    squareness = rng.uniform(2, 5)
    angle = np.linspace(0, 2 * np.pi, 40)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    ring = np.sign(ring) * np.abs(ring) ** (2 / squareness)
    forward = rng.uniform(9, 16)
    frame_color = np.array(rng.choice([0.01, 0.03, 0.15, 0.5])) * rng.uniform(0.5, 1.5, 3)
    dark = rng.random() < 0.3
    lens_color = rng.uniform(0.0, 0.08, 3) if dark else rng.uniform(0.3, 1.0, 3)
    lens_opacity = rng.uniform(0.75, 1.0) if dark else rng.uniform(0.0, 0.12)
    rimless = rng.random() < 0.15 and not dark
    thickness = max(1, round(size / 192 * (rng.uniform(1, 4.5) if not rimless else 1)))
    color = np.zeros((size, size, 3), np.float32)
    color[:] = frame_color * light
    opacity, lens = (np.zeros((size, size), np.float32), np.zeros((size, size), np.float32))
    sag = rng.uniform(-4, 4)
    for eye, side in zip(eyes, (-1, 1), strict=True):
        back = 0.0022 * (ring[:, 0] * width + eye[0]) ** 2 - 0.0022 * eye[0] ** 2
        rim = np.stack(
            [eye[0] + ring[:, 0] * width, eye[1] + sag * 0.3 + ring[:, 1] * height, eye[2] + forward - back],
            -1,
        )
        drawn = fixed(to_pixels(rim))
        cv2.fillPoly(lens, [drawn], 1.0, cv2.LINE_AA, 4)
        cv2.polylines(opacity, [drawn], True, 0.5 if rimless else 1.0, thickness, cv2.LINE_AA, 4)
        if side * facing_left > -0.15:
            hinge = eye + [side * width, height * 0.4, forward - 4]
            ear = np.array([side * abs(marks[0, 0]) * 1.02, eye[1] + 3, marks[0, 2] + 5])
            cv2.polylines(
                opacity, [fixed(to_pixels(np.stack([hinge, ear])))], False, 1.0, thickness, cv2.LINE_AA, 4
            )
    bridge = np.stack([eyes[0] + [width, height * 0.3, forward], eyes[1] + [-width, height * 0.3, forward]])
    middle = bridge.mean(0) + [0, 2, 3]
    arch = fixed(to_pixels(np.stack([bridge[0], middle, bridge[1]])))
    cv2.polylines(opacity, [arch], False, 1.0, thickness, cv2.LINE_AA, 4)
    lens_layer = np.clip(lens, 0, 1) * lens_opacity
    if not dark and rng.random() < 0.3:  # a window mirrored in the glass
        streak = np.clip(noise(rng, (size, size), (size / 6, size / 10))[..., 0] - 1.0, 0, 1)
        lens_layer = np.maximum(lens_layer, lens * streak * rng.uniform(0.2, 0.8))
    total = np.maximum(lens_layer, np.clip(opacity, 0, 1))
    share = np.clip(opacity, 0, 1)[..., None]
    lit = np.full(3, 1.0 if not dark else light)
    return color * share + (1 - share) * (lens_color * lit).astype(np.float32), total


def hand(rng: np.random.Generator, size: int, box: Float[np.ndarray, "4"], tone: np.ndarray) -> Layer:
    """Fingers and a palm of a skin's colour that reach over part of the face.

    Args:
        box: of the face, x0, y0, x1, y1 in pixels. tone: lit colour of the skin, linear RGB.
    """
    mask, shade = np.zeros((size, size), np.float32), np.ones((size, size), np.float32)
    extent = (box[2:] - box[:2]).max()
    edge = rng.uniform(0, 2 * np.pi)
    outward = np.array([np.cos(edge), abs(np.sin(edge))])
    target = (box[:2] + box[2:]) / 2 + outward * extent * rng.uniform(0.25, 0.5)
    wide = extent * rng.uniform(0.09, 0.13)
    across = np.array([-outward[1], outward[0]])
    spread, fingers = rng.uniform(0.0, 0.3), int(rng.integers(1, 5))
    for k in range(fingers):
        shift = (k - (fingers - 1) / 2) * wide * rng.uniform(0.95, 1.1)
        tip = target + across * shift * (1 + spread) - outward * extent * rng.uniform(0.0, 0.15)
        knuckle = target + outward * extent * 0.35 + across * shift
        middle = (tip + knuckle) / 2 + across * rng.normal(0, 0.1) * wide
        finger = np.zeros((size, size), np.float32)
        line = [fixed(np.stack([tip, middle, knuckle]))]
        cv2.polylines(finger, line, False, 1.0, max(2, int(wide)), cv2.LINE_AA, 4)
        core = np.zeros((size, size), np.float32)
        cv2.polylines(core, line, False, 1.0, max(1, int(wide * 0.45)), cv2.LINE_AA, 4)
        rounded = 0.6 + 0.45 * cv2.GaussianBlur(core, None, wide * 0.3)
        shade = np.where(finger > 0.5, rounded, shade)
        mask = np.maximum(mask, finger)
    palm = target + outward * extent * 0.55
    reach, turn = [int(wide * 2.6), int(wide * 2.2)], float(np.degrees(edge))
    cv2.ellipse(mask, [int(c) for c in palm], reach, turn, 0, 360, 1.0, -1, cv2.LINE_AA)
    texture = np.exp(0.06 * noise(rng, (size, size), (size / 16, size / 16))[..., 0])
    color = tone * (shade * texture)[..., None] * rng.uniform(0.7, 1.2)
    return color.astype(np.float32), np.clip(mask, 0, 1)


def thing(rng: np.random.Generator, size: int, box: Float[np.ndarray, "4"], light: float) -> Layer:
    """A box, disc, bar, scarf or cap of any colour over part of the face."""
    mask = np.zeros((size, size), np.float32)
    extent = (box[2:] - box[:2]).max()
    kind = rng.choice(["box", "disc", "bar", "below", "above"], p=[0.25, 0.2, 0.2, 0.2, 0.15])
    center = rng.uniform(box[:2], box[2:])
    if kind in ("below", "above"):
        level = (
            box[3] - extent * rng.uniform(0.0, 0.42)
            if kind == "below"
            else box[1] + extent * rng.uniform(-0.25, 0.05)
        )
        x = np.linspace(0, size, 9)
        y = level + extent * (
            0.05 * rng.standard_normal(9) + 0.1 * rng.standard_normal() * np.linspace(-1, 1, 9)
        )
        border = size if kind == "below" else 0
        cv2.fillPoly(
            mask,
            [fixed(np.concatenate([np.stack([x, y], -1), [[size, border], [0, border]]]))],
            1.0,
            cv2.LINE_AA,
            4,
        )
    else:
        reach = extent * (
            rng.uniform(0.12, 0.45, 2) if kind != "bar" else np.array([rng.uniform(0.04, 0.1), 1.5])
        )
        if kind == "disc":
            cv2.ellipse(
                mask,
                [int(c) for c in center],
                [int(r / 2) for r in reach],
                float(rng.uniform(0, 180)),
                0,
                360,
                1.0,
                -1,
                cv2.LINE_AA,
            )
        else:
            corners = cv2.boxPoints(
                (tuple(map(float, center)), tuple(map(float, reach)), float(rng.uniform(0, 180)))
            )
            cv2.fillPoly(mask, [fixed(corners)], 1.0, cv2.LINE_AA, 4)
    cell = rng.uniform(2, size / 3, 2)
    color = rng.uniform(0, 1, 3) ** 1.6 * light * np.exp(noise(rng, (size, size), cell) * rng.uniform(0, 0.5))
    return np.clip(color, 0, 1).astype(np.float32), np.clip(mask, 0, 1)


def strands(
    rng: np.random.Generator, size: int, roots: Float[np.ndarray, "R 2"], color: np.ndarray, unit: float
) -> Layer:
    """Loose hair that falls from points of the hair's edge.

    Args:
        roots: pixels. color: lit, linear RGB. unit: a millimetre in pixels.
    """
    mask = np.zeros((size, size), np.float32)
    lines = []
    length, lean, bend = (rng.uniform(15, 70) * unit, rng.normal(0, 0.5), rng.normal(0, 0.5))
    for root in roots:
        turn = np.pi / 2 + lean + 0.25 * rng.standard_normal() + bend * np.linspace(0, 1, 6)
        steps = length * rng.uniform(0.3, 1.2) / 6 * np.stack([np.cos(turn), np.sin(turn)], -1)
        lines.append(fixed(root + np.cumsum(steps, 0)))
    cv2.polylines(mask, lines, False, 1.0, max(1, round(unit * rng.uniform(0.8, 2.2))), cv2.LINE_AA, 4)
    shade = np.exp(0.25 * noise(rng, (size, size), (12, 3)))
    return (color * shade).astype(np.float32), np.clip(mask, 0, 1) * rng.uniform(0.5, 1.0)


def clothes(
    rng: np.random.Generator, size: int, throat: Float[np.ndarray, "2"], unit: float, light: float
) -> Layer:
    """Shoulders and a collar below the throat."""
    mask = np.zeros((size, size), np.float32)
    half, fall = rng.uniform(170, 240) * unit, rng.uniform(60, 130) * unit
    neck = rng.uniform(38, 75) * unit
    depth = rng.uniform(0, 45) * unit
    x, y = throat
    # The right half of the outline, from the middle of the collar to the shoulder and down.
    out = np.array([0.0, 0.5 * neck, neck, 0.75 * half, half, half])
    down = np.array([depth, 0.6 * depth, -4 * unit, 0.45 * fall, fall, 2.0 * size])
    line = np.concatenate([np.stack([x + out, y + down], -1), np.stack([x - out, y + down], -1)[::-1]])
    cv2.fillPoly(mask, [fixed(line)], 1.0, cv2.LINE_AA, 4)
    color = rng.uniform(0, 1, 3) ** 2.5 if rng.random() < 0.6 else np.full(3, rng.uniform(0, 1) ** 2.5)
    folds = np.exp(
        0.35 * noise(rng, (size, size), (size / 5, size / 9)) + 0.05 * rng.standard_normal((size, size, 1))
    )
    return np.clip(color * light * folds, 0, 1).astype(np.float32), np.clip(mask, 0, 1)
