"""From what the renderer drew to a picture: skin, brows, beard, teeth, background, clothes, hair, covers."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float

from facefit.synthesis import covers, textures
from facefit.synthesis.person import Person
from facefit.synthesis.rendering import MEMBERSHIPS


@dataclasses.dataclass(frozen=True)
class View:
    """How a person is photographed.

    Attributes:
        size: S, pixels. marks: the iBUG points of this face, model frame, millimetres.
        to_pixels: from the model frame to the picture. yaw: radians. unit: a millimetre at the face, pixels.
        brightness: mean irradiance. grey: whether the picture has no colours.
    """

    size: int
    marks: Float[np.ndarray, "68 3"]
    to_pixels: covers.Projection
    yaw: float
    unit: float
    brightness: float
    grey: bool


def compose(
    rng: np.random.Generator, who: Person, view: View, drawn: dict[str, np.ndarray]
) -> tuple[Float[np.ndarray, "S S 3"], Float[np.ndarray, "S S"], Float[np.ndarray, "S S"]]:
    """The linear picture, layer by layer from back to front, the skin in sight, and what would be without the
    things that lie over the face.

    Args:
        drawn: what `rendering.draw` returned.
    """
    face, shell, nearer = drawn["face"], drawn["hair"], drawn["nearer"]
    color, highlight, coverage = (face[..., :3], face[..., 3:6], np.clip(face[..., -1], 0, 1))
    inside = 1 / np.maximum(coverage, 0.05)[..., None]
    place, lit = face[..., 6:9] * inside, np.maximum(face[..., 9:12] * inside, 0)
    member = dict(zip(MEMBERSHIPS, np.moveaxis(face[..., 12:-1] * inside, -1, 0), strict=True))
    hair_color = who.hair_color.astype(np.float32)
    chart, edge = textures.hair_chart(rng)
    where, shell_where = textures.chart_of(place), textures.chart_of(shell[..., :3])
    hair_texture = textures.read_chart(cv2.merge([chart, edge]), where)

    on_skin = np.clip(member["skin"] + 0.3 * member["lips"], 0, 1)[..., None]
    color = color * (1 + on_skin * (textures.read_chart(who.skin, where) - 1))
    brows = textures.read_chart(who.brows, where) * np.clip(member["skin"] + member["brows"], 0, 1)
    own_hair = hair_color * lit * coverage[..., None]
    color = color + brows[..., None] * (own_hair - color)
    skin = coverage * np.clip(member["face"], 0, 1) * (1 - brows)
    beard = np.clip(member["beard"], 0, 1)
    if who.stubble:
        color = color * (
            1 - who.stubble * (beard * np.clip(0.7 + 0.5 * hair_texture[..., 1], 0, 1))[..., None]
        )
        skin = skin * (1 - 0.4 * who.stubble * beard)
    if who.beard:
        grown = who.beard * np.clip((beard - 0.25 + 0.12 * hair_texture[..., 1]) * 4, 0, 1)
        color = color + grown[..., None] * (own_hair * hair_texture[..., :1] - color)
        skin = skin * (1 - grown)
    color = np.clip(color, 0, None) + highlight
    color, skin = _teeth(rng, view, color, skin, member["inner"] * coverage, lit)

    behind = textures.background(rng, view.size, view.grey) * rng.uniform(0.4, 1.3)
    picture = color + (1 - coverage)[..., None] * behind
    throat = view.to_pixels(np.array([[0.0, view.marks[8, 1] - rng.uniform(28, 55), 0.0]]))[0]
    picture, skin = covers.over(
        picture, covers.clothes(rng, view.size, throat, view.unit, view.brightness), skin
    )

    field = shell[..., 3] + 7 * textures.read_chart(edge, shell_where)
    opacity = np.clip(field / rng.uniform(2, 9) + 0.5, 0, 1) * nearer
    hair_lit = hair_color * shell[..., 4:7] * textures.read_chart(chart, shell_where)[..., None]
    hair_lit = hair_lit + 0.03 * view.brightness * np.clip(shell[..., 4:5] - 1, 0, 1)
    opacity = cv2.GaussianBlur(opacity.astype(np.float32), None, 0.6)
    picture, skin = covers.over(picture, (hair_lit, opacity), skin)
    return *_cover(rng, who, view, picture, skin, (hair_lit, opacity)), skin


def _cover(
    rng: np.random.Generator,
    who: Person,
    view: View,
    picture: np.ndarray,
    skin: np.ndarray,
    hair: covers.Layer,
) -> tuple[np.ndarray, np.ndarray]:
    """What lies over the face: strands, glasses, a hand, a thing."""
    hair_lit, hair_opacity = hair
    size, pixels = view.size, view.to_pixels(view.marks)
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    rows, columns = np.nonzero((hair_opacity > 0.4) & (hair_opacity < 0.95))
    if len(rows) > 20 and rng.random() < 0.3:
        chosen = rng.choice(len(rows), int(rng.integers(3, 40)))
        roots = np.stack([columns[chosen], rows[chosen]], -1) + 0.5
        color = hair_lit[hair_opacity > 0.4].mean(0)
        picture, skin = covers.over(picture, covers.strands(rng, size, roots, color, view.unit), skin)
    if who.wears_glasses and rng.random() < 0.8:
        layer = covers.glasses(rng, size, view.marks, view.to_pixels, view.yaw, view.brightness)
        picture, skin = covers.over(picture, layer, skin)
    chance = rng.random()
    if chance < 0.08:
        bare = skin > 0.7
        tone = picture[bare].mean(0) if bare.sum() > 50 else np.array([0.4, 0.25, 0.2])
        picture, skin = covers.over(picture, covers.hand(rng, size, box, tone), skin)
    elif chance < 0.18:
        picture, skin = covers.over(picture, covers.thing(rng, size, box, view.brightness), skin)
    if view.grey:
        picture = np.repeat((picture @ np.float32([0.2126, 0.7152, 0.0722]))[..., None], 3, -1)
    return picture, skin


def _teeth(
    rng: np.random.Generator,
    view: View,
    color: np.ndarray,
    skin: np.ndarray,
    inner: np.ndarray,
    lit: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Teeth between open lips: a light band that hangs from the upper lip, inside the mouth only."""
    size, pixels = view.size, view.to_pixels(view.marks)
    gap = np.linalg.norm(view.marks[62] - view.marks[66])
    show = rng.random() < 0.85
    white, drop = rng.uniform(0.35, 0.75), rng.uniform(5.0, 9.0)
    if gap < 2.5 or not show:
        return color, skin
    mouth, band = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    cv2.fillPoly(mouth, [covers.fixed(pixels[60:68])], 1.0, cv2.LINE_AA, 4)
    down = (pixels[66] - pixels[62]) / gap * min(drop, 1.2 * gap)
    upper = pixels[60:65]
    cv2.fillPoly(band, [covers.fixed(np.concatenate([upper, upper[::-1] + down]))], 1.0, cv2.LINE_AA, 4)
    rows = np.clip(mouth * band * np.clip(1.5 * inner, 0, 1), 0, 1)[..., None]
    tooth = np.float32([1.0, 0.93, 0.8]) * white * 0.75 * np.maximum(lit.mean(-1, keepdims=True), 0.15)
    return color + rows * (tooth - color), skin * (1 - rows[..., 0])
